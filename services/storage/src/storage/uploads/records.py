"""
Records of objects in the bucket `MEDIA`, by `<app>.<kind>.<first half of its SHA-256>`.

An object that is stored again with another provider, or in another bucket, has a new location. Its former locations
stay in the record: their URLs are in use and keep working, and deleting the object deletes them too.
"""

import re
from datetime import datetime
from typing import Final, get_args

import msgspec
from msgspec import Struct

from shared.contracts import keys, subjects
from shared.contracts.messages import MediaKind, StoredObject, StoreMediaReply, decode, encode
from shared.errors import ConflictError, InvalidError, NotFoundError
from shared.messaging.kv import KeyValueStore

KINDS: Final[tuple[MediaKind, ...]] = get_args(MediaKind)
ID: Final = re.compile(rf"({'|'.join(KINDS)})-([0-9a-f]{{32}})")


class ObjectLocation(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A location of an object and its thumbnails. `place` is the bucket, container or directory of the provider."""

    provider: str
    place: str
    stored_at: datetime
    original: StoredObject
    thumbnails: tuple[StoredObject, ...] = ()


class ObjectRecord(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The record of an object. `home` is its newest location, `former_homes` are those whose URLs stay valid."""

    id: str
    app_key: str
    kind: MediaKind
    home: ObjectLocation
    former_homes: tuple[ObjectLocation, ...] = ()

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


def object_id(kind: MediaKind, sha256: str) -> str:
    """The id of an object: its kind and 128 bits of its hash."""
    return f"{kind}-{sha256[:32]}"


class Records:
    """The records of every app."""

    def __init__(self, store: KeyValueStore) -> None:
        self._store = store

    async def get(self, app_key: str, id: str) -> ObjectRecord:
        """The record of an object. Raises `NotFoundError`."""
        return (await self._read(app_key, id))[0]

    async def add(self, app_key: str, kind: MediaKind, location: ObjectLocation) -> ObjectRecord:
        """
        Record the location of a stored object. An unchanged record is not written again.

        Raises:
            ConflictError: Concurrent uploads changed the record in each of five attempts.
        """
        id = object_id(kind, location.original.sha256)
        for _ in range(5):
            try:
                old, revision = await self._read(app_key, id)
            except NotFoundError:
                old, revision = None, 0
            record = _merged(old, ObjectRecord(id=id, app_key=app_key, kind=kind, home=location))
            if record == old:
                return record
            try:
                await self._store.put(_key(app_key, id), encode(record), expect_revision=revision)
            except ConflictError:
                continue
            return record
        raise ConflictError("the same object is stored by many at once", retry_after_s=1)

    async def remove(self, record: ObjectRecord) -> None:
        """Delete a record. Raises `ConflictError` when the object was stored again since the record was read."""
        now, revision = await self._read(record.app_key, record.id)
        if now != record:
            raise ConflictError("the object was stored again meanwhile", field="id")
        await self._store.delete(_key(record.app_key, record.id), expect_revision=revision)

    async def page(self, app_key: str, *, kind: MediaKind | None, after: int, limit: int) -> ObjectPage:
        """Up to `limit` records that were written after revision `after`, in the order of their writing."""
        stored = await self._store.page(keys.media_keys(app_key, kind), after=after, most=limit + 1)
        records = tuple(decode(entry.data, ObjectRecord) for entry in stored[:limit])
        return ObjectPage(objects=records, next=str(stored[limit - 1].revision) if len(stored) > limit else None)

    async def _read(self, app_key: str, id: str) -> tuple[ObjectRecord, int]:
        stored = await self._store.get(_key(app_key, id))
        if stored is None:
            raise NotFoundError(f"there is no object {id}", field="id")
        return decode(stored.data, ObjectRecord), stored.revision


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
        return msgspec.structs.replace(old, home=home)
    former = tuple(location for location in old.locations if _place_and_key(location) != key)
    return msgspec.structs.replace(new, former_homes=former)


def _place_and_key(location: ObjectLocation) -> tuple[str, str]:
    return location.place, location.original.key
