"""
Where each blocked target goes on, durable in the bucket `HOOKS`: one entry per partition and target that is detached.

An entry is written before what it covers is let go, and moves only over what is finished. So after a crash the events
from it on are sent again, in order, and none is missing.
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
    From `start`, a sequence of `EVENTS`, on these hooks have to catch up. With each hook stands how many events it was
    behind; `stream_name` was its stream, for a person who looks. `owner` wrote the entry.
    """

    app_key: str
    stream_name: str
    hooks: Mapping[str, int]
    start: int
    owner: str


class StoredCheckpoint(Struct, frozen=True, kw_only=True):
    """An entry as it lies in the bucket."""

    key: str
    revision: int
    checkpoint: Checkpoint


class CheckpointEntry(Protocol):
    """`shared.messaging.kv.KeyValue`, as far as it is needed here."""

    @property
    def key(self) -> str: ...

    @property
    def data(self) -> bytes: ...

    @property
    def revision(self) -> int: ...


class CheckpointStore(Protocol):
    """`shared.messaging.kv.KeyValueStore`, as far as it is needed here."""

    async def get(self, key: str) -> CheckpointEntry | None: ...

    async def put(self, key: str, data: bytes, *, expect_revision: int | None = None) -> int: ...

    async def delete(self, key: str, *, expect_revision: int | None = None) -> None: ...

    async def scan(self, keys: str = ">") -> Sequence[CheckpointEntry]: ...


class Checkpoints:
    """The entries of the bucket. A write over somebody else's is refused, because partitions change owners."""

    def __init__(self, store: CheckpointStore) -> None:
        self._store = store

    async def load(self, partition: int) -> list[StoredCheckpoint]:
        """The entries of a partition, lowest start first. One that cannot be read is left where it is."""
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
        """What `load` gives, as `owner`'s own from now on: whoever had it before moves it no more."""
        while True:
            try:
                return [await self._claim(entry, owner) for entry in await self.load(partition)]
            except ConflictError:
                # The one before has just written.
                log.info("checkpoints_changed", partition=partition)

    async def _claim(self, entry: StoredCheckpoint, owner: str) -> StoredCheckpoint:
        checkpoint = replace(entry.checkpoint, owner=owner)
        revision = await self.put(entry.key, checkpoint, entry.revision)
        return StoredCheckpoint(key=entry.key, revision=revision, checkpoint=checkpoint)

    async def put(self, key: str, checkpoint: Checkpoint, revision: int) -> int:
        """
        Write and give the new revision; `revision` is the last one known, 0 for none.

        Raises:
            ConflictError: Another owner has written since.
        """
        data = msgspec.json.encode(checkpoint)
        try:
            return await self._store.put(key, data, expect_revision=revision)
        except ConflictError:
            return await self._store.put(key, data, expect_revision=await self._own_revision(key, checkpoint.owner))

    async def delete(self, key: str, owner: str, revision: int) -> None:
        """Take an entry away. Raises `ConflictError` as `put` does."""
        try:
            await self._store.delete(key, expect_revision=revision)
        except ConflictError:
            if await self._store.get(key) is not None:
                await self._store.delete(key, expect_revision=await self._own_revision(key, owner))

    async def _own_revision(self, key: str, owner: str) -> int:
        """The revision of a write of our own whose answer was lost."""
        stored = await self._store.get(key)
        if stored is None or decode(stored.data, Checkpoint).owner != owner:
            raise ConflictError(f"{key} belongs to another process")
        return stored.revision
