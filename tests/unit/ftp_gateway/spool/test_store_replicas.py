"""Two replicas on one directory: each sees the steps of the other, and only one takes a step."""

import asyncio
import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ftp_gateway.model.rules import FileRules
from ftp_gateway.model.virtual_paths import Place
from ftp_gateway.spool import directory_index
from ftp_gateway.spool.change_marks import ChangeMarks
from ftp_gateway.spool.directories import ABANDONED_AFTER
from ftp_gateway.spool.store import Spool
from ftp_gateway.spool.upload import Upload
from ftp_gateway.spool.upload_info import CompletionProof
from shared.errors import BusyError, ConflictError, MillraceError
from support.clock import NOON, Clock
from support.waiting import until

PUSH = Place("shop", "", "push.csv")
OTHER = Place("shop", "", "other.csv")
REPORT = Place("shop", "errors", "push.csv.report.csv")


@pytest.fixture
def replica(reopen: Callable[[], Spool]) -> Callable[[], Spool]:
    """Another replica."""
    return reopen


@pytest.fixture
def one(replica: Callable[[], Spool]) -> Spool:
    return replica()


@pytest.fixture
def two(replica: Callable[[], Spool]) -> Spool:
    return replica()


async def put(spool: Spool, place: Place = PUSH, data: bytes = b"hello") -> Upload:
    writer = spool.create(place, "nightly")
    writer.write(0, data)
    await writer.commit()
    return writer.upload


def seen(spool: Spool, place: Place = PUSH) -> Upload:
    found = spool.find(place)
    assert found is not None
    return found


async def content(spool: Spool, upload: Upload) -> bytes:
    return await asyncio.to_thread(spool.path(upload).read_bytes)


def marks(tmp_path: Path) -> list[Path]:
    return list(tmp_path.glob("spool/.replicas/*"))


def on_disk(tmp_path: Path) -> list[Path]:
    """The shop's files on disk, bytes first."""
    return sorted(tmp_path.glob("spool/shop/files/*"), key=lambda path: path.suffix != ".data")


async def test_a_file_is_listed_and_read_by_another_replica(one: Spool, two: Spool) -> None:
    await put(one)

    [listed] = two.entries("shop", "")

    assert (PUSH, "closed", 5) == (listed.place, listed.state, listed.size_bytes)
    assert await content(two, listed) == b"hello"


async def test_an_upload_that_goes_on_elsewhere_grows_in_the_listing_and_is_no_part(one: Spool, two: Spool) -> None:
    writer = one.create(PUSH, "nightly")
    writer.write(0, b"hel")
    assert (3, False) == (seen(two).size_bytes, seen(two).interrupted)

    writer.write(3, b"lo")

    assert (5, False) == (seen(two).size_bytes, seen(two).interrupted)
    with pytest.raises(BusyError):
        two.reopen(seen(two))
    writer.abandon()


async def test_an_upload_that_broke_off_is_resumed_through_another_replica(one: Spool, two: Spool) -> None:
    writer = one.create(PUSH, "nightly")
    writer.write(0, b"hel")
    writer.abandon()
    assert seen(two).interrupted

    resumed = two.reopen(seen(two))
    resumed.write(3, b"lo")
    await resumed.commit()

    assert ("closed", 5) == (seen(one).state, seen(one).size_bytes)
    assert await content(one, seen(one)) == b"hello"


async def test_a_closed_file_is_reopened_removed_and_renamed_through_another_replica(one: Spool, two: Spool) -> None:
    upload = await put(one)
    two.reopen(seen(two)).abandon()
    assert ("open", True) == (seen(one).state, seen(one).interrupted)
    assert seen(one) is upload
    await two.cancel(seen(two))
    assert one.find(PUSH) is None

    await put(one)
    await two.rename(seen(two), OTHER, replace=False)

    assert one.find(PUSH) is None
    assert seen(one, OTHER).info.committed


async def test_a_name_is_taken_by_the_newest_upload_whichever_replica_has_it(one: Spool, two: Spool) -> None:
    old = await put(one)
    await put(two, data=b"newer")

    assert await content(one, seen(one)) == b"newer"
    assert old.deleted
    assert len(one.uploads()) == len(two.uploads()) == 1


