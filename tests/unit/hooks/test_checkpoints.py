"""Entries of the bucket: written over by their owner alone."""

from collections.abc import Callable, Sequence

import msgspec
import pytest

from hooks.checkpoints import Checkpoint, Checkpoints
from shared.buckets import Stored
from shared.errors import ConflictError, UnavailableError


class Bucket:
    """A bucket in memory, which can store a write and lose the answer."""

    def __init__(self) -> None:
        self.entries: dict[str, Stored] = {}
        self.revision = 0
        self.silent = False
        self.before_put: Callable[[], None] | None = None

    def write(self, key: str, value: Checkpoint) -> None:
        """As somebody else does."""
        self.revision += 1
        self.entries[key] = Stored(key, msgspec.json.encode(value), self.revision)

    async def get(self, key: str) -> Stored | None:
        return self.entries.get(key)

    async def put(self, key: str, data: bytes, *, expect_revision: int | None = None) -> int:
        if (first := self.before_put) is not None:
            self.before_put = None
            first()
        self._check(key, expect_revision)
        self.revision += 1
        self.entries[key] = Stored(key, data, self.revision)
        if self.silent:
            self.silent = False
            raise UnavailableError("no answer")
        return self.revision

    async def delete(self, key: str, *, expect_revision: int | None = None) -> None:
        self._check(key, expect_revision)
        self.entries.pop(key, None)

    async def scan(self, keys: str = ">") -> Sequence[Stored]:
        return list(self.entries.values())

    def _check(self, key: str, expected: int | None) -> None:
        found = self.entries.get(key)
        if expected != (found.revision if found else 0):
            raise ConflictError("changed since it was read")


def checkpoint(start: int, owner: str = "one") -> Checkpoint:
    return Checkpoint(app_key="shop", stream_name="orders", hooks={"h": 1}, start=start, owner=owner)


async def test_what_was_written_is_found_again_the_lowest_first() -> None:
    bucket = Bucket()
    checkpoints = Checkpoints(bucket)
    await checkpoints.put("b", checkpoint(9), 0)
    revision = await checkpoints.put("a", checkpoint(7), 0)
    await checkpoints.put("a", checkpoint(12), revision)
    bucket.entries["broken"] = Stored("broken", b"?", 99)

    found = await checkpoints.load(0)

    assert [("b", 9), ("a", 12)] == [(entry.key, entry.checkpoint.start) for entry in found]


async def test_an_answer_that_was_lost_does_not_stop_its_owner() -> None:
    bucket = Bucket()
    checkpoints = Checkpoints(bucket)
    bucket.silent = True
    with pytest.raises(UnavailableError):
        await checkpoints.put("a", checkpoint(7), 0)

    revision = await checkpoints.put("a", checkpoint(8), 0)

    assert 8 == msgspec.json.decode(bucket.entries["a"].data)["start"]
    await checkpoints.delete("a", "one", revision - 1)
    assert {} == bucket.entries
    await checkpoints.delete("a", "one", revision)


async def test_another_owners_entry_stays_as_it_is() -> None:
    bucket = Bucket()
    checkpoints = Checkpoints(bucket)
    ours = await checkpoints.put("a", checkpoint(7), 0)
    await checkpoints.put("a", checkpoint(7, owner="two"), ours)

    with pytest.raises(ConflictError):
        await checkpoints.put("a", checkpoint(8), ours)
    with pytest.raises(ConflictError):
        await checkpoints.delete("a", "one", ours)
    assert "two" == msgspec.json.decode(bucket.entries["a"].data)["owner"]


async def test_who_takes_over_goes_on_where_the_one_before_was_and_is_not_disturbed_by_him() -> None:
    bucket = Bucket()
    before, after = Checkpoints(bucket), Checkpoints(bucket)
    ours = await before.put("a", checkpoint(7), 0)
    bucket.before_put = lambda: bucket.write("a", checkpoint(8))

    (found,) = await after.take_over(0, "two")

    assert (8, "two") == (found.checkpoint.start, found.checkpoint.owner)
    with pytest.raises(ConflictError):
        await before.put("a", checkpoint(9), ours)
    assert found.revision + 1 == await after.put("a", checkpoint(10, owner="two"), found.revision)
