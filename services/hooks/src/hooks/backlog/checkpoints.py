"""
Checkpoints of backlogs: where each detached target continues, one entry per partition and target in the bucket `HOOKS`.

An entry is written before the records that it covers are released, and moves over finished events only. So after a
crash the events from it on are sent again in order, and none is missing.
"""

from collections.abc import Mapping, Sequence
from typing import Protocol

import msgspec
import structlog
from msgspec import Struct
from msgspec.structs import replace

from shared.contracts.keys import backlog_keys
from shared.contracts.messages import decode
from shared.errors import ConflictError, InvalidError

log = structlog.get_logger()


class Checkpoint(Struct, frozen=True, kw_only=True):
    """
    The hooks have to catch up from `start` on, a sequence of `EVENTS`. `hooks` has the number of events that each was
    behind. `stream_name` was their stream, for people. `owner` wrote the entry.
    """

    app_key: str
    stream_name: str
    hooks: Mapping[str, int]
    start: int
    owner: str


class StoredCheckpoint(Struct, frozen=True, kw_only=True):
    """A checkpoint as it is stored in the bucket."""

    key: str
    revision: int
    checkpoint: Checkpoint


class CheckpointEntry(Protocol):
    """The part of `shared.messaging.kv.KeyValue` that is needed here."""

    @property
    def key(self) -> str: ...

    @property
    def data(self) -> bytes: ...

    @property
    def revision(self) -> int: ...


class CheckpointStore(Protocol):
    """The part of `shared.messaging.kv.KeyValueStore` that is needed here."""

    async def get(self, key: str) -> CheckpointEntry | None: ...

    async def put(self, key: str, data: bytes, *, expect_revision: int | None = None) -> int: ...

    async def delete(self, key: str, *, expect_revision: int | None = None) -> None: ...

    async def scan(self, keys: str = ">") -> Sequence[CheckpointEntry]: ...


class Checkpoints:
    """The entries of the bucket. A write over another owner's entry is refused, because partitions change owners."""

    def __init__(self, store: CheckpointStore) -> None:
        self._store = store

    async def load(self, partition: int) -> list[StoredCheckpoint]:
        """Read the entries of a partition, lowest start first. An entry that cannot be decoded is left as it is."""
        found: list[StoredCheckpoint] = []
        for stored in await self._store.scan(backlog_keys(partition)):
            try:
                checkpoint = decode(stored.data, Checkpoint)
            except InvalidError as error:
                log.error("checkpoint_decoding_failed", key=stored.key, message=error.message)
            else:
                found.append(StoredCheckpoint(key=stored.key, revision=stored.revision, checkpoint=checkpoint))
        return sorted(found, key=lambda entry: entry.checkpoint.start)

    async def take_over(self, partition: int, owner: str) -> list[StoredCheckpoint]:
        """Load the entries of a partition and write them as `owner`'s: an earlier owner cannot move them any more."""
        while True:
            try:
                return [await self._claim(entry, owner) for entry in await self.load(partition)]
            except ConflictError:
                # The earlier owner has just written.
                log.info("checkpoints_changed", partition=partition)

    async def _claim(self, entry: StoredCheckpoint, owner: str) -> StoredCheckpoint:
        checkpoint = replace(entry.checkpoint, owner=owner)
        revision = await self.put(entry.key, checkpoint, entry.revision)
        return StoredCheckpoint(key=entry.key, revision=revision, checkpoint=checkpoint)

    async def put(self, key: str, checkpoint: Checkpoint, revision: int) -> int:
        """
        Write an entry and return its new revision; `revision` is the last one known, 0 for none.

        Raises:
            ConflictError: Another owner has written since.
        """
        data = msgspec.json.encode(checkpoint)
        try:
            return await self._store.put(key, data, expect_revision=revision)
        except ConflictError:
            return await self._store.put(key, data, expect_revision=await self._own_revision(key, checkpoint.owner))

    async def delete(self, key: str, owner: str, revision: int) -> None:
        """Delete an entry. Raises `ConflictError` as `put` does."""
        try:
            await self._store.delete(key, expect_revision=revision)
        except ConflictError:
            if await self._store.get(key) is not None:
                await self._store.delete(key, expect_revision=await self._own_revision(key, owner))

    async def _own_revision(self, key: str, owner: str) -> int:
        """Return the revision of an own write whose answer was lost. Raises `ConflictError` when there was none."""
        stored = await self._store.get(key)
        if stored is None or not _may_be_owned(stored, owner):
            raise ConflictError(f"{key} belongs to another process")
        return stored.revision


def _may_be_owned(stored: CheckpointEntry, owner: str) -> bool:
    try:
        return decode(stored.data, Checkpoint).owner == owner
    except InvalidError as error:
        # No owner writes what cannot be read, but an answer of NATS can be led to a key (docs/adr/0027).
        log.error("checkpoint_decoding_failed", key=stored.key, message=error.message)
        return True
