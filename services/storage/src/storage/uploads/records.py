"""
Records of objects in the bucket `MEDIA`, by `<app>.<kind>.<half of the hash that stands for it>`.

An object that is stored again with another provider, or in another bucket, has a new location. Its former locations
stay in the record: their URLs are in use and keep working, and deleting the object deletes them too.

A record is marked before its objects are deleted, and removed after it. An upload of the same bytes waits for the end
of the deletion, and stores again what it may have removed. So a record without a mark always has its objects.
"""

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import Final, get_args

import msgspec
from msgspec import Struct

from shared.contracts import keys, subjects
from shared.contracts.messages import MediaKind, StoredObject, StoreMediaReply, encode
from shared.errors import ConflictError, InvalidError, MillraceError, NotFoundError, UnavailableError
from shared.messaging.kv import KeyValueStore

KINDS: Final[tuple[MediaKind, ...]] = get_args(MediaKind)
DELETION_S: Final = 45.0
"""The time limit of a deletion."""

MARK_S: Final = 60.0
"""The time for which a mark holds. After it the process that made the mark was killed."""

WAIT_S: Final = 5.0
"""The time that others wait for the end of a deletion, which usually takes milliseconds."""

LOOK_S: Final = 0.05

ID: Final = re.compile(rf"({'|'.join(KINDS)})-([0-9a-f]{{32}})")


