"""Completion rules of an app, files sent again on purpose, and a disk that is full."""

import os
import subprocess
from collections.abc import Iterator
from datetime import timedelta
from hashlib import sha256
from pathlib import Path

import asyncssh
import msgspec
import pytest
from structlog.testing import capture_logs

from ftp_gateway.processing import completion
from ftp_gateway.spool import store as spools
from shared.messaging.bus import Bus
from support.clients.ftp_gateway import ROW, Gateway, events, process, read, rows, wait_gone, write
from support.waiting import until


async def state_of(gateway: Gateway, name: str) -> list[str]:
    return [file["state"] for file in await gateway.files() if file["name"] == name]


async def test_only_a_rename_commits_where_the_app_wants_one(gateway: Gateway, bus: Bus) -> None:
    await gateway.put("/v1/apps/shop", {"settle_s": 0.05, "completion": "rename"})

    async with gateway.sftp() as client:
        await write(client, "/direct.csv", b"1;Direct;https://x.example\n")
        await write(client, "/push.csv.part", ROW)
        await client.rename("/push.csv.part", "/push.csv")
        await wait_gone(client, "/push.csv")
        assert await client.exists("/direct.csv")

    assert ["Hello"] == [row.text for row in await rows(bus)]
    assert ["uploaded"] == await state_of(gateway, "direct.csv")


async def test_a_marker_commits_and_disappears_with_its_file(gateway: Gateway, bus: Bus) -> None:
    await gateway.put("/v1/apps/shop", {"settle_s": 0.05, "completion": "done_marker"})

    async with gateway.sftp() as client:
        await write(client, "/push.csv", ROW)
        await write(client, "/other.csv.done", b"")
        assert ["uploaded"] == await state_of(gateway, "push.csv")
        await write(client, "/push.csv.done", b"")
        await wait_gone(client, "/push.csv")
        await wait_gone(client, "/push.csv.done")
        assert await client.exists("/other.csv.done")
        await write(client, "/push.csv", b"2;Next;https://x.example\n")
        assert ["uploaded", "completed"] == await state_of(gateway, "push.csv")

    assert ["1"] == [row.ext_id for row in await rows(bus)]


@pytest.mark.parametrize("path", ["/push.csv", "/Profile/users.txt"])
async def test_a_row_count_that_is_right_is_no_row(gateway: Gateway, path: str) -> None:
    await gateway.put("/v1/apps/shop", {"settle_s": 0.05, "completion": "row_count"})
    data = ROW + b"2;Ho;https://y.example\n" if path == "/push.csv" else b'~~~city\n1~~~"Ankara"\n2~~~"Bursa"\n'

    async with gateway.sftp() as client:
        result = await process(client, path, data + b"#rows=2\n")

    assert ("done", 2, 2) == (result["outcome"], result["rows"], result["ok"])


@pytest.mark.parametrize("trailer", [b"", b"#rows=2\n"])
async def test_a_row_count_that_is_wrong_or_missing_refuses_the_file(
    gateway: Gateway, bus: Bus, trailer: bytes
) -> None:
    await gateway.put("/v1/apps/shop", {"settle_s": 0.05, "completion": "row_count"})

    async with gateway.sftp() as client:
        result = await process(client, "/push.csv", ROW + trailer)
        report = await read(client, "/errors/push.csv.report.csv")

    assert ("rejected", "row_count") == (result["outcome"], result["reason"])
    assert b"#rows=" in report if not trailer else b"says 2 rows, and there are 1" in report
    assert [] == await rows(bus)


async def test_a_checksum_lets_a_file_pass_or_refuses_it(gateway: Gateway, bus: Bus) -> None:
    await gateway.put("/v1/apps/shop", {"settle_s": 0.05, "completion": "sha256"})
    right = f"{sha256(ROW).hexdigest()}  push.csv\n".encode()

    async with gateway.sftp() as client:
        await write(client, "/push.csv.sha256", right)
        good = await process(client, "/push.csv", ROW)
        await wait_gone(client, "/push.csv.sha256")
        await write(client, "/push.csv", ROW + b"2;Ho;https://y.example\n")
        assert ["uploaded", "completed"] == await state_of(gateway, "push.csv")
        await write(client, "/push.csv.sha256", right)
        await wait_gone(client, "/push.csv")
        bad = msgspec.json.decode(await read(client, "/errors/push.csv.result.json"))
        report = await read(client, "/errors/push.csv.report.csv")

    assert ("done", "rejected", "sha256") == (good["outcome"], bad["outcome"], bad["reason"])
    assert sha256(ROW).hexdigest().encode() in report
    assert ["1"] == [row.ext_id for row in await rows(bus)]


