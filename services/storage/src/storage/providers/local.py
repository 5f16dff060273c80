"""
Store objects in a directory of this machine, for apps without an active connector. This service serves them.

Configuration: `MILLRACE_DATA_DIR`, and `MILLRACE_PUBLIC_URL` where a proxy or CDN stands before the service.
Implementation: `shared.objects.store`, which writes whole files or none and syncs them. A file has no headers, so its
type is that of its key's extension, which was made from the bytes. The name of a download is in a file of its own.
Considerations: several replicas need one shared file system here, or a connector.
"""

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final, get_args

from msgspec import Struct

from shared.contracts.messages import MediaKind
from shared.errors import NotFoundError
from shared.objects.config import LocalStoreConfig
from shared.objects.store import ObjectStore
from storage.content.body import Body
from storage.content.content_types import BINARY, BY_EXTENSION, disposition
from storage.placement.failover import ObjectHeaders

NAME: Final = "local"

KEY = re.compile(
    rf"[A-Za-z0-9_-]{{1,64}}/(?:{'|'.join(get_args(MediaKind))})/[0-9a-f]{{2}}/[0-9a-f]{{32}}(?:_t\d+(?:of\d+)?v\d+)?\.([a-z0-9]{{1,8}})"
)
"""A key of `storage.uploads.object_keys.object_key`. Nothing else is served, so no path leads out of the directory."""


class LocalConfig(Struct, frozen=True, kw_only=True):
    """
    Configuration of the local directory.

    `objects` and `names` are directories, created when absent. A URL is `<base_url>/<key>`.
    """

    objects: Path
    names: Path
    base_url: str

    @asynccontextmanager
    async def open(self) -> AsyncIterator["LocalProvider"]:
        """Open the provider. Raises `DeniedError` or `UnavailableError` when a directory cannot be created."""
        async with (
            LocalStoreConfig(root=str(self.objects)).open() as objects,
            LocalStoreConfig(root=str(self.names)).open() as names,
        ):
            yield LocalProvider(self, objects, names)


class LocalObject(Struct, frozen=True, kw_only=True):
    """A file to serve, and its headers."""

    path: Path
    headers: ObjectHeaders


class LocalProvider:
    """Satisfies `storage.placement.failover.Provider`, and finds its objects."""

    name = NAME
    place = NAME
    prefix = ""

    def __init__(self, config: LocalConfig, objects: ObjectStore, names: ObjectStore) -> None:
        self._root = config.objects.resolve()
        self._base_url = config.base_url
        self._objects = objects
        self._names = names

    async def put_if_absent(self, key: str, body: Body, headers: ObjectHeaders) -> bool:
        """Store the name first: an object that exists is complete."""
        if headers.content_disposition.startswith("attachment;"):
            await self._names.put_if_absent(
                key, headers.content_disposition.encode("ascii"), content_type="text/plain; charset=utf-8"
            )
        if body.data is not None:
            created = await self._objects.put_if_absent(key, body.data, content_type=headers.content_type)
            return created is not None
        with body.open() as reader:
            return await self._objects.put_file_if_absent(key, reader, content_type=headers.content_type)

    async def delete(self, key: str) -> None:
        """Delete the name last: an object that is served always has one."""
        await self._objects.delete(key)
        await self._names.delete(key)

    def url(self, key: str) -> str:
        """See `Provider`."""
        return f"{self._base_url}/{key}"

    async def find(self, key: str) -> LocalObject:
        """The object of a key. Raises `NotFoundError`, also for a string that is no key."""
        path = self._root / key
        named = KEY.fullmatch(key)
        if named is None or not await asyncio.to_thread(self._is_inside, path):
            raise NotFoundError("there is no such object")
        kind = BY_EXTENSION.get(named[1], BINARY)
        content_disposition = disposition(kind, "")
        if not kind.inline:
            # An upload without a file name has none.
            with contextlib.suppress(NotFoundError):
                content_disposition = (await self._names.get(key)).data.decode("ascii")
        return LocalObject(
            path=path, headers=ObjectHeaders(content_type=kind.name, content_disposition=content_disposition)
        )

    async def ping(self) -> None:
        """Check that objects can be stored. Raises `UnavailableError`."""
        await self._objects.ping()

    def _is_inside(self, path: Path) -> bool:
        # A symbolic link in the directory is not followed out of it.
        return path.is_file() and path.resolve().is_relative_to(self._root)
