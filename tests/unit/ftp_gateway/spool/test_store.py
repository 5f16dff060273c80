import asyncio
import errno
import os
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from ftp_gateway.model.outcome import FileOutcome
from ftp_gateway.model.rules import FileRules
from ftp_gateway.model.virtual_paths import Place
from ftp_gateway.spool import store as spools
from ftp_gateway.spool.directories import ABANDONED_AFTER, REPORTS_KEPT, SWEPT_AFTER
from ftp_gateway.spool.store import Spool
from ftp_gateway.spool.upload import MAX_FILE_BYTES, Upload
from ftp_gateway.spool.upload_info import CompletionProof
from shared.errors import BusyError, ConflictError, DeniedError, TooLargeError
from support.clock import NOON, Clock

PUSH = Place("shop", "", "push.csv")
PART = Place("shop", "", "push.csv.part")
REPORT = Place("shop", "errors", "push.csv.report.csv")
OUTCOME = FileOutcome(file_id="f", file_name="push.csv", kind="push", outcome="done", size_bytes=5, received_at=NOON)


async def put(spool: Spool, place: Place = PUSH, data: bytes = b"hello") -> Upload:
    writer = spool.create(place, "nightly")
    writer.write(0, data)
    await writer.commit()
    return writer.upload


async def content(spool: Spool, upload: Upload) -> bytes:
    return await asyncio.to_thread(spool.path(upload).read_bytes)


def on_disk(tmp_path: Path) -> list[str]:
    """Return the suffixes of the files on disk, without those that are locked for a turn."""
    return sorted(path.suffix for path in (tmp_path / "spool").glob("*/*/*"))


async def test_a_closed_file_survives_a_restart(spool: Spool, reopen: Callable[[], Spool]) -> None:
    await put(spool)

    [found] = reopen().uploads()

    assert (PUSH, "closed", 5, False) == (found.place, found.state, found.size_bytes, found.interrupted)
    assert await content(spool, found) == b"hello"


async def test_an_open_file_is_a_part_after_a_restart_and_can_be_resumed(
    spool: Spool, reopen: Callable[[], Spool]
) -> None:
    writer = spool.create(PUSH, "nightly")
    writer.write(0, b"hel")
    writer.upload.release()  # as the kernel does when a process ends

    again = reopen()
    [found] = again.uploads()
    assert (True, None) == (found.interrupted, found.due_at(0))
    writer = again.reopen(found)
    writer.write(3, b"lo")
    await writer.commit()

    assert await content(again, found) == b"hello"
    assert found.due_at(0) is not None


async def test_a_file_settles_before_it_is_due(spool: Spool, clock: Clock) -> None:
    upload = await put(spool)
    assert upload.due_at(5) == NOON + timedelta(seconds=5)

    clock.now += timedelta(seconds=3)
    spool.touch(upload)

    assert upload.due_at(5) == NOON + timedelta(seconds=8)


async def test_a_rename_onto_a_final_name_makes_it_due_at_once(spool: Spool, clock: Clock) -> None:
    upload = await put(spool, PART)
    assert upload.due_at(5) is None

    await spool.rename(upload, PUSH, replace=False)

    assert upload.due_at(5) == NOON
    assert spool.find(PART) is None
    assert spool.find(PUSH) is upload


async def test_a_part_cannot_be_renamed(spool: Spool) -> None:
    writer = spool.create(PART, "nightly")
    with pytest.raises(ConflictError, match="still open"):
        await spool.rename(writer.upload, PUSH, replace=True)
    writer.abandon()
    with pytest.raises(ConflictError, match="resume it first"):
        await spool.rename(writer.upload, PUSH, replace=True)


async def test_a_file_is_complete_only_when_every_writer_has_closed_it(spool: Spool) -> None:
    first = spool.create(PUSH, "nightly")
    second = spool.reopen(first.upload)

    await first.commit()
    assert first.upload.state == "open"
    second.abandon()

    assert first.upload.interrupted
    assert first.upload.due_at(0) is None