async def test_an_open_upload_that_was_replaced_elsewhere_does_not_come_back(one: Spool, two: Spool) -> None:
    writer = one.create(PUSH, "nightly")
    writer.write(0, b"half")
    newer = await put(two, data=b"newer")

    await writer.commit()

    two.scan()
    assert [newer] == two.uploads()
    assert await content(one, seen(one)) == b"newer"


async def test_a_file_is_claimed_by_one_replica(one: Spool, two: Spool) -> None:
    await put(one)
    theirs = seen(two)
    one.claim(seen(one))

    with pytest.raises(BusyError):
        two.claim(theirs)
    with pytest.raises(BusyError):
        await two.cancel(theirs)
    with pytest.raises(BusyError):
        await two.rename(theirs, OTHER, replace=True)
    await one.store_claim(seen(one), FileRules(), CompletionProof())

    assert seen(two).state == "claimed"


async def test_what_is_not_as_it_was_seen_is_not_touched(one: Spool, two: Spool) -> None:
    await put(one)
    stale = seen(two)
    await one.rename(seen(one), OTHER, replace=False)

    with pytest.raises(ConflictError):
        two.claim(stale)

    assert one.find(OTHER) is not None


async def test_a_claimed_name_is_free_for_another_replica(one: Spool, two: Spool) -> None:
    first = await put(one)
    one.claim(first)
    await one.store_claim(first, FileRules(), CompletionProof())

    await put(two, data=b"other")

    assert await content(one, first) == b"hello"
    assert [b"hello", b"other"] == [await content(two, upload) for upload in two.uploads()]


async def test_a_replica_that_dies_lets_go_of_its_file_and_its_turn(one: Spool, two: Spool) -> None:
    upload = await put(one)
    turn = one.try_lock_app("shop")
    assert turn is not None
    one.claim(upload)
    await one.store_claim(upload, FileRules(settle_s=7), CompletionProof())
    assert two.try_lock_app("shop") is None

    # As the kernel does when a process ends.
    os.close(turn)
    upload.release()

    turn = two.try_lock_app("shop")
    assert turn is not None
    two.claim(seen(two))
    assert ("claimed", FileRules(settle_s=7)) == (seen(two).state, seen(two).info.rules)
    os.close(turn)


async def test_apps_have_turns_of_their_own(one: Spool, two: Spool) -> None:
    await put(one)
    await put(one, Place("rival", "", "a.csv"))
    turn, another = one.try_lock_app("shop"), two.try_lock_app("rival")

    assert turn is not None
    assert another is not None
    os.close(turn)
    os.close(another)


async def test_a_done_file_stays_visible_everywhere_until_its_time(one: Spool, two: Spool, clock: Clock) -> None:
    upload = await put(one)
    one.claim(upload)
    await one.finish(upload, NOON + timedelta(seconds=5))
    assert ("done", 5) == (seen(two).state, seen(two).size_bytes)
    assert [] == two.uploads()

    clock.now += timedelta(seconds=6)

    assert two.find(PUSH) is None
    two.purge()
    assert one.find(PUSH) is None


async def test_a_crash_before_the_bytes_of_a_done_file_are_removed_leaves_nothing(
    one: Spool, two: Spool, clock: Clock, tmp_path: Path
) -> None:
    upload = await put(one)
    data, _ = on_disk(tmp_path)
    one.claim(upload)
    await one.finish(upload, NOON + timedelta(seconds=5))
    data.write_bytes(b"hello")

    clock.now += timedelta(seconds=6)
    two.purge()

    assert [] == on_disk(tmp_path)


async def test_reports_are_seen_and_replaced_by_every_replica(one: Spool, two: Spool) -> None:
    await one.reports.put(REPORT, b"first")
    assert await content(two, seen(two, REPORT)) == b"first"

    await two.reports.put(REPORT, b"second")

    assert await content(one, seen(one, REPORT)) == b"second"
    assert len(list(one.entries("shop", "errors"))) == 1


async def test_parts_of_live_uploads_elsewhere_are_not_purged(one: Spool, two: Spool, clock: Clock) -> None:
    writer = one.create(PUSH, "nightly")
    clock.now += ABANDONED_AFTER + timedelta(minutes=1)

    two.purge()

    assert not seen(two).deleted
    writer.abandon()


