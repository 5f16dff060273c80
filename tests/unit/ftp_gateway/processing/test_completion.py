from datetime import datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import get_args

import pytest

from ftp_gateway.model.rules import Completion, FileRules
from ftp_gateway.model.virtual_paths import Place
from ftp_gateway.processing.completion import (
    Trailer,
    UploadReadiness,
    parse_checksum,
    parse_trailer,
    readiness_of,
    refusal,
)
from ftp_gateway.spool.directories import ABANDONED_AFTER
from ftp_gateway.spool.store import Spool
from ftp_gateway.spool.upload import Upload
from ftp_gateway.spool.upload_info import PULLED_BY, CompletionProof
from support.clock import NOON, Clock

HASH = "ab" * 32
OTHER = "cd" * 32
PUSH = Place("shop", "", "push.csv")
LATE = NOON + ABANDONED_AFTER


async def put(spool: Spool, name: str, user: str = "nightly") -> Upload:
    writer = spool.create(Place("shop", "", name), user)
    writer.write(0, b"hello")
    await writer.commit()
    return writer.upload


def seen(spool: Spool, upload: Upload, completion: Completion) -> tuple[datetime, str, bool]:
    ready = readiness_of(upload, FileRules(settle_s=5, completion=completion), spool.find)
    assert isinstance(ready, UploadReadiness)
    return ready.at, ready.companion.info.name if ready.companion else "", ready.missing


@pytest.mark.parametrize("completion", ["settle", "row_count"])
async def test_a_file_that_settled_is_complete(spool: Spool, completion: Completion) -> None:
    assert (NOON + timedelta(seconds=5), "", False) == seen(spool, await put(spool, "push.csv"), completion)


@pytest.mark.parametrize("completion", ["rename", "done_marker", "sha256"])
async def test_a_file_whose_sign_never_comes_is_due_for_its_report_after_a_day(
    spool: Spool, completion: Completion
) -> None:
    assert (LATE, "", True) == seen(spool, await put(spool, "push.csv"), completion)


@pytest.mark.parametrize("name", ["push.csv.part", "push.xlsx", ".push.csv"])
async def test_a_file_under_a_name_that_is_never_processed_is_reported_after_a_day(
    spool: Spool, clock: Clock, name: str
) -> None:
    upload = await put(spool, name)

    assert (LATE, "", True) == seen(spool, upload, "settle")
    clock.now = LATE + timedelta(minutes=1)
    spool.purge()
    assert [upload] == spool.uploads()


@pytest.mark.parametrize(("name", "user"), [("push.csv.done", "nightly"), (".pull-1", f"{PULLED_BY}erp")])
async def test_a_marker_or_unfinished_pull_is_purged_after_a_day_without_a_report(
    spool: Spool, clock: Clock, name: str, user: str
) -> None:
    upload = await put(spool, name, user)

    assert readiness_of(upload, FileRules(), spool.find) is None
    clock.now = LATE + timedelta(minutes=1)
    spool.purge()
    assert [] == spool.uploads()


async def test_a_rename_is_what_completes_a_file_where_the_app_wants_one(spool: Spool) -> None:
    upload = await put(spool, "push.csv.part")
    await spool.rename(upload, PUSH, replace=False)

    assert (NOON, "", False) == seen(spool, upload, "rename")


@pytest.mark.parametrize("completion", get_args(Completion))
async def test_a_pull_is_complete_with_its_rename_and_is_held_to_its_trailer_alone(
    spool: Spool, completion: Completion
) -> None:
    upload = await put(spool, ".pull-1", f"{PULLED_BY}erp")
    await spool.rename(upload, PUSH, replace=False)

    ready = readiness_of(upload, FileRules(settle_s=5, completion=completion), spool.find)

    assert ready is not None
    assert (NOON, None, False) == (ready.at, ready.companion, ready.missing)
    assert ("row_count" if completion == "row_count" else None) == await refused(ready.rules)


async def refused(rules: FileRules) -> str | None:
    """Return the reason to refuse a file that has no trailer, marker or checksum, or None."""
    found = await refusal(rules, CompletionProof(), PUSH, 1, None, Path("unused"))
    return found.reason if found else None


async def test_what_a_customer_makes_of_a_pull_is_an_upload(spool: Spool) -> None:
    upload = await put(spool, "push.csv", f"{PULLED_BY}erp")

    assert (LATE, "", True) == seen(spool, upload, "rename")


async def test_a_marker_completes_what_was_uploaded_before_it(spool: Spool, clock: Clock) -> None:
    upload = await put(spool, "push.csv")
    await put(spool, "other.csv.done")
    assert seen(spool, upload, "done_marker")[2]
    clock.now += timedelta(seconds=1)

    await put(spool, "push.csv.done")

    assert (clock.now, "push.csv.done", False) == seen(spool, upload, "done_marker")