async def test_only_the_session_that_resumes_an_upload_completes_the_file(spool: Spool) -> None:
    gone, back = object(), object()
    first = spool.create(PUSH, "nightly", gone)
    first.write(0, b"hel")

    second = spool.reopen(first.upload, back)
    second.write(3, b"lo")
    with pytest.raises(ConflictError, match="another session"):
        first.write(0, b"HEL")
    with pytest.raises(ConflictError, match="another session"):
        first.read(0, 3)
    await second.commit()
    first.abandon()

    assert ("closed", False, 0) == (second.upload.state, second.upload.interrupted, second.upload.writers)
    assert b"hello" == await content(spool, second.upload)


async def test_a_close_that_another_session_overtakes_completes_nothing(spool: Spool) -> None:
    first = spool.create(PUSH, "nightly", object())
    closing = asyncio.create_task(first.commit())
    await asyncio.sleep(0)

    second = spool.reopen(first.upload, object())
    with pytest.raises(ConflictError, match="another session"):
        await closing

    assert ("open", 1) == (first.upload.state, first.upload.writers)
    await second.commit()
    assert "closed" == first.upload.state


async def test_a_claimed_name_is_free_again_and_its_bytes_are_not_touched(spool: Spool) -> None:
    first = await put(spool)
    spool.claim(first)
    await spool.store_claim(first, FileRules(), CompletionProof())

    second = await put(spool, data=b"other")

    assert await content(spool, first) == b"hello"
    assert spool.find(PUSH) is second
    with pytest.raises(ConflictError):
        spool.reopen(first)
    with pytest.raises(DeniedError):
        await spool.cancel(first)
    with pytest.raises(ConflictError):
        await spool.rename(first, PART, replace=True)


async def test_a_file_of_the_same_name_replaces_one_that_waits(spool: Spool, tmp_path: Path) -> None:
    first = await put(spool)
    second = await put(spool, data=b"other")

    assert [second] == spool.uploads()
    assert first.deleted
    assert [".closed", ".data"] == on_disk(tmp_path)


async def test_every_state_is_found_again_by_the_next_process(
    spool: Spool, reopen: Callable[[], Spool], tmp_path: Path
) -> None:
    upload = await put(spool)
    spool.claim(upload)
    assert ["closed"] == [found.state for found in reopen().uploads()]

    await spool.store_claim(upload, FileRules(settle_s=7), CompletionProof())
    [claimed] = reopen().uploads()
    assert ("claimed", FileRules(settle_s=7)) == (claimed.state, claimed.info.rules)

    await spool.mark_reported(upload, OUTCOME, 12)
    [reported] = reopen().uploads()
    assert ("reported", OUTCOME, 12) == (reported.state, reported.info.outcome, reported.info.told_after)

    await spool.finish(upload, NOON)
    assert [] == reopen().uploads()
    assert [] == on_disk(tmp_path)


async def test_a_done_file_stays_visible_until_its_time(spool: Spool, clock: Clock) -> None:
    upload = await put(spool)
    spool.claim(upload)
    await spool.finish(upload, NOON + timedelta(seconds=5))
    assert [upload] == list(spool.entries("shop", ""))

    clock.now += timedelta(seconds=6)

    assert [] == list(spool.entries("shop", ""))
    assert spool.find(PUSH) is None


async def test_reports_replace_each_other_and_are_no_uploads(
    spool: Spool, reopen: Callable[[], Spool], tmp_path: Path
) -> None:
    await spool.reports.put(REPORT, b"first")
    await spool.reports.put(REPORT, b"second")

    again = reopen()

    found = again.find(REPORT)
    assert found is not None
    assert await content(again, found) == b"second"
    assert [] == again.uploads()
    assert [".data", ".report"] == on_disk(tmp_path)


async def test_old_parts_and_reports_are_purged_and_nothing_else(spool: Spool, clock: Clock) -> None:
    spool.create(PART, "nightly").abandon()
    waiting = await put(spool, PUSH)
    await put(spool, Place("shop", "", "other.csv.done"))
    await spool.reports.put(REPORT, b"report")

    clock.now += ABANDONED_AFTER + timedelta(minutes=1)
    spool.purge()
    assert [waiting] == spool.uploads()
    assert spool.find(REPORT) is not None

    clock.now += REPORTS_KEPT
    spool.purge()
    assert spool.find(REPORT) is None


