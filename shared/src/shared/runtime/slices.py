"""Long work in the event loop, in slices."""

import asyncio
from collections.abc import Iterable
from time import perf_counter
from typing import Final

SLICE_S: Final = 0.005
"""Time of work after which others have their turn. Nothing may hold the loop for 20 ms."""


class Slices:
    """
    Turns for others in a loop over many things: `await slices.turn()` after each of them.

    The steps must be short themselves; a step of 20 ms belongs into a thread.
    """

    __slots__ = ("_began",)

    def __init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        """Begin a slice, after a wait in which others worked."""
        self._began = perf_counter()

    async def turn(self) -> None:
        """Let others work where the slice is used up; else return at once."""
        if perf_counter() - self._began > SLICE_S:
            await asyncio.sleep(0)
            self.begin()


async def in_slices(steps: Iterable[None]) -> None:
    """Take the steps of a generator, with turns for others between them."""
    slices = Slices()
    for _ in steps:
        await slices.turn()
