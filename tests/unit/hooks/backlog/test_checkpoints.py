"""Entries of the bucket: written over by their owner alone."""

import msgspec
import pytest

from hooks.backlog.checkpoints import Checkpoint, Checkpoints
from shared.errors import ConflictError, UnavailableError
from shared.messaging.kv import KeyValue
from support.fakes.bucket import MemoryBucket


def checkpoint(start: int, owner: str = "one") -> Checkpoint:
    return Checkpoint(app_key="shop", stream_name="orders", hooks={"h": 1}, start=start, owner=owner)


async def test_what_was_written_is_found_again_the_lowest_first() -> None:
    bucket = MemoryBucket()
    checkpoints = Checkpoints(bucket)
    await checkpoints.put("b", checkpoint(9), 0)
    revision = await checkpoints.put("a", checkpoint(7), 0)
    await checkpoints.put("a", checkpoint(12), revision)
    bucket.entries["broken"] = KeyValue("broken", b"?", 99)

    found = await checkpoints.load(0)

    assert [("b", 9), ("a", 12)] == [(entry.key, entry.checkpoint.start) for entry in found]


async def test_an_answer_that_was_lost_does_not_stop_its_owner() -> None:
    bucket = MemoryBucket()
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
    bucket = MemoryBucket()
    checkpoints = Checkpoints(bucket)
    ours = await checkpoints.put("a", checkpoint(7), 0)
    await checkpoints.put("a", checkpoint(7, owner="two"), ours)

    with pytest.raises(ConflictError):
        await checkpoints.put("a", checkpoint(8), ours)
    with pytest.raises(ConflictError):
        await checkpoints.delete("a", "one", ours)
    assert "two" == msgspec.json.decode(bucket.entries["a"].data)["owner"]


async def test_a_new_owner_resumes_at_the_last_checkpoint_and_the_one_before_cannot_disturb_it() -> None:
    bucket = MemoryBucket()
    before, after = Checkpoints(bucket), Checkpoints(bucket)
    ours = await before.put("a", checkpoint(7), 0)
    bucket.before_put = lambda: bucket.write("a", checkpoint(8))

    (found,) = await after.take_over(0, "two")

    assert (8, "two") == (found.checkpoint.start, found.checkpoint.owner)
    with pytest.raises(ConflictError):
        await before.put("a", checkpoint(9), ours)
    assert found.revision + 1 == await after.put("a", checkpoint(10, owner="two"), found.revision)


async def test_an_entry_that_cannot_be_read_is_written_over_and_deleted_by_its_owner() -> None:
    bucket = MemoryBucket()
    checkpoints = Checkpoints(bucket)
    ours = await checkpoints.put("a", checkpoint(7), 0)
    await bucket.put("a", b"garbage", expect_revision=ours)

    again = await checkpoints.put("a", checkpoint(8), ours)
    assert 8 == msgspec.json.decode(bucket.entries["a"].data)["start"]

    await bucket.put("a", b"garbage", expect_revision=again)
    await checkpoints.delete("a", "one", again)
    assert {} == bucket.entries
