"""
Where every object lies, in the bucket `MEDIA`: `<app>.<kind>.<first half of its SHA-256>`.

An object that is stored again with another provider, or in another bucket, has a new home, and its former ones stay in
the record: their URLs were given out and keep working, and who deletes the object deletes them too.
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
    """Where an object and its thumbnails lie: `place` is the bucket, container or directory of the provider."""

    provider: str
    place: str
    stored_at: datetime
    original: StoredObject
    thumbnails: tuple[StoredObject, ...] = ()


class ObjectRecord(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is known of an object. `home` is the newest, `former_homes` are those whose URLs were given out before."""

    id: str
    app_key: str
    kind: MediaKind
    home: ObjectLocation
    former_homes: tuple[ObjectLocation, ...] = ()

    @property
    def locations(self) -> tuple[ObjectLocation, ...]:
        """All of them, the newest first."""
        return (self.home, *self.former_homes)

    def reply(self, *, failed_over: bool = False) -> StoreMediaReply:
        """What an uploader, and who asks for the object, is told."""
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
    """Some objects of an app, the one that changed longest ago first. `next` asks for those after them, if any."""

    objects: tuple[ObjectRecord, ...]
    next: str | None = None


def object_id(kind: MediaKind, sha256: str) -> str:
    """How an object is called: its kind and 128 bits of its hash."""
    return f"{kind}-{sha256[:32]}"


class Records:
    """The records of every app."""

    def __init__(self, store: KeyValueStore) -> None:
        self._store = store

    async def get(self, app_key: str, id: str) -> ObjectRecord:
        """Raises `NotFoundError`."""
        return (await self._read(app_key, id))[0]

    async def add(self, app_key: str, kind: MediaKind, home: ObjectLocation) -> ObjectRecord:
        """
        Remember where an object lies now. What was known already is written again only where it has changed.

        Raises:
            ConflictError: Others change the same record all the time.
        """
        id = object_id(kind, home.original.sha256)
        for _ in range(5):
            try:
                old, revision = await self._read(app_key, id)
            except NotFoundError:
                old, revision = None, 0
            record = _added(old, ObjectRecord(id=id, app_key=app_key, kind=kind, home=home))
            if record == old:
                return record
            try:
                await self._store.put(_key(app_key, id), encode(record), expect_revision=revision)
            except ConflictError:
                continue
            return record
        raise ConflictError("the same object is stored by many at once", retry_after_s=1)

    async def remove(self, record: ObjectRecord) -> None:
        """Forget an object. Raises `ConflictError` when it was stored again since the record was read."""
        now, revision = await self._read(record.app_key, record.id)
        if now != record:
            raise ConflictError("the object was stored again meanwhile", field="id")
        await self._store.delete(_key(record.app_key, record.id), expect_revision=revision)

    async def page(self, app_key: str, *, kind: MediaKind | None, after: int, limit: int) -> ObjectPage:
        """Up to `most` records that were written after revision `after`, in the order of their writing."""
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


def _added(old: ObjectRecord | None, new: ObjectRecord) -> ObjectRecord:
    if old is None:
        return new
    lies = _where(new.home)
    if _where(old.home) == lies:
        # Sizes of thumbnails may have been configured anew; those of before are still there.
        made = {thumbnail.key for thumbnail in new.home.thumbnails}
        before = tuple(thumbnail for thumbnail in old.home.thumbnails if thumbnail.key not in made)
        home = msgspec.structs.replace(
            new.home, stored_at=old.home.stored_at, thumbnails=(*new.home.thumbnails, *before)
        )
        return msgspec.structs.replace(old, home=home)
    former = tuple(home for home in old.locations if _where(home) != lies)
    return msgspec.structs.replace(new, former_homes=former)


def _where(home: ObjectLocation) -> tuple[str, str]:
    return home.place, home.original.key
