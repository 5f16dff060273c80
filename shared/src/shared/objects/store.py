"""
Objects in S3, Azure Blob Storage or a local directory, through obstore. Knows no layout of keys.

Configuration: a `StoreConfig` (`shared.objects.config`) names the store and its keys; `open()` gives the `ObjectStore`.
On S3 the keys need `s3:PutObject`, and `s3:GetObject`, `s3:ListBucket`, `s3:DeleteObject` for what a service does
beyond storing.

Implementation: obstore's Rust threads carry the bytes, at a sixth of aiobotocore's CPU for a PUT of 50 KB. It tries
again by itself on 5xx and lost connections, `StoreLimits.retries` times within seconds; everything else is the
runtime's. A local object is written by `shared.objects.local_files`, since obstore syncs nothing to the disk.

Considerations: a local object has no headers. Its name tells its content type, and its server sets cache headers.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from typing import IO, Any, Final, Literal

from msgspec import Struct
from obstore.store import AzureStore, LocalStore, S3Store

from shared.aws.codes import DENIED_KEYS, ENDED_KEYS, REVOKED_AFTER_S
from shared.errors import BusyError, ConflictError, DeniedError, MillraceError, NotFoundError
from shared.objects.errors import STORE_ERRORS, code_in, status_in, store_error
from shared.objects.keys import check_key, content_type_of, folder_of, headers_of
from shared.objects.local_files import Data, LocalFiles

SINGLE_PUT_BYTES: Final = 16 << 20
"""Size from which a put goes in parts: below it, one request is faster than three."""
PART_BYTES: Final = 8 << 20
PARTS_AT_ONCE: Final = 5
FILE_PART_BYTES: Final = 5 << 20
"""The smallest part that S3 takes; 10,000 of them are 50 GB."""
FILE_PARTS_AT_ONCE: Final = 2
"""Each part of a file is held in memory, more than once."""
Provider = Literal["s3", "azure", "local"]


class ObjectInfo(Struct, frozen=True, kw_only=True):
    """One object. `etag` changes with its content and says nothing else."""

    key: str
    size_bytes: int
    modified_at: datetime
    etag: str


class CreatedObject(Struct, frozen=True):
    """An object that a put has created. `etag` is what the store gave, empty where it gives none."""

    etag: str = ""


class StoredBytes(Struct, frozen=True, kw_only=True):
    """An object read whole."""

    data: bytes
    info: ObjectInfo
    content_type: str
    cache_control: str | None = None
    content_disposition: str | None = None
    metadata: dict[str, str] = {}


class ObjectStore:
    """
    One store. Every method raises `MillraceError`s; one that is cancelled leaves the object whole or absent.

    A key is a path of parts between single slashes, of at most 1,024 bytes; spaces and colons are fine.

    Args:
        renew: Makes the store anew, with new keys, once its present ones are refused as ended; None where the keys are
            always the same.
    """

    def __init__(
        self,
        store: S3Store | AzureStore | LocalStore,
        *,
        provider: Provider,
        place: str,
        files: LocalFiles | None = None,
        renew: Callable[[], S3Store] | None = None,
    ) -> None:
        self.provider: Final = provider
        self.knows_conditions = True
        """False once the store has answered that it knows no conditional PUT."""
        self._store = store
        self._place = place
        self._files = files
        self._renew = renew
        self._opened_at = time.monotonic()
        self.renewals = 0
        """How often the store was made anew. Where a call that failed has raised it, the call may be made again."""

    @contextmanager
    def _translated(self, doing: str) -> Iterator[None]:
        try:
            yield
        except STORE_ERRORS as error:
            raise self._error(error, doing) from error

    def _error(self, error: BaseException, doing: str) -> MillraceError:
        """Translate an error. Where it says that the keys have ended before their time, the next call has new ones."""
        if self._renew is not None and self._may_have_ended(code_in(error)):
            self._store, self._opened_at = self._renew(), time.monotonic()
            self.renewals += 1
        return store_error(error, f"{doing} in {self._place}")

    def _may_have_ended(self, code: str | None) -> bool:
        """Return whether new keys may help: these have ended, or are old enough to be of a session that was revoked."""
        return code in ENDED_KEYS or (code in DENIED_KEYS and time.monotonic() - self._opened_at > REVOKED_AFTER_S)

    async def put(
        self,
        key: str,
        data: Data,
        *,
        content_type: str,
        cache_control: str | None = None,
        content_disposition: str | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        """Store an object, over one that is there. Durable when it returns."""
        check_key(key)
        attributes = headers_of(content_type, cache_control, content_disposition, metadata)
        if self._files is not None:
            await asyncio.to_thread(self._files.write, key, data, replace=True)
            return
        with self._translated(f"store {key}"):
            await self._store.put_async(
                key,
                data,
                attributes=attributes,
                use_multipart=len(data) >= SINGLE_PUT_BYTES,
                chunk_size=PART_BYTES,
                max_concurrency=PARTS_AT_ONCE,
            )

    async def put_if_absent(
        self,
        key: str,
        data: Data,
        *,
        content_type: str,
        cache_control: str | None = None,
        content_disposition: str | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> CreatedObject | None:
        """
        Store an object unless one is there; None says that one was. Durable when it returns.

        One request, so meant for what fits in memory. After an answer was lost, None may mean our own first attempt.
        Two writers at once may both be told to try again (`BusyError`). A store that knows no conditional PUT is asked
        first and then written to, so there two writers at once may both be told that they created it.
        """
        check_key(key)
        attributes = headers_of(content_type, cache_control, content_disposition, metadata)
        if self._files is not None:
            return CreatedObject() if await asyncio.to_thread(self._files.write, key, data, replace=False) else None
        try:
            return _created(
                await self._store.put_async(key, data, attributes=attributes, mode="create", use_multipart=False)
            )
        except STORE_ERRORS as error:
            code, status = code_in(error), status_in(error)
            # Azure's last one is for a signature that may create and not write.
            if status == 412 or code in {"BlobAlreadyExists", "UnauthorizedBlobOverwrite"}:
                return None
            # Stores that do not know the condition: MinIO of old answered 304 (minio/minio#19442), others 501.
            if status not in {304, 501}:
                refused = self._error(error, f"store {key}")
                # Any other conflict is one of two requests at once, and not an object that is there.
                raise BusyError(refused.message) if isinstance(refused, ConflictError) else refused from error
        self.knows_conditions = False
        if await self._exists(key):
            return None
        with self._translated(f"store {key}"):
            return _created(await self._store.put_async(key, data, attributes=attributes, use_multipart=False))

    async def put_file_if_absent(
        self,
        key: str,
        reader: IO[bytes],
        *,
        content_type: str,
        cache_control: str | None = None,
        content_disposition: str | None = None,
    ) -> bool:
        """
        Store the content of a reader, from its beginning, in parts, unless an object is there.

        For content that does not fit in memory: `FILE_PARTS_AT_ONCE` parts are held. No store takes a condition
        together with parts, so a request checks first, where the keys allow it. Of two writers at once, the later
        one's object stays.

        Returns:
            False when an object was there.
        """
        check_key(key)
        attributes = headers_of(content_type, cache_control, content_disposition, None)
        if self._files is not None:
            return await asyncio.to_thread(self._files.write, key, reader, replace=False)
        try:
            if await self._exists(key):
                return False
        except DeniedError:
            # S3 does not say that a key is missing to a caller who may not list the bucket, and a writer need not.
            pass
        with self._translated(f"store {key}"):
            await self._store.put_async(
                key,
                reader,
                attributes=attributes,
                use_multipart=True,
                chunk_size=FILE_PART_BYTES,
                max_concurrency=FILE_PARTS_AT_ONCE,
            )
        return True

    async def get(self, key: str) -> StoredBytes:
        """Read an object whole. Raises `NotFoundError`."""
        self._check(key)
        with self._translated(f"read {key}"):
            found = await self._store.get_async(key)
            data = (await found.bytes_async()).to_bytes()
        headers: dict[str, str | None] = dict(found.attributes)
        return StoredBytes(
            data=data,
            info=_info(found.meta),
            content_type=headers.pop("Content-Type", None) or content_type_of(key),
            cache_control=headers.pop("Cache-Control", None),
            content_disposition=headers.pop("Content-Disposition", None),
            metadata={name: value for name, value in headers.items() if value is not None and name.islower()},
        )

    async def get_range(self, key: str, start: int, size: int) -> bytes:
        """Up to `size` bytes from `start` on, which must lie within the object. Raises `NotFoundError`."""
        self._check(key)
        with self._translated(f"read {key}"):
            return (await self._store.get_range_async(key, start=start, length=size)).to_bytes()

    async def head(self, key: str) -> ObjectInfo:
        """Metadata of an object. Raises `NotFoundError`."""
        self._check(key)
        with self._translated(f"look at {key}"):
            return _info(await self._store.head_async(key))

    async def delete(self, key: str) -> None:
        """Delete an object. One that is not there counts as deleted."""
        self._check(key)
        try:
            await self._store.delete_async(key)
        except FileNotFoundError as error:
            if code_in(error) in {"NoSuchBucket", "ContainerNotFound"} or "container does not exist" in str(error):
                raise self._error(error, f"delete {key}") from error
        except STORE_ERRORS as error:
            raise self._error(error, f"delete {key}") from error

    async def list(self, prefix: str = "") -> AsyncIterator[ObjectInfo]:
        """Every object below a folder, in no order to be relied on. `a` is the folder of `a/b` and not of `ab`."""
        folder = folder_of(prefix)
        with self._translated(f"list {prefix}"):
            async for found in self._store.list(folder, chunk_size=1000):
                for meta in found:
                    yield _info(meta)

    async def ping(self) -> None:
        """
        Check that the store is there and knows the keys.

        Asks for an object that is not there, because that needs the least permission. A key that may only write gets
        `AccessDenied`, which proves it valid. Only a write tells whether it may write.

        Raises:
            MillraceError: The store cannot be reached, or refuses the keys.
        """
        if self._files is not None:
            await asyncio.to_thread(self._files.ping)
            return
        try:
            await self._store.get_async(".millrace-ping")
        except STORE_ERRORS as error:
            if code_in(error) not in {"NoSuchKey", "BlobNotFound", "AccessDenied", "AuthorizationPermissionMismatch"}:
                raise self._error(error, "read") from error

    async def _exists(self, key: str) -> bool:
        try:
            await self.head(key)
        except NotFoundError:
            return False
        return True

    def _check(self, key: str) -> None:
        check_key(key)
        if self._files is not None:
            self._files.path(key)


def _created(result: Any) -> CreatedObject:
    return CreatedObject((result["e_tag"] or "").strip('"'))


def _info(meta: Any) -> ObjectInfo:
    return ObjectInfo(
        key=meta["path"],
        size_bytes=meta["size"],
        modified_at=meta["last_modified"],
        etag=(meta["e_tag"] or "").strip('"'),
    )
