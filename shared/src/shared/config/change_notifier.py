"""Calls after changes, few for many: a change of one entry makes a service arrange all of them anew."""

import asyncio
from collections.abc import Callable
from typing import Final

REST: Final = 4
"""Rest after the calls, as a multiple of the time that they took: they use a fifth of the event loop at most."""


class ChangeNotifier:
    """
    Calls its callbacks at once after a change, then rests, and calls once for all changes of that time.

    1,000 hooks that are written at once are so arranged some ten times and not 1,000 times.
    """

    def __init__(self) -> None:
        self._callbacks: list[Callable[[], None]] = []
        self._rests_until = 0.0
        self._called: asyncio.Future[None] | None = None

    def add(self, callback: Callable[[], None]) -> None:
        """Add a callback, which must not block or raise."""
        self._callbacks.append(callback)

    def changed(self) -> None:
        """Call now, or at the end of the rest."""
        if self._called is not None:
            return
        loop = asyncio.get_running_loop()
        if loop.time() >= self._rests_until:
            self._call(loop)
        else:
            self._called = loop.create_future()
            loop.call_at(self._rests_until, self._call, loop)

    async def wait_called(self) -> None:
        """Wait until every change so far has been told."""
        if self._called is not None:
            await asyncio.shield(self._called)

    def _call(self, loop: asyncio.AbstractEventLoop) -> None:
        called, self._called = self._called, None
        began = loop.time()
        for callback in self._callbacks:
            callback()
        self._rests_until = loop.time() + REST * (loop.time() - began)
        if called is not None:
            called.set_result(None)
