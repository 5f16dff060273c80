"""
A provider over `shared.objects.store`, common to Amazon S3 and Azure Blob Storage.

Considerations: obstore gives every request, and every part of a large object, 30 s and retries it. An uploader waits
for all of them, so the whole has a time limit here.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final

from shared.errors import UnavailableError
from shared.objects.store import ObjectStore
from storage.content.body import Body
from storage.placement.failover import ObjectHeaders

MIB: Final = 1024 * 1024

ANSWER_S: Final = 10.0
"""The time limit without a body: two attempts of 5 s to connect, more than any healthy store needs."""

S_PER_MIB: Final = 1.0
"""The time added for each MiB: 8 Mbit/s, the slowest line for a service with files of 500 MB."""


class CloudProvider:
    """
    Satisfies `storage.placement.failover.Provider`.

    Args:
        name, place, prefix: See `Provider`.
        url: Makes the permanent URL of a key.
        answer_s: The time limit of the store, with `s_per_mib` more for each MiB; tests shorten it.
    """

    def __init__(
        self,
        name: str,
        place: str,
        prefix: str,
        url: Callable[[str], str],
        store: ObjectStore,
        *,
        answer_s: float = ANSWER_S,
        s_per_mib: float = S_PER_MIB,
    ) -> None:
        self.name = name
        self.place = place
        self.prefix = prefix
        self._url = url
        self._store = store
        self._answer_s = answer_s
        self._s_per_mib = s_per_mib

    async def put_if_absent(self, key: str, body: Body, headers: ObjectHeaders) -> bool:
        """See `Provider`."""
        async with self._within(self._answer_s + self._s_per_mib * body.size_bytes / MIB):
            if body.data is not None:
                created = await self._store.put_if_absent(
                    key,
                    body.data,
                    content_type=headers.content_type,
                    cache_control=headers.cache_control,
                    content_disposition=headers.content_disposition,
                )
                return created is not None
            with body.open() as reader:
                return await self._store.put_file_if_absent(
                    key,
                    reader,
                    content_type=headers.content_type,
                    cache_control=headers.cache_control,
                    content_disposition=headers.content_disposition,
                )

    async def delete(self, key: str) -> None:
        """See `Provider`."""
        async with self._within(self._answer_s):
            await self._store.delete(key)

    def url(self, key: str) -> str:
        """See `Provider`."""
        return self._url(key)

    @asynccontextmanager
    async def _within(self, limit_s: float) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(limit_s):
                yield
        except TimeoutError:
            raise UnavailableError(f"{self.place} did not answer within {limit_s:.0f} s") from None
