"""A record without a mark has its objects: a deletion and an upload of the same bytes come one after the other."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from shared.contracts import streams
from shared.contracts.messages import StoredObject
from shared.errors import ConflictError, NotFoundError, UnavailableError
from shared.messaging.bus import Bus
from shared.messaging.kv import KeyValueStore
from shared.messaging.provisioning.making import ensure
from shared.runtime.settings import Settings
from storage.uploads import records as records_module
from storage.uploads.records import DeletedMeanwhileError, ObjectLocation, ObjectRecord, Records

SHA256 = "ab" * 32
ID = f"file-{SHA256[:32]}"


def now() -> datetime:
    return datetime.now(UTC)


def location(place: str = "local") -> ObjectLocation:
    original = StoredObject(key="k", url="https://cdn/k", content_type="text/plain", size_bytes=1, sha256=SHA256)
    return ObjectLocation(provider="local", place=place, stored_at=now(), original=original)


@pytest.fixture
async def records(bus: Bus, settings: Settings) -> Records:
    await ensure(bus, streams.MEDIA, settings)
    return Records(KeyValueStore(bus, streams.MEDIA), now=now)


async def store(records: Records) -> ObjectRecord:
    """Record an object as an upload does: again after a deletion."""
    deletion = 0
    while True:
        try:
            return await records.add("shop", "file", SHA256, location(), deletion=deletion)
        except DeletedMeanwhileError as deleted:
            deletion = deleted.revision


async def test_an_upload_waits_for_a_deletion_and_has_to_store_again(records: Records) -> None:
    record = await store(records)
    async with records.deletion(record):
        adding = asyncio.create_task(records.add("shop", "file", SHA256, location()))
        await asyncio.sleep(0.1)
        assert not adding.done()

    with pytest.raises(DeletedMeanwhileError) as deleted:
        await adding
    with pytest.raises(NotFoundError):
        await records.get("shop", ID)
    again = await records.add("shop", "file", SHA256, location(), deletion=deleted.value.revision)
    assert again == await records.get("shop", ID)
    assert again.deleting_until is None


async def test_an_object_that_was_deleted_and_stored_again_by_another_is_there(records: Records) -> None:
    record = await store(records)
    async with records.deletion(record):
        pass
    again = await store(records)

    assert again == await records.add("shop", "file", SHA256, location())


async def test_a_deletion_that_fails_leaves_the_record_and_makes_an_upload_store_again(records: Records) -> None:
    record = await store(records)
    with pytest.raises(UnavailableError, match="the bucket"):
        async with records.deletion(record):
            raise UnavailableError("the bucket does not answer")

    left = await records.get("shop", ID)
    assert left.deleting_until is not None
    assert left.deleting_until <= now()
    with pytest.raises(DeletedMeanwhileError) as deleted:
        await records.add("shop", "file", SHA256, location())
    assert (
        None is (await records.add("shop", "file", SHA256, location(), deletion=deleted.value.revision)).deleting_until
    )


async def test_a_failed_deletion_is_completed_by_the_next_one(records: Records) -> None:
    record = await store(records)
    with pytest.raises(UnavailableError):
        async with records.deletion(record):
            raise UnavailableError("the bucket does not answer")
    async with records.deletion(await records.get("shop", ID)):
        pass

    with pytest.raises(NotFoundError):
        await records.get("shop", ID)


async def test_a_second_deletion_finds_nothing_left(records: Records) -> None:
    record = await store(records)

    async def delete_again() -> None:
        async with records.deletion(record):
            raise AssertionError("two at once")

    async with records.deletion(record):
        second = asyncio.create_task(delete_again())
        await asyncio.sleep(0.1)
    with pytest.raises(NotFoundError):
        await second


async def test_an_object_in_another_place_since_it_was_read_is_not_deleted(records: Records) -> None:
    record = await store(records)
    await records.add("shop", "file", SHA256, location("s3://bucket"))

    with pytest.raises(ConflictError, match="stored again"):
        async with records.deletion(record):
            raise AssertionError("nothing may be deleted")


async def test_a_mark_of_a_killed_process_holds_for_its_time(records: Records, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records_module, "WAIT_S", 0.2)
    record = await store(records)
    killed = Records(records._store, now=lambda: now() + timedelta(hours=1))
    deletion = killed.deletion(record)
    await deletion.__aenter__()

    with pytest.raises(ConflictError, match="is being deleted"):
        await records.add("shop", "file", SHA256, location())
    later = Records(records._store, now=lambda: now() + timedelta(hours=2))
    with pytest.raises(DeletedMeanwhileError):
        await later.add("shop", "file", SHA256, location())


async def test_an_entry_that_is_no_record_is_none_and_an_upload_writes_over_it(records: Records, bus: Bus) -> None:
    stored = await store(records)
    key = f"shop.file.{stored.id.removeprefix('file-')}"
    await KeyValueStore(bus, streams.MEDIA).put(key, b"garbage")

    with pytest.raises(NotFoundError):
        await records.get("shop", stored.id)
    assert () == (await records.page("shop", kind=None, after=0, limit=10)).objects

    assert stored.id == (await store(records)).id
    assert stored.id == (await records.get("shop", stored.id)).id
