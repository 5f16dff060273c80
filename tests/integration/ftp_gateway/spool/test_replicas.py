"""Gateways that share a spool behind one address: users come back by another one, and one of them may be killed."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import asyncssh
import pytest

from shared.contracts.streams import PUSH
from shared.messaging.bus import Bus
from shared.runtime.settings import Settings
from support.clients.ftp_gateway import PASSWORD, ROW, Gateway, events, gateway_process, read, rows, wait_gone, write
from support.waiting import until

ROWS = 60_000


@pytest.fixture
def app_config() -> dict[str, object]:
    return {"settle_s": 0.2}


@asynccontextmanager
async def connected(port: int) -> AsyncIterator[asyncssh.SSHClientConnection]:
    """The shop's user at the replica at a port."""
    async with asyncssh.connect(
        "127.0.0.1", port, username="shop.nightly", password=PASSWORD, known_hosts=None, config=None, client_keys=None
    ) as connection:
        yield connection


@asynccontextmanager
async def signed_in(port: int) -> AsyncIterator[asyncssh.SFTPClient]:
    """A session of that user."""
    async with connected(port) as connection, connection.start_sftp_client() as client:
        yield client


async def test_a_user_comes_back_by_another_replica(gateway: Gateway, settings: Settings, tmp_path: Path) -> None:
    await gateway.put("/v1/apps/shop", {"settle_s": 600})

    async with (
        gateway_process(settings, tmp_path / "announce") as (_, port),
        signed_in(port) as one,
        gateway.sftp() as two,
    ):
        for name in ("a.csv", "b.csv", "c.csv"):
            await write(one, f"/{name}")
        assert {"a.csv", "b.csv", "c.csv"} <= set(await two.listdir("/"))
        assert len(ROW) == await two.getsize("/a.csv")
        await two.remove("/a.csv")
        await two.rename("/b.csv", "/renamed.csv.part")
        async with two.open("/c.csv", "ab") as file:
            await file.write(b"2;Ho;https://y.example\n")
        assert not await one.exists("/a.csv")
        assert await one.exists("/renamed.csv.part")
        assert (await read(one, "/c.csv")).startswith(ROW + b"2;")


async def test_what_waits_counts_at_every_replica(gateway: Gateway, settings: Settings, tmp_path: Path) -> None:
    await gateway.put("/v1/apps/shop", {"settle_s": 600})
    await gateway.user(password=PASSWORD, limits={"waiting_files": 2})

    async with (
        gateway_process(settings, tmp_path / "announce") as (_, port),
        signed_in(port) as one,
        gateway.sftp() as two,
    ):
        await write(one, "/a.csv")
        await write(two, "/b.csv")
        for client in (one, two):
            with pytest.raises(asyncssh.SFTPFailure, match="limit waiting_files: expected at most 2 files"):
                await write(client, "/c.csv")
        await two.remove("/a.csv")
        await write(one, "/c.csv")


async def test_another_replica_goes_on_with_the_file_of_one_that_was_killed(
    gateway: Gateway, settings: Settings, bus: Bus, tmp_path: Path
) -> None:
    data = b"".join(b"%d;Hello;https://x.example\n" % n for n in range(ROWS))

    async def begun() -> bool:
        # To read the rows would take as long as to publish the rest of them.
        return (await bus.stream_state(PUSH)).messages > 0

    async with gateway_process(settings, tmp_path / "announce") as (process, port):
        async with signed_in(port) as client:
            await write(client, "/big.csv.part", data)
            await write(client, "/next.csv.part", ROW)
            await client.rename("/big.csv.part", "/big.csv")
            await client.rename("/next.csv.part", "/next.csv")
            await until(begun)
        process.kill()
        await process.wait()
        published = len(await rows(bus))
    async with gateway.sftp() as client:
        assert await client.exists("/big.csv")
        await wait_gone(client, "/big.csv")
        await wait_gone(client, "/next.csv")

    sent = await rows(bus)
    assert 0 < published < ROWS
    assert [*range(1, ROWS + 1), 1] == [int(row.id.rpartition(":")[2]) for row in sent]
    assert ["big.csv", "next.csv"] == [event.file_name for event in await events(bus, "completed")]


async def test_an_upload_to_a_replica_that_is_killed_is_a_part_and_resumed_at_another(
    gateway: Gateway, settings: Settings, bus: Bus, tmp_path: Path
) -> None:
    async with (
        gateway_process(settings, tmp_path / "announce") as (process, port),
        connected(port) as connection,
        gateway.sftp() as two,
    ):
        one = await connection.start_sftp_client()
        file = await one.open("/push.csv", "wb")
        await file.write(ROW[:10])
        assert await two.getsize("/push.csv") == 10
        assert ["uploading"] == [found["state"] for found in await gateway.files()]
        with pytest.raises(asyncssh.SFTPFailure):
            await two.open("/push.csv", "ab")
        process.kill()
        await process.wait()
    await until(lambda: events(bus, "partial"))
    async with gateway.sftp() as two:
        assert ["partial"] == [found["state"] for found in await gateway.files()]
        async with two.open("/push.csv", "ab") as resumed:
            await resumed.write(ROW[10:])
        await wait_gone(two, "/push.csv")

    assert ["1"] == [row.ext_id for row in await rows(bus)]
