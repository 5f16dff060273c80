"""
Proof that nothing holds the event loop. No test lives here.

    async with LoopWatch() as watch:
        ...                                 # requests to a service in this process
    assert watch.held_s < HELD_S

A service of `run_service` shares the loop with its test, so large bodies are made before the block. The gauge
`millrace_loop_lag_seconds` in `/metrics` tells the same of a service in a process of its own.
"""

import asyncio
import time
from types import TracebackType

HELD_S = 0.08
"""
Limit of a test. Services hold the loop for some 5 ms at a time. The rest is for the client of the test, which shares
the loop, for collections of garbage, and for a slow machine. Work that is not sliced takes several times as long.
"""


class LoopWatch:
    """
    A ticker of 1 ms. `held_s` is the longest time of the CPU that the loop's thread used between two ticks, which a
    busy machine does not lengthen; `lag_s` is the longest delay of a tick, which waiting for the GIL and for the
    machine lengthens. Both in seconds.
    """

    def __init__(self, tick_s: float = 0.001) -> None:
        self.held_s = 0.0
        self.lag_s = 0.0
        self.ticks = 0
        self._tick_s = tick_s
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> "LoopWatch":
        self._task = asyncio.create_task(self._watch())
        await asyncio.sleep(0)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._task is not None
        # A block that waits for nothing at its end has the last tick still to come.
        await asyncio.sleep(2 * self._tick_s)
        self._task.cancel()

    async def _watch(self) -> None:
        used, at = time.thread_time(), time.perf_counter()
        while True:
            await asyncio.sleep(self._tick_s)
            used_now, now = time.thread_time(), time.perf_counter()
            self.held_s = max(self.held_s, used_now - used)
            self.lag_s = max(self.lag_s, now - at - self._tick_s)
            self.ticks += 1
            used, at = used_now, now