async def test_a_touch_through_another_replica_lets_a_file_settle_anew(one: Spool, two: Spool, clock: Clock) -> None:
    upload = await put(one)
    seen(two)
    clock.now += timedelta(seconds=3)
    one.touch(upload)

    with pytest.raises(ConflictError, match="settles anew"):
        two.claim(seen(two))

    assert seen(two).due_at(5) == clock.now + timedelta(seconds=5)


async def test_own_steps_cost_no_listing(one: Spool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    await put(one)
    seen(one)
    listed: list[Path] = []
    scandir = os.scandir

    def counting(path: Path) -> object:
        listed.append(path)
        return scandir(path)

    monkeypatch.setattr(directory_index, "monotonic", lambda: 0.0)
    seen(one)
    monkeypatch.setattr(os, "scandir", counting)
    for number in range(3):
        await put(one, Place("shop", "", f"{number}.csv"))
        assert len(list(one.entries("shop", ""))) == 2 + number

    assert tmp_path / "spool/shop/files" not in listed


async def test_a_step_whose_replica_died_before_it_marked_the_change_is_seen_all_the_same(
    one: Spool, two: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen_before = two.find(PUSH)
    with monkeypatch.context() as patched:
        patched.setattr(ChangeMarks, "mark_changed", lambda _: None)
        await put(one)

    await until(lambda: two.find(PUSH) is not None)
    assert seen_before is None


async def test_a_replica_whose_mark_was_swept_is_noticed_again(
    one: Spool, two: Spool, clock: Clock, tmp_path: Path
) -> None:
    await put(one)
    assert 1 == len(marks(tmp_path))
    clock.now = datetime.now(UTC) + ABANDONED_AFTER + timedelta(minutes=1)
    two.purge()
    assert [] == marks(tmp_path)

    await put(one, OTHER)

    assert seen(two, OTHER).state == "closed"


STEPS = st.tuples(
    st.sampled_from([0, 1]),
    st.sampled_from(["put", "part", "resume", "rename", "remove", "claim", "finish"]),
    st.sampled_from([PUSH, OTHER]),
)


@settings(max_examples=60, deadline=None)
@given(steps=st.lists(STEPS, max_size=12))
def test_replicas_agree_after_any_steps(steps: list[tuple[int, str, Place]]) -> None:
    with TemporaryDirectory() as directory:
        asyncio.run(_agree(Path(directory), steps))


async def _agree(directory: Path, steps: list[tuple[int, str, Place]]) -> None:
    clock = Clock()
    replicas = [Spool(directory, clock) for _ in range(2)]
    for number, step, place in steps:
        clock.now += timedelta(seconds=1)
        spool = replicas[number]
        found = spool.find(place)
        try:
            await _take(spool, step, place, found)
        except MillraceError:
            continue
        finally:
            views = [
                {
                    (upload.id, upload.info_name.revision, upload.state, upload.size_bytes, upload.place)
                    for upload in (*replica.entries("shop", ""), *replica.uploads())
                }
                for replica in replicas
            ]
            assert views[0] == views[1]
            assert len({(upload.place) for upload in replicas[0].uploads() if upload.changeable}) == len(
                [upload for upload in replicas[0].uploads() if upload.changeable]
            )


async def _take(spool: Spool, step: str, place: Place, found: Upload | None) -> None:
    if step == "put":
        await put(spool, place)
    elif step == "part":
        spool.create(place, "nightly").abandon()
    elif found is None:
        return
    elif step == "resume":
        writer = spool.reopen(found)
        writer.write(0, b"resumed")
        await writer.commit()
    elif step == "rename":
        await spool.rename(found, PUSH if place == OTHER else OTHER, replace=True)
    elif step == "remove":
        await spool.cancel(found)
    elif step == "claim" and found.state == "closed":
        spool.claim(found)
        await spool.store_claim(found, FileRules(), CompletionProof())
        spool.release(found)
    elif step == "finish" and found.state == "claimed":
        spool.claim(found)
        await spool.finish(found, NOON)
