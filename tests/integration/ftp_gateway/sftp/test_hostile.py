"""Clients that take all they can get: others are served meanwhile, and memory stays bounded."""

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from time import monotonic

import asyncssh
import psutil
import pytest
from asyncssh.constants import FXF_READ, FXP_READ, MSG_IGNORE
from asyncssh.packet import String, UInt32, UInt64

from ftp_gateway.access.quotas import Quotas
from ftp_gateway.sftp.listener import Connection
from ftp_gateway.sftp.server import SftpServer
from support.clients.ftp_gateway import Gateway, StartGateway, write
from support.waiting import until


@pytest.fixture
def app_config() -> dict[str, object]:
    return {"settle_s": 600}


@pytest.fixture
async def gateway(start_gateway: StartGateway) -> AsyncIterator[Gateway]:
    async with start_gateway(sftp_connections=64, sftp_connections_per_address=20) as gateway:
        yield gateway


async def serves_others(gateway: Gateway) -> None:
    async with asyncio.timeout(10), gateway.sftp() as other:
        await write(other, "/other.csv")


async def test_1014_handles_are_refused_and_others_are_served(gateway: Gateway) -> None:
    most = Quotas().open_handles
    async with gateway.sftp() as client:
        await write(client, "/a.csv")
        opened = await asyncio.gather(*(client.open("/a.csv", "rb") for _ in range(1014)), return_exceptions=True)
        assert most == sum(isinstance(each, asyncssh.SFTPClientFile) for each in opened)
        await serves_others(gateway)


async def test_an_ssh_packet_of_2_gb_ends_its_connection_alone(gateway: Gateway) -> None:
    async with gateway.sftp() as client:
        reader, writer = await asyncio.open_connection(gateway.host, gateway.port)
        await reader.readline()
        writer.write(b"SSH-2.0-x\r\n" + b"\x7f\xff\xff\xff" + bytes(64 << 10))
        async with asyncio.timeout(5):
            with contextlib.suppress(ConnectionResetError):
                while await reader.read(4096):
                    pass
        writer.close()
        await write(client, "/a.csv")


async def test_a_client_that_reads_nothing_takes_no_memory(gateway: Gateway) -> None:
    block, asked = 256 << 10, 4000
    async with gateway.sftp() as client:
        await write(client, "/a.csv", os.urandom(1 << 20))
    before = psutil.Process().memory_info().rss
    async with gateway.connect(window=1 << 31) as connection, connection.start_sftp_client() as client:
        handler = client._handler
        handle = await handler.open(b"/a.csv", FXF_READ, asyncssh.SFTPAttrs())
        transport = connection._transport
        assert transport is not None
        transport.pause_reading()
        for number in range(asked):
            handler.send_packet(FXP_READ, None, UInt32(number), String(handle), UInt64(0), UInt32(block))
        [server] = gateway_connections(gateway)
        await until(lambda: not server._read_by_client.is_set())
        await serves_others(gateway)
        held = psutil.Process().memory_info().rss - before
        assert held < 100 << 20, held
        connection.abort()


def gateway_connections(gateway: Gateway) -> list[Connection]:
    """Return the open connections at the side of the server."""
    [sftp] = [intake for intake in dict(gateway.running.mesh.intakes).values() if isinstance(intake, SftpServer)]
    return [connection for connection in sftp._authenticators if isinstance(connection, Connection)]


async def test_500_silent_connections_keep_no_user_out(gateway: Gateway) -> None:
    def dial(number: int) -> socket.socket:
        return socket.create_connection((gateway.host, gateway.port), source_address=(f"127.0.1.{number % 250 + 1}", 0))

    async with AsyncExitStack() as stack:
        signed_in = await stack.enter_async_context(gateway.sftp())
        for connection in await asyncio.to_thread(lambda: [dial(number) for number in range(500)]):
            stack.callback(connection.close)
        await write(signed_in, "/a.csv")
        await serves_others(gateway)


async def test_an_address_that_uses_all_its_connections_leaves_room_for_others(gateway: Gateway) -> None:
    async with AsyncExitStack() as stack:
        for _ in range(25):
            connection = await asyncio.to_thread(
                socket.create_connection, (gateway.host, gateway.port), 5, ("127.0.0.3", 0)
            )
            stack.callback(connection.close)
        with pytest.raises((asyncssh.Error, OSError)):
            async with gateway.connect(local_addr=("127.0.0.3", 0)):
                pass
        await serves_others(gateway)


@pytest.fixture
async def impatient(start_gateway: StartGateway) -> AsyncIterator[Gateway]:
    """A gateway with short time-outs."""
    async with start_gateway(sftp_login_s=1.0, sftp_idle_s=1.0) as gateway:
        yield gateway


async def drip(gateway: Gateway, gone: Callable[[], bool], drop: Callable[[], None]) -> None:
    """Send a little again and again, until the gateway disconnects. It serves others meanwhile."""
    began = monotonic()
    await serves_others(gateway)
    async with asyncio.timeout(10):
        while not gone():
            with contextlib.suppress(OSError):
                drop()
            await asyncio.sleep(0.05)
    # It was the time-out, and not something wrong in what was said.
    assert monotonic() - began >= 0.8


BANNER = b"SSH-2.0-slow\r\n"
SLOW = {
    "banner": (b"", b"S"),
    "key exchange": (BANNER, b""),
    "packet of the key exchange": (BANNER + b"\0\0\x04\0\x05\x14", b"\0"),
}


@pytest.mark.parametrize(("first", "then"), SLOW.values(), ids=SLOW)
async def test_a_client_that_is_slow_before_the_sign_in_is_disconnected(
    impatient: Gateway, first: bytes, then: bytes
) -> None:
    reader, writer = await asyncio.open_connection(impatient.host, impatient.port)
    writer.write(first)
    heard = asyncio.create_task(_all_of(reader))

    await drip(impatient, heard.done, lambda: writer.write(then))

    writer.close()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()


async def _all_of(reader: asyncio.StreamReader) -> None:
    with contextlib.suppress(ConnectionError):
        while await reader.read(4096):
            pass


class Hesitant(asyncssh.SSHClient):
    """A client that never sends its password."""

    connection: asyncssh.SSHClientConnection | None = None

    def connection_made(self, conn: asyncssh.SSHClientConnection) -> None:
        Hesitant.connection = conn

    async def password_auth_requested(self) -> str:
        await asyncio.Event().wait()
        return ""


async def test_a_client_that_is_slow_to_sign_in_is_disconnected(impatient: Gateway) -> None:
    async def sign_in() -> None:
        async with impatient.connect(password=None, client_factory=Hesitant, preferred_auth="password"):
            pass

    def ignore_me() -> None:
        if Hesitant.connection is not None:
            Hesitant.connection.send_packet(MSG_IGNORE, String(b""))

    hesitating = asyncio.create_task(sign_in())
    await drip(impatient, hesitating.done, ignore_me)

    with pytest.raises((asyncssh.Error, OSError)):
        await hesitating


async def test_a_client_that_is_slow_within_a_packet_is_disconnected(impatient: Gateway) -> None:
    async with impatient.connect() as connection:
        writer, reader, _ = await connection.open_session(subsystem="sftp", encoding=None)
        writer.write(b"\0\0\0\x05\x01\0\0\0\x03")
        await reader.readexactly(4)
        writer.write(b"\0\0\x10\0\x06")
        ended = asyncio.create_task(connection.wait_closed())

        await drip(impatient, ended.done, lambda: writer.write(b"\0"))
