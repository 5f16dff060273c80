"""An event loop whose clock jumps to the next timer when no task can run. No test lives here."""

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any

TURN_S = 1e-6
"""Time of a turn of the loop. Without it, a timer that is early by a rounding error would be set again for ever."""


class _Jumping(selectors.SelectSelector):
    """Never waits: the time that it should have waited has passed at once."""

    now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        assert timeout is not None, "no timer is set, so the loop would wait for ever"
        self.now += max(TURN_S, timeout)
        return super().select(0)


class _Loop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._clock = _Jumping()
        super().__init__(self._clock)

    def time(self) -> float:
        return self._clock.now


def run_virtually(story: Coroutine[Any, Any, None]) -> None:
    """Run it to its end, however many hours it sleeps. It must not wait for anything outside."""
    with asyncio.Runner(loop_factory=_Loop) as runner:
        runner.run(story)
