"""A bucket in memory, with the check of revisions. No test lives here."""

from collections.abc import Callable, Sequence

import msgspec

from hooks.backlog.checkpoints import Checkpoint
from shared.errors import ConflictError, UnavailableError
from shared.messaging.kv import KeyValue


class MemoryBucket:
    """Satisfies `hooks.backlog.checkpoints.CheckpointStore`. It can store a write and lose the answer."""

    def __init__(self) -> None:
        self.entries: dict[str, KeyValue] = {}
        self.revision = 0
        self.silent = False
        self.before_put: Callable[[], None] | None = None

    def write(self, key: str, value: Checkpoint) -> None:
        """Write as another process."""
        self.revision += 1
        self.entries[key] = KeyValue(key, msgspec.json.encode(value), self.revision)

    async def get(self, key: str) -> KeyValue | None:
        return self.entries.get(key)

    async def put(self, key: str, data: bytes, *, expect_revision: int | None = None) -> int:
        if (first := self.before_put) is not None:
            self.before_put = None
            first()
        self._check(key, expect_revision)
        self.revision += 1
        self.entries[key] = KeyValue(key, data, self.revision)
        if self.silent:
            self.silent = False
            raise UnavailableError("no answer")
        return self.revision

    async def delete(self, key: str, *, expect_revision: int | None = None) -> None:
        self._check(key, expect_revision)
        self.entries.pop(key, None)

    async def scan(self, keys: str = ">") -> Sequence[KeyValue]:
        return list(self.entries.values())

    def _check(self, key: str, expected: int | None) -> None:
        found = self.entries.get(key)
        if expected != (found.revision if found else 0):
            raise ConflictError("changed since it was read")
