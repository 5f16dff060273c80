"""Limits of a user. A change of the user holds at once, also for a session that is open."""

import asyncio
import contextlib
from datetime import UTC, datetime, timedelta
from time import monotonic

import asyncssh
import pytest
from msgspec import structs

from ftp_gateway.app import SERVICE
from shared.runtime.settings import Settings
from support.clients.ftp_gateway import PASSWORD, ROW, Gateway, StartGateway, write
from support.run_service import RunService, running

USER = "/v1/apps/shop/ftp-users/nightly"


@pytest.fixture
def app_config() -> dict[str, object]:
    return {"settle_s": 600}


async def limit(gateway: Gateway, **limits: object) -> None:
    await gateway.user(password=PASSWORD, limits=limits)


async def test_a_session_too_many_is_refused_by_the_name_of_the_limit(gateway: Gateway) -> None:
    await limit(gateway, sessions=1)
    async with gateway.sftp(), gateway.connect() as second:
        with pytest.raises(asyncssh.ChannelOpenError, match="limit sessions: expected at most 1"):
            await second.start_sftp_client()
    async with gateway.sftp() as client:
        assert await client.exists("/")


async def test_limits_hold_at_once_for_a_session_that_is_open(gateway: Gateway) -> None:
    async with gateway.sftp() as client:
        await write(client, "/a.csv", b"x" * 100)
        file = await client.open("/b.csv", "wb")
        await file.write(b"x" * 100)
        await limit(gateway, file_bytes=150)
        with pytest.raises(asyncssh.SFTPFailure, match="limit file_bytes: expected a file of at most 150 bytes"):
            await file.write(b"x" * 100)
        with pytest.raises(asyncssh.SFTPFailure, match="limit file_bytes"):
            await file.truncate(151)
        await limit(gateway, waiting_bytes=250)
        await file.write(b"x" * 50)
        with pytest.raises(asyncssh.SFTPFailure, match="limit waiting_bytes: expected at most 250 bytes"):
            await file.write(b"x")
        with pytest.raises(asyncssh.SFTPFailure, match="a write has failed, so the file is not complete"):
            await file.close()
        await limit(gateway, waiting_files=2)
        with pytest.raises(asyncssh.SFTPFailure, match="limit waiting_files: expected at most 2 files"):
            await client.open("/c.csv", "wb")
        await write(client, "/a.csv", ROW)
        await limit(gateway, open_handles=2)
        handles = [await client.open("/a.csv", "rb") for _ in range(2)]
        with pytest.raises(asyncssh.SFTPFailure, match="limit open_handles: expected at most 2"):
            await client.open("/a.csv", "rb")
        for handle in handles:
            await handle.close()


async def test_the_bandwidth_of_a_user_holds_for_all_his_sessions_and_for_no_other_user(gateway: Gateway) -> None:
    await gateway.user("free", password=PASSWORD)
    await limit(gateway, bandwidth_bytes_s=64 << 10)
    async with gateway.sftp() as one, gateway.sftp() as two, gateway.sftp("shop.free") as free:
        began = monotonic()
        slow = asyncio.gather(write(one, "/1.csv", bytes(32 << 10)), write(two, "/2.csv", bytes(32 << 10)))
        await write(free, "/3.csv", bytes(4 << 20))
        assert not slow.done()
        await slow
        assert monotonic() - began >= 0.9


async def test_a_new_bandwidth_ends_a_long_pause(gateway: Gateway) -> None:
    await limit(gateway, bandwidth_bytes_s=16 << 10)
    async with gateway.sftp() as client:
        slow = asyncio.create_task(write(client, "/1.csv", bytes(2 << 20)))
        await asyncio.sleep(0)
        await limit(gateway, bandwidth_bytes_s=None)
        async with asyncio.timeout(10):
            await slow


CHANGES: list[tuple[str, dict[str, object]]] = [
    ("disabled", {"password": PASSWORD, "disabled": True}),
    ("expired", {"password": PASSWORD, "expires_at": "2026-01-01T00:00:00Z"}),
    ("other password", {"password": "another-password"}),
    ("other networks", {"password": PASSWORD, "allowed_ips": ["203.0.113.0/24"]}),
]


@pytest.mark.parametrize(("what", "change"), CHANGES, ids=[what for what, _ in CHANGES])
async def test_a_session_that_is_no_longer_allowed_ends_at_once(
    gateway: Gateway, what: str, change: dict[str, object]
) -> None:
    await gateway.user("other", password=PASSWORD)
    async with gateway.sftp("shop.other") as other, gateway.connect() as connection:
        client = await connection.start_sftp_client()
        await client.open("/part.csv", "wb")
        await gateway.put(USER, change)
        async with asyncio.timeout(5):
            await connection.wait_closed()
        await write(other, "/other.csv")
    [part] = [upload for upload in gateway.running.state.spool.uploads() if upload.info.name == "part.csv"]
    assert part.interrupted


async def test_a_session_of_a_deleted_user_ends_at_once(gateway: Gateway) -> None:
    async with gateway.connect() as connection, connection.start_sftp_client():
        async with gateway.http.delete(f"{gateway.running.url}{USER}") as answer:
            assert answer.status == 204
        async with asyncio.timeout(5):
            await connection.wait_closed()


async def test_a_session_by_key_stays_with_another_password_and_goes_with_its_key(gateway: Gateway) -> None:
    key, next_key = (asyncssh.generate_private_key("ssh-ed25519") for _ in range(2))
    lines = [each.export_public_key().decode() for each in (key, next_key)]
    await gateway.put(USER, {"public_keys": lines[:1]})
    async with (
        gateway.connect(password=None, client_keys=[key]) as connection,
        connection.start_sftp_client() as client,
    ):
        await gateway.put(USER, {"password": "another-password", "public_keys": lines})
        await write(client, "/a.csv")
        await gateway.put(USER, {"public_keys": lines[1:]})
        async with asyncio.timeout(5):
            await connection.wait_closed()


async def test_a_user_expires_while_he_is_here(gateway: Gateway) -> None:
    soon = datetime.now(UTC) + timedelta(seconds=2)
    await gateway.put(USER, {"password": PASSWORD, "expires_at": soon.isoformat()})
    async with gateway.connect() as connection, connection.start_sftp_client():
        async with asyncio.timeout(10):
            await connection.wait_closed()
    assert datetime.now(UTC) >= soon
    with pytest.raises(asyncssh.PermissionDenied):
        async with gateway.connect():
            pass


async def test_a_session_without_transfers_is_idle_and_one_with_transfers_is_not(start_gateway: StartGateway) -> None:
    async with start_gateway(sftp_idle_s=1.0) as gateway, gateway.connect() as looking, gateway.sftp() as working:
        client = await looking.start_sftp_client()
        ended = asyncio.create_task(looking.wait_closed())
        async with asyncio.timeout(10):
            while not ended.done():
                with contextlib.suppress(asyncssh.SFTPError):
                    await client.stat("/")
                await write(working, "/a.csv")
        await write(working, "/b.csv")


async def test_a_connection_that_does_not_sign_in_is_closed(settings: Settings, run_service: RunService) -> None:
    hasty = structs.replace(settings, sftp_login_s=0.5)
    async with running(SERVICE, hasty) as service:
        host, _, port = service.mesh.addresses["sftp"].rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        async with asyncio.timeout(5):
            assert (await reader.readline()).startswith(b"SSH-2.0-Millrace")
            writer.write(b"SSH-2.0-slow\r\n")
            while await reader.read(4096):
                pass
        writer.close()
        await writer.wait_closed()