async def test_a_marker_of_before_says_nothing_of_a_new_upload(spool: Spool, clock: Clock) -> None:
    await put(spool, "push.csv.done")
    clock.now += timedelta(seconds=1)

    assert seen(spool, await put(spool, "push.csv"), "done_marker")[2]


@pytest.mark.parametrize("names", [("push.csv", "push.csv.sha256"), ("push.csv.sha256", "push.csv")])
async def test_a_checksum_may_come_before_or_after_and_settles_too(
    spool: Spool, clock: Clock, names: tuple[str, str]
) -> None:
    uploads = {}
    for name in names:
        clock.now += timedelta(seconds=1)
        uploads[name] = await put(spool, name)

    found = seen(spool, uploads["push.csv"], "sha256")

    assert (clock.now + timedelta(seconds=5), "push.csv.sha256", False) == found


async def test_an_open_marker_does_not_count(spool: Spool) -> None:
    upload = await put(spool, "push.csv")
    writer = spool.create(Place("shop", "", "push.csv.done"), "nightly")

    assert seen(spool, upload, "done_marker")[2]
    writer.abandon()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"{HASH}  push.csv\n", HASH),
        (f"{HASH} *push.csv\r\n", HASH),
        (f"{HASH.upper()}  push.csv", HASH),
        (HASH, HASH),
        (f"\ufeff{HASH}\n", HASH),
        (f"{HASH}  ./out/push.csv\n", HASH),
        (f"{HASH}  C:\\out\\push.csv\n", HASH),
        (f"{OTHER}  other.csv\n{HASH}  push.csv\n", HASH),
        (f"{OTHER}  other.csv\n", ""),
        (f"{OTHER}  push.csv.old\n", ""),
        (f"{HASH[:-1]}  push.csv\n", ""),
        (f"{HASH}0  push.csv\n", ""),
        ("", ""),
        ("no hash", ""),
        ("\x00\xff", ""),
    ],
)
def test_a_checksum_is_what_sha256sum_writes(text: str, expected: str) -> None:
    assert expected == parse_checksum(text.encode(), "push.csv")


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"1;a;b\n#rows=1\n", Trailer(6, 1)),
        (b"1;a;b\r\n#rows=1\r\n\r\n", Trailer(7, 1)),
        (b"1;a;b\n#rows=1", Trailer(6, 1)),
        (b'1;a;b\n"#rows=1";;\n', Trailer(6, 1)),
        (b"#rows=0\n", Trailer(0, 0)),
        (b"x" * 600 + b"\n#rows=12\n", Trailer(601, 12)),
        ("\ufeff1;ş;b\n#rows=1\n".encode("utf-16-le"), Trailer(14, 1)),
        ("\ufeff1;ş;b\n#rows=1\n".encode("utf-16-be"), Trailer(14, 1)),
        (("\ufeff" + "ş" * 600 + "\n#rows=1\n").encode("utf-16-le"), Trailer(1204, 1)),
        (b"1;a;b\n", None),
        (b"#rows=1\n1;a;b\n", None),
        (b"1;a;#rows=1\n", None),
        (b"1;a;b\n#rows=\n", None),
        (b"1;a;b\n#rows=-1\n", None),
        (b"1;a;b\n#rows=1x\n", None),
        (b"", None),
    ],
)
def test_a_trailer_is_the_last_line(data: bytes, expected: Trailer | None) -> None:
    for size in (512, 511):
        assert expected == parse_trailer(data[:size], data[-size:], len(data))


@pytest.mark.parametrize(
    ("completion", "proof", "trailer", "reason"),
    [
        ("settle", CompletionProof(), None, None),
        ("row_count", CompletionProof(), Trailer(6, 3), None),
        ("row_count", CompletionProof(), Trailer(6, 4), "row_count"),
        ("row_count", CompletionProof(), None, "row_count"),
        ("sha256", CompletionProof(checksum=sha256(b"hello").hexdigest()), None, None),
        ("sha256", CompletionProof(checksum=OTHER), None, "sha256"),
        ("sha256", CompletionProof(), None, "sha256"),
        ("done_marker", CompletionProof(companion="x"), None, None),
        ("done_marker", CompletionProof(missing=True), None, "incomplete"),
        ("rename", CompletionProof(missing=True), None, "incomplete"),
        ("sha256", CompletionProof(missing=True), None, "incomplete"),
    ],
)
async def test_a_file_that_is_not_what_was_said_is_refused(
    tmp_path: Path, completion: Completion, proof: CompletionProof, trailer: Trailer | None, reason: str | None
) -> None:
    path = tmp_path / "push.csv"
    path.write_bytes(b"hello")

    found = await refusal(FileRules(completion=completion), proof, PUSH, 3, trailer, path)

    assert reason == (found.reason if found else None)