class ObjectLocation(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A location of an object and its thumbnails. `place` is the bucket, container or directory of the provider."""

    provider: str
    place: str
    stored_at: datetime
    original: StoredObject
    thumbnails: tuple[StoredObject, ...] = ()


class ObjectRecord(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """
    The record of an object. `home` is its newest location, `former_homes` are those whose URLs stay valid.

    `deleting_until` marks a deletion that is in progress, or that ended by then without success.
    """

    id: str
    app_key: str
    kind: MediaKind
    home: ObjectLocation
    former_homes: tuple[ObjectLocation, ...] = ()
    deleting_until: datetime | None = None

    @property
    def locations(self) -> tuple[ObjectLocation, ...]:
        """All locations, the newest first."""
        return (self.home, *self.former_homes)

    def reply(self, *, failed_over: bool = False) -> StoreMediaReply:
        """The reply to an upload or a request for the object."""
        first, *others = self.home.thumbnails or (None,)
        return StoreMediaReply(
            id=self.id,
            app_key=self.app_key,
            kind=self.kind,
            provider=self.home.provider,
            original=self.home.original,
            thumbnail=first,
            other_thumbnails=tuple(thumbnail for thumbnail in others if thumbnail is not None),
            failed_over=failed_over,
        )


class ObjectPage(Struct, frozen=True, kw_only=True):
    """A page of objects, the one that changed longest ago first. `next` is the start of the next page, if any."""

    objects: tuple[ObjectRecord, ...]
    next: str | None = None


def object_id(kind: MediaKind, identity: str) -> str:
    """The id of an object: its kind and 128 bits of the hash that stands for it."""
    return f"{kind}-{identity[:32]}"


class DeletedMeanwhileError(Exception):
    """A deletion may have removed what was stored: it has to be stored again. `revision` is that of the deletion."""

    def __init__(self, revision: int) -> None:
        super().__init__(revision)
        self.revision = revision


class Records:
    """The records of every app."""

    def __init__(self, store: KeyValueStore, *, now: Callable[[], datetime]) -> None:
        self._store = store
        self._now = now

    async def get(self, app_key: str, id: str) -> ObjectRecord:
        """The record of an object. Raises `NotFoundError`."""
        record, _ = await self._read(app_key, id)
        if record is None:
            raise NotFoundError(f"there is no object {id}", field="id")
        return record

    async def add(
        self, app_key: str, kind: MediaKind, identity: str, location: ObjectLocation, *, deletion: int = 0
    ) -> ObjectRecord:
        """
        Record the location of a stored object. An unchanged record is not written again.

        Args:
            identity: The hash that stands for the object.
            deletion: The revision of a deletion that had ended before the object was stored; 0 for none.

        Raises:
            DeletedMeanwhileError: The object was deleted at another time than that.
            ConflictError: Concurrent uploads changed the record in each of five attempts, or its deletion takes long.
        """
        id = object_id(kind, identity)
        for _ in range(5):
            old, revision = await self._read_settled(app_key, id)
            if (old is None or old.deleting_until is not None) and revision not in {0, deletion}:
                raise DeletedMeanwhileError(revision)
            record = _merged(old, ObjectRecord(id=id, app_key=app_key, kind=kind, home=location))
            if record == old:
                return record
            try:
                await self._store.put(_key(app_key, id), encode(record), expect_revision=revision, over_deleted=False)
            except ConflictError:
                continue
            return record
        raise ConflictError("the same object is stored by many at once", retry_after_s=1)

    @asynccontextmanager
    async def deletion(self, record: ObjectRecord) -> AsyncIterator[None]:
        """
        Delete a record, and in the block its objects. An error that leaves the block leaves the record.

        Raises:
            NotFoundError: The object was deleted meanwhile.
            ConflictError: It was stored again since the record was read, or another deletion of it takes long.
            UnavailableError: The block took too long.
        """
        key = _key(record.app_key, record.id)
        now, revision = await self._read_settled(record.app_key, record.id)
        if now is None:
            raise NotFoundError(f"there is no object {record.id}", field="id")
        if msgspec.structs.replace(now, deleting_until=record.deleting_until) != record:
            raise ConflictError("the object was stored again meanwhile", field="id")
        revision = await self._mark(key, record, MARK_S, revision)
        try:
            async with asyncio.timeout(DELETION_S):
                yield
        except BaseException as error:
            # Those that wait for the mark go on at once. Where this fails, they go on when its time is over.
            with contextlib.suppress(MillraceError):
                await self._mark(key, record, 0.0, revision)
            if isinstance(error, TimeoutError):
                raise UnavailableError(f"the object could not be deleted within {DELETION_S:.0f} s") from None
            raise
        await self._store.delete(key, expect_revision=revision)

    async def page(self, app_key: str, *, kind: MediaKind | None, after: int, limit: int) -> ObjectPage:
        """Up to `limit` records that were written after revision `after`, in the order of their writing."""
        stored = await self._store.page(keys.media_keys(app_key, kind), after=after, most=limit + 1)
        records = (self._store.decoded(entry.key, entry.data, ObjectRecord) for entry in stored[:limit])
        readable = tuple(record for record in records if record is not None)
        return ObjectPage(objects=readable, next=str(stored[limit - 1].revision) if len(stored) > limit else None)

    async def _read(self, app_key: str, id: str) -> tuple[ObjectRecord | None, int]:
        """The record and its revision: that of its deletion where there is none, 0 where there never was one."""
        entry = await self._store.entry(_key(app_key, id))
        return self._store.decoded(entry.key, entry.data, ObjectRecord), entry.revision

    async def _read_settled(self, app_key: str, id: str) -> tuple[ObjectRecord | None, int]:
        """The same, once no deletion is in progress."""
        try:
            async with asyncio.timeout(WAIT_S):
                while True:
                    record, revision = await self._read(app_key, id)
                    if record is None or record.deleting_until is None or record.deleting_until <= self._now():
                        return record, revision
                    await asyncio.sleep(LOOK_S)
        except TimeoutError:
            raise ConflictError("the object is being deleted", field="id", retry_after_s=WAIT_S) from None

    async def _mark(self, key: str, record: ObjectRecord, duration_s: float, revision: int) -> int:
        until = self._now() + timedelta(seconds=duration_s)
        marked = msgspec.structs.replace(record, deleting_until=until)
        return await self._store.put(key, encode(marked), expect_revision=revision)


def _key(app_key: str, id: str) -> str:
    subjects.check_app_key(app_key)
    if (parts := ID.fullmatch(id)) is None:
        raise InvalidError("expected an id as an upload is answered with, such as file-<32 digits>", field="id")
    return keys.media_key(app_key, parts[1], parts[2])


def _merged(old: ObjectRecord | None, new: ObjectRecord) -> ObjectRecord:
    if old is None:
        return new
    key = _place_and_key(new.home)
    if _place_and_key(old.home) == key:
        # The configured thumbnail sizes may have changed; thumbnails of earlier sizes still exist.
        made = {thumbnail.key for thumbnail in new.home.thumbnails}
        earlier = tuple(thumbnail for thumbnail in old.home.thumbnails if thumbnail.key not in made)
        home = msgspec.structs.replace(
            new.home, stored_at=old.home.stored_at, thumbnails=(*new.home.thumbnails, *earlier)
        )
        return msgspec.structs.replace(old, home=home, deleting_until=None)
    former = tuple(location for location in old.locations if _place_and_key(location) != key)
    return msgspec.structs.replace(new, former_homes=former)


def _place_and_key(location: ObjectLocation) -> tuple[str, str]:
    return location.place, location.original.key
