"""
Proof that nothing holds the event loop. No test lives here.

    async with LoopWatch() as watch:
        ...                                 # requests to a service in this process
    assert watch.held_s < HELD_S, watch.holder

A service of `run_service` shares the loop with its test, so what the test itself computes in the block counts too.
"""

import asyncio
import gc
import threading
import time
from statistics import median
from types import TracebackType

from shared.process import GC_THRESHOLDS

HELD_S = 0.02
"""Longest time for which any callback may hold the loop, on a quiet machine."""
KNOWN_WORK_S = 0.00042
"""
Time of `known_work` on a quiet machine of the kind that Millrace is developed on. It takes twice as long where the
other hyperthread of the core works for somebody else.
"""


def known_work() -> float:
    """Work of the kind that services do. Returns the time of the CPU that it took, in seconds."""
    began = time.thread_time()
    for number in range(4_000):
        [number, str(number)]
    return time.thread_time() - began


class LoopWatch:
    """
    The longest callback of the running loop, which is what another task may have to wait for once.

    `held_s` is in seconds of a quiet machine: the time of the CPU that this thread used, divided by what known work
    takes more right after it than it does on a quiet machine. A busy or slow machine does not lengthen it. `holder` is
    the task or the callback, and `callbacks` is the number that was measured.

    Garbage is collected as in the process of a service (`shared.process.run`): what was there before is frozen. It is
    not collected first: the heap of a whole run of tests takes seconds.
    """

    def __init__(self) -> None:
        self.held_s = 0.0
        self.holder = ""
        self.callbacks = 0

    async def __aenter__(self) -> "LoopWatch":
        self._thread, self._run, self._thresholds = threading.get_ident(), asyncio.Handle._run, gc.get_threshold()
        gc.freeze()
        gc.set_threshold(*GC_THRESHOLDS)
        # A function: a bound method would not get the handle.
        asyncio.Handle._run = lambda handle: self._measure(handle)  # type: ignore[method-assign, assignment]
        await asyncio.sleep(0)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # The end of the block is measured as the rest of its callback.
        await asyncio.sleep(0)
        asyncio.Handle._run = self._run  # type: ignore[method-assign]
        gc.set_threshold(*self._thresholds)
        gc.unfreeze()

    def _measure(self, handle: asyncio.Handle) -> None:
        began = time.thread_time()
        self._run(handle)
        used_s = time.thread_time() - began
        if threading.get_ident() != self._thread:
            return
        self.callbacks += 1
        if used_s > self.held_s:
            slowness = max(1.0, median(known_work() for _ in range(5)) / KNOWN_WORK_S)
            if used_s / slowness > self.held_s:
                self.held_s = used_s / slowness
                owner = getattr(handle._callback, "__self__", None)  # type: ignore[attr-defined]
                self.holder = repr(owner if isinstance(owner, asyncio.Task) else handle)
