"""
The threads that do slow work on bytes, and the queue before them. Knows nothing of what the work is.

The queue is bounded: a service that takes in more pictures than it can shrink would run out of memory, so it says
"busy" instead, and the caller comes again (reference: storage.md, 8.5).
"""

import asyncio
import contextlib
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final, ParamSpec, Self, TypeVar

from shared.errors import BusyError

P = ParamSpec("P")
T = TypeVar("T")

THREADS: Final = 2
"""Pillow lets go of the interpreter's lock while it decodes, so that two threads use two cores."""

WAITING: Final = 64
"""Work that may wait: some three seconds of it at 50 ms for a picture of 12 megapixels and two threads."""

RETRY_AFTER_S: Final = 2.0


class ImageWork:
    """An async context manager; leaving it drops what has not begun."""

    def __init__(self, *, threads: int = THREADS, waiting: int = WAITING) -> None:
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="images")
        self._free = threads + waiting

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def run(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """
        Do the work in a thread, its errors passing through.

        A caller that is cancelled leaves at once; the thread cannot be stopped, and keeps its place until it is done.

        Raises:
            BusyError: The queue is full.
        """
        if self._free <= 0:
            raise BusyError("too many pictures wait to be worked on", retry_after_s=RETRY_AFTER_S)
        self._free -= 1
        loop = asyncio.get_running_loop()
        future = self._threads.submit(work, *args, **kwargs)
        future.add_done_callback(lambda done: self._hand_back(loop, done))
        return await asyncio.wrap_future(future)

    def _hand_back(self, loop: asyncio.AbstractEventLoop, _: Future[T]) -> None:
        # Called in the thread. The loop may be gone when the last work ends after the service.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(self._add_free)

    def _add_free(self) -> None:
        self._free += 1