async def test_a_file_under_a_name_that_is_never_processed_is_reported_before_it_goes(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with gateway.sftp() as client:
        await write(client, "/Profile/users.csv", b'~~~city\n1~~~"Ankara"\n')
        assert ["uploaded"] == await state_of(gateway, "users.csv")
        monkeypatch.setattr(completion, "ABANDONED_AFTER", timedelta(0))
        await wait_gone(client, "/Profile/users.csv")
        result = msgspec.json.decode(await read(client, "/errors/users.csv.result.json"))
        report = await read(client, "/errors/users.csv.report.csv")

    assert ("profile", "rejected", "incomplete") == (result["kind"], result["outcome"], result["reason"])
    assert b"a name that is processed, in .txt" in report
    assert ["failed"] == await state_of(gateway, "users.csv")


async def test_a_name_in_resend_sends_the_same_content_once_more(gateway: Gateway, bus: Bus) -> None:
    async with gateway.sftp() as client:
        outcomes = [
            (await process(client, f"/{name}", ROW))["outcome"]
            for name in ("push.csv", "again.csv", "push.resend.csv", "push.resend.csv", "push.resend2.csv")
        ]

    assert ["done", "duplicate", "done", "duplicate", "done"] == outcomes
    assert len(sent := await rows(bus)) == 3
    assert len({row.id for row in sent}) == 3


async def test_push_and_profile_files_of_one_name_have_reports_of_their_own(gateway: Gateway) -> None:
    async with gateway.sftp() as client:
        await write(client, "/users.txt", b"no row\n")
        await wait_gone(client, "/users.txt")
        await write(client, "/Profile/users.txt", b"~~~city\nno row\n")
        await wait_gone(client, "/Profile/users.txt")
        names = await client.listdir("/errors")
        push = msgspec.json.decode(await read(client, "/errors/users.txt.push.result.json"))
        profile = msgspec.json.decode(await read(client, "/errors/users.txt.result.json"))

    assert {"users.txt.push.report.csv", "users.txt.report.csv"} <= set(names)
    assert ("push", "profile") == (push["kind"], profile["kind"])


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """The spool's directory, on a disk of 1 MiB."""
    directory = tmp_path / "data" / "ftp" / "spool"
    directory.mkdir(parents=True)
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(directory)], check=False, capture_output=True
    )
    if mounted.returncode:
        pytest.skip("mounting is not allowed here")
    try:
        yield directory
    finally:
        subprocess.run(["umount", "-l", str(directory)], check=True)


async def test_a_full_disk_is_logged_and_nothing_of_the_file_is_sent(
    small_disk: Path, gateway: Gateway, bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    with capture_logs() as logs:
        async with gateway.sftp() as client:
            await _fill(client, bus, monkeypatch)

    assert ["disk_limit_reached", "upload_write_failed"] == [
        entry["event"] for entry in logs if entry["log_level"] == "error"
    ]
    assert ["1"] == [row.ext_id for row in await rows(bus)]
    assert os.statvfs(small_disk).f_bavail > 0


async def _fill(client: asyncssh.SFTPClient, bus: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(asyncssh.SFTPFailure, match="nearly full"):
        await client.open("/push.csv", "wb")
    monkeypatch.setattr(spools, "MIN_FREE_BYTES", 0)
    file = await client.open("/big.csv", "wb")
    with pytest.raises(asyncssh.SFTPFailure, match="disk is full"):
        await file.write(b"1;Hello;https://x.example\n" * 50_000)
    with pytest.raises(asyncssh.SFTPFailure, match="a write has failed"):
        await file.close()
    await until(lambda: events(bus, "partial"))
    assert [] == await rows(bus)
    await client.remove("/big.csv")
    await process(client, "/push.csv", ROW)
