"""
The destination that every plug-in on an object store opens, and what their forms have in common.

Implementation: one conditional PUT a file (`If-None-Match: *`), whole from memory, through `shared.objects.store`.
There is no `Content-Encoding`: with it a client would decompress the file in transit and keep the name.
"""

import re
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar
from urllib.parse import urlsplit

from shared.errors import ConflictError, CredentialsError, DeniedError, InvalidError, NotFoundError
from shared.objects.config import StoreLimits
from shared.objects.store import ObjectStore

T = TypeVar("T")

DIRECTORY_BYTES: Final = 512
FILE_LIMITS: Final = StoreLimits(request_s=110)
"""A file of 64 MB passes at 5 Mbit/s."""
PROBE_LIMITS: Final = StoreLimits(connect_s=3, request_s=6, retries=0)
"""For Test Connection, where a person waits. Each of its steps ends after 5 s, and the request with it."""


class StoreDestination:
    """
    A bucket, a container or a local directory.

    Satisfies `exporter.pipeline.ports.Destination` and `exporter.destinations.connection_test.ProbedDestination`. A
    call that is refused because the keys of a role have ended, or were revoked, goes again with new ones, once.

    Args:
        key_of: Maps a key of an export to a key of the store.
    """

    def __init__(self, store: ObjectStore, *, key_of: Callable[[str], str] = str) -> None:
        self._store = store
        self._key_of = key_of

    @property
    def knows_conditions(self) -> bool:
        return self._store.knows_conditions

    async def put(self, key: str, data: bytes, content_type: str) -> str:
        created = await self._with_lasting_keys(
            lambda: self._store.put_if_absent(self._key_of(key), data, content_type=content_type)
        )
        if created is None:
            raise ConflictError(f"there is an object {key} already")
        return created.etag

    async def read(self, key: str, size_bytes: int) -> bytes | None:
        async def found() -> bytes | None:
            if (await self._store.head(self._key_of(key))).size_bytes != size_bytes:
                return None
            return (await self._store.get(self._key_of(key))).data

        try:
            return await self._with_lasting_keys(found)
        except NotFoundError:
            return None
        except DeniedError as error:
            why = "expected the right to read it, which tells whether an object that is there is ours"
            raise DeniedError(f"{error.message}; {why}") from error

    async def delete(self, key: str) -> None:
        await self._with_lasting_keys(lambda: self._store.delete(self._key_of(key)))

    async def _with_lasting_keys(self, call: Callable[[], Awaitable[T]]) -> T:
        renewals = self._store.renewals
        try:
            return await call()
        except (CredentialsError, DeniedError):
            if self._store.renewals == renewals:
                raise
        return await call()


def folder_of(directory: str) -> str:
    """A directory as it stands in keys: one slash between its parts, none at its ends."""
    return "/".join(part for part in directory.split("/") if part)


def host_of(endpoint_url: str) -> str:
    """The host of an endpoint, with its port where that is not the usual one; the same for every spelling."""
    parts = urlsplit(endpoint_url.lower())
    usual = {"http": 80, "https": 443}.get(parts.scheme)
    port = f":{parts.port}" if parts.port not in {None, usual} else ""
    return f"{(parts.hostname or '').rstrip('.')}{port}"


def check_directory(directory: str) -> None:
    """Check a directory, which may be empty. Raises `InvalidError`."""
    folder = folder_of(directory)
    bad = set(folder.split("/")) & {".", ".."}
    if bad or re.search(r"[\x00-\x1f\x7f]", directory) or len(folder.encode()) > DIRECTORY_BYTES:
        message = f"expected folders between slashes, without . and .., of at most {DIRECTORY_BYTES} bytes"
        raise InvalidError(message, field="destination.directory")
