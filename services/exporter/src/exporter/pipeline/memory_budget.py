"""
The limit on the bytes that all uploads together hold in memory, so that many slow buckets cannot use it up.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

UPLOAD_BYTES = 256 << 20
"""Four files of the largest size, or thousands of usual ones, at once."""


class MemoryBudget:
    """Admits uploads in their order, so that small ones do not starve a large one. One above the limit goes alone."""

    def __init__(self, size_bytes: int = UPLOAD_BYTES) -> None:
        self._size = size_bytes
        self._free = size_bytes
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    @asynccontextmanager
    async def hold(self, size_bytes: int) -> AsyncIterator[None]:
        """Wait for so many bytes of the budget, and hold them for the block."""
        needed = min(size_bytes, self._size)
        if self._waiting or needed > self._free:
            admitted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append((needed, admitted))
            try:
                await admitted
            except asyncio.CancelledError:
                # Admitted and cancelled at the same moment: release what was admitted.
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
