"""
A bound on the bytes that all uploads together hold in memory, so that many slow buckets cannot fill it.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

UPLOAD_BYTES = 256 << 20
"""Four files of the largest size, or thousands of usual ones, at the same time."""


class MemoryBudget:
    """First come, first served, so that a large file is not starved by small ones. A file over the whole goes alone."""

    def __init__(self, size_bytes: int = UPLOAD_BYTES) -> None:
        self._size = size_bytes
        self._free = size_bytes
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    @asynccontextmanager
    async def hold(self, size_bytes: int) -> AsyncIterator[None]:
        """Wait until there is room for so many bytes, and keep it for the block."""
        needed = min(size_bytes, self._size)
        if self._waiting or needed > self._free:
            admitted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append((needed, admitted))
            try:
                await admitted
            except asyncio.CancelledError:
                # Given the room and cancelled in the same moment: pass it on.
                if admitted.done() and not admitted.cancelled():
                    self._release(needed)
                else:
                    self._waiting = deque(entry for entry in self._waiting if entry[1] is not admitted)
                    self._admit()
                raise
        else:
            self._free -= needed
        try:
            yield
        finally:
            self._release(needed)

    def _release(self, size_bytes: int) -> None:
        self._free += size_bytes
        self._admit()

    def _admit(self) -> None:
        while self._waiting and self._waiting[0][0] <= self._free:
            needed, admitted = self._waiting.popleft()
            if not admitted.done():
                self._free -= needed
                admitted.set_result(None)