async def test_what_a_crash_left_half_done_is_swept(spool: Spool, reopen: Callable[[], Spool], tmp_path: Path) -> None:
    await put(spool)
    directory = tmp_path / "spool" / "shop" / "files"
    [info] = directory.glob("*.closed")
    upload_id = info.name.partition(".")[0]
    left = [directory / name for name in ("a.1.open.half", "b.data", "c.1.open", f"{upload_id}.1.open")]
    for path in left:
        path.write_bytes(info.read_bytes())
    again = reopen()
    again.purge()
    assert {path.name for path in left} < {path.name for path in directory.iterdir()}
    long_ago = (NOON - SWEPT_AFTER - timedelta(seconds=1)).timestamp()
    for path in left:
        os.utime(path, (long_ago, long_ago))

    again.purge()

    [found] = again.uploads()
    assert found.state == "closed"
    assert [".closed", ".data"] == on_disk(tmp_path)


def test_what_a_network_file_system_keeps_of_an_open_file_is_left_alone(spool: Spool, tmp_path: Path) -> None:
    spool.create(PUSH, "nightly")
    silly = tmp_path / "spool" / "shop" / "files" / ".nfs00000000000a1b2c00000001"
    silly.write_bytes(b"")
    os.utime(silly, (0, 0))

    spool.purge()

    assert silly.exists()


async def test_an_info_file_that_cannot_be_read_is_left_for_the_operator(
    spool: Spool, reopen: Callable[[], Spool], tmp_path: Path
) -> None:
    await put(spool)
    [info] = (tmp_path / "spool").glob("*/*/*.closed")
    info.write_bytes(b"from a newer release")
    for path in info.parent.iterdir():
        os.utime(path, (0, 0))
    reopen().purge()

    assert [] == reopen().uploads()
    assert [".closed", ".data"] == on_disk(tmp_path)


def test_a_write_is_bounded_also_at_a_huge_offset(spool: Spool) -> None:
    writer = spool.create(PUSH, "nightly")

    for offset in (MAX_FILE_BYTES, 1 << 62):
        with pytest.raises(TooLargeError):
            writer.write(offset, b"x")
    with pytest.raises(TooLargeError):
        writer.truncate(MAX_FILE_BYTES + 1)
    writer.abandon()


def test_an_app_has_a_limited_number_of_files_and_another_is_served(
    spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spools, "MAX_WAITING_FILES", 2)
    for number in range(2):
        spool.create(Place("shop", "", f"{number}.csv"), "nightly").abandon()

    with pytest.raises(BusyError):
        spool.create(PUSH, "nightly")
    spool.create(Place("rival", "", "a.csv"), "nightly").abandon()


async def test_a_file_whose_disk_fails_at_the_end_is_a_part(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: int) -> None:
        raise OSError(errno.EIO, "broken")

    writer = spool.create(PUSH, "nightly")
    monkeypatch.setattr(os, "fsync", fail)

    with pytest.raises(OSError, match="broken"):
        await writer.commit()

    assert ("open", True, 0) == (writer.upload.state, writer.upload.interrupted, writer.upload.writers)


async def test_a_file_is_a_part_after_a_write_that_failed_although_its_client_closes_it(
    spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> int:
        raise OSError(errno.ENOSPC, "full")

    writer = spool.create(PUSH, "nightly")
    writer.write(0, b"hello")
    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", fail)
        with pytest.raises(OSError, match="full"):
            writer.write(5, b"more")

    with pytest.raises(ConflictError, match="a write has failed"):
        await writer.commit()

    assert ("open", True) == (writer.upload.state, writer.upload.interrupted)
    resumed = spool.reopen(writer.upload)
    resumed.write(5, b" all")
    await resumed.commit()
    assert await content(spool, writer.upload) == b"hello all"
