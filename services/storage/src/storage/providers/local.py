"""
Objects in a directory of this machine, served by this service itself: where no connector is active.

Configuration: `MILLRACE_DATA_DIR`, and `MILLRACE_PUBLIC_URL` where a proxy or CDN stands before the service.
Implementation: `shared.objects.store`, which writes whole files or none and syncs them. A file has no headers, so its
type is told by its key, whose extension was made from the bytes; the name of a download lies in a file of its own.
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
from storage.placement.failover import Headers

NAME: Final = "local"

KEY = re.compile(
    rf"[A-Za-z0-9_-]{{1,64}}/(?:{'|'.join(get_args(MediaKind))})/[0-9a-f]{{2}}/[0-9a-f]{{32}}(?:_t\d+(?:of\d+)?v\d+)?\.([a-z0-9]{{1,8}})"
)
"""What `uploads.object_key` makes. Nothing else is looked for, so no path leads out of the directory."""


class LocalConfig(Struct, frozen=True, kw_only=True):
    """`objects` and `names` are directories, made when they are not there; `base_url` is what `/<key>` follows."""

    objects: Path
    names: Path
    base_url: str

    @asynccontextmanager
    async def open(self) -> AsyncIterator["LocalProvider"]:
        """Raises `DeniedError` or `UnavailableError` when a directory cannot be made."""
        async with (
            LocalStoreConfig(root=str(self.objects)).open() as objects,
            LocalStoreConfig(root=str(self.names)).open() as names,
        ):
            yield LocalProvider(self, objects, names)


class LocalObject(Struct, frozen=True, kw_only=True):
    """A file to serve, and what with."""

    path: Path
    headers: Headers


class LocalProvider:
    """Satisfies `placement.Provider`, and finds what it has stored."""

    name = NAME
    place = NAME
    prefix = ""

    def __init__(self, config: LocalConfig, objects: ObjectStore, names: ObjectStore) -> None:
        self._root = config.objects.resolve()
        self._base_url = config.base_url
        self._objects = objects
        self._names = names

    async def put_if_absent(self, key: str, body: Body, headers: Headers) -> bool:
        """See `placement.Provider`. The name goes first: an object that is there has all that it needs."""
        if headers.content_disposition.startswith("attachment;"):
            await self._names.put_if_absent(
                key, headers.content_disposition.encode("ascii"), content_type="text/plain; charset=utf-8"
            )
        if body.data is not None:
            return await self._objects.put_if_absent(key, body.data, content_type=headers.content_type)
        with body.open() as reader:
            return await self._objects.put_file_if_absent(key, reader, content_type=headers.content_type)

    async def delete(self, key: str) -> None:
        """See `placement.Provider`. The name goes last, so that what is served always has one."""
        await self._objects.delete(key)
        await self._names.delete(key)

    def url(self, key: str) -> str:
        """See `placement.Provider`."""
        return f"{self._base_url}/{key}"

    async def find(self, key: str) -> LocalObject:
        """Raises `NotFoundError`, also for what is no key of ours."""
        path = self._root / key
        named = KEY.fullmatch(key)
        if named is None or not await asyncio.to_thread(self._is_inside, path):
            raise NotFoundError("there is no such object")
        kind = BY_EXTENSION.get(named[1], BINARY)
        content_disposition = disposition(kind, "")
        if not kind.inline:
            # There is no name where none was given with the upload.
            with contextlib.suppress(NotFoundError):
                content_disposition = (await self._names.get(key)).data.decode("ascii")
        return LocalObject(path=path, headers=Headers(content_type=kind.name, content_disposition=content_disposition))

    async def ping(self) -> None:
        """Raises `UnavailableError` when nothing can be stored."""
        await self._objects.ping()

    def _is_inside(self, path: Path) -> bool:
        # A link that somebody has put into the directory is not followed out of it.
        return path.is_file() and path.resolve().is_relative_to(self._root)
