"""Clients that ask for much at once: none of them holds the event loop, in which all others are served."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import Any

import asyncssh
import pytest
from asyncssh.constants import MSG_CHANNEL_DATA, MSG_IGNORE
from asyncssh.packet import Byte, String, UInt32, UInt64

from ftp_gateway.access.quotas import MAX_HANDLES
from ftp_gateway.model.virtual_paths import Place
from ftp_gateway.sftp.authentication import MIN_PACKET_BYTES
from ftp_gateway.sftp.host_key_algorithms import KEX
from ftp_gateway.sftp.packets import MAX_BLOCK_BYTES
from support.clients.ftp_gateway import PASSWORD, Gateway, StartGateway, write
from support.clients.sftp_packets import CLOSE, CREATE, HANDLE, OPEN, OPENDIR, READ, READDIR, STAT, PacketSession
from support.loop_watch import HELD_S, LoopWatch

Client = Callable[[PacketSession], Awaitable[None]]


@pytest.fixture
def app_config() -> dict[str, object]:
    return {"settle_s": 600}


@pytest.fixture
async def gateway(start_gateway: StartGateway) -> AsyncIterator[Gateway]:
    async with start_gateway() as gateway:
        await gateway.user("nightly", password=PASSWORD, limits={"open_handles": MAX_HANDLES})
        yield gateway


async def assert_holds_nothing(gateway: Gateway, client: Client, **options: Any) -> None:
    """Let a client do its work, in a loop of its own so that only the gateway's counts, and disconnect."""

    async def run() -> None:
        async with gateway.connect(**options) as connection:
            session = PacketSession(connection)
            await session.begin(3)
            await client(session)
            connection.abort()

    async with LoopWatch() as watch:
        await asyncio.to_thread(asyncio.run, run())
        async with gateway.sftp() as other:
            await other.stat("/")
    assert watch.held_s < HELD_S, watch.holder


def request(kind: int, number: int, *fields: bytes) -> bytes:
    packet = Byte(kind) + UInt32(number) + b"".join(fields)
    return UInt32(len(packet)) + packet


def send_at_once(connection: asyncssh.SSHClientConnection, packets: Iterable[tuple[int, bytes]]) -> None:
    """Send SSH packets by one write, so that the gateway gets many of them by one read."""
    written: list[bytes] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(connection, "_send", written.append)
        for kind, body in packets:
            connection.send_packet(kind, body)
    connection._send(b"".join(written))


async def answers(session: PacketSession, number: int) -> list[bytes]:
    async with asyncio.timeout(60):
        found = [await session.receive() for _ in range(number)]
    assert None not in found
    return [answer for answer in found if answer is not None]


async def handle(session: PacketSession) -> bytes:
    [answer] = await answers(session, 1)
    assert answer[0] == HANDLE
    return answer[5:]


@pytest.mark.parametrize("path", ["/{}.csv", "/a.csv"], ids=["of as many files", "of one file"])
async def test_1014_opens(gateway: Gateway, path: str) -> None:
    async def client(session: PacketSession) -> None:
        opens = (
            request(OPEN, number, String(path.format(number)), UInt32(CREATE), UInt32(0)) for number in range(1014)
        )
        session.writer.write(b"".join(opens))
        await answers(session, 1014)

    await assert_holds_nothing(gateway, client)


async def test_small_requests_in_a_row(gateway: Gateway) -> None:
    async def client(session: PacketSession) -> None:
        session.writer.write(b"".join(request(CLOSE, number, String("x")) for number in range(4_000)))
        await answers(session, 4_000)

    await assert_holds_nothing(gateway, client)


async def test_ssh_packets_that_say_nothing(gateway: Gateway) -> None:
    async def client(session: PacketSession) -> None:
        send_at_once(session.connection, ((MSG_IGNORE, String("")) for _ in range(5_000)))
        session.writer.write(request(STAT, 1, String("/")))
        await answers(session, 1)

    await assert_holds_nothing(gateway, client)


async def test_a_request_byte_by_byte(gateway: Gateway) -> None:
    async def client(session: PacketSession) -> None:
        asked = request(STAT, 1, String(b"/" * 6_000))
        assert session.writer.channel._send_chan is not None
        channel = UInt32(session.writer.channel._send_chan)
        send_at_once(session.connection, ((MSG_CHANNEL_DATA, channel + String(bytes([byte]))) for byte in asked))
        await answers(session, 1)

    await assert_holds_nothing(gateway, client)


@pytest.mark.parametrize("size", [1, MIN_PACKET_BYTES - 1])
async def test_a_client_that_wants_tiny_packets_is_refused(gateway: Gateway, size: int) -> None:
    async with gateway.connect(max_pktsize=size) as connection:
        with pytest.raises(asyncssh.ChannelOpenError):
            await connection.start_sftp_client()


async def test_large_blocks_in_small_packets(gateway: Gateway) -> None:
    async with gateway.sftp() as other:
        await write(other, "/a.csv", bytes(MAX_BLOCK_BYTES))

    async def client(session: PacketSession) -> None:
        session.writer.write(request(OPEN, 1, String("/a.csv"), UInt32(1), UInt32(0)))
        file = await handle(session)
        for number in range(20):
            session.writer.write(request(READ, number, file, UInt64(0), UInt32(MAX_BLOCK_BYTES)))
        for answer in await answers(session, 20):
            assert len(answer) > MAX_BLOCK_BYTES

    await assert_holds_nothing(gateway, client, max_pktsize=MIN_PACKET_BYTES)


async def test_listings_of_a_large_folder(gateway: Gateway) -> None:
    spool = gateway.running.state.spool
    for number in range(900):
        spool.create(Place("shop", "", f"{number}.csv.part"), "nightly").abandon()

    async def client(session: PacketSession) -> None:
        for number in range(30):
            session.writer.write(request(OPENDIR, number, String("/")))
        for number in range(30):
            session.writer.write(request(READDIR, number, await handle(session)))
        await answers(session, 30)

    await assert_holds_nothing(gateway, client)


@pytest.mark.filterwarnings("ignore:Diffie-Hellman over finite fields")
@pytest.mark.parametrize("exchange", KEX)
async def test_key_exchanges(gateway: Gateway, exchange: str) -> None:
    async def client(session: PacketSession) -> None:
        for number in range(5):
            # asyncssh exchanges keys anew after so many bytes.
            session.connection._rekey_bytes_sent = 1 << 40
            session.writer.write(request(STAT, number, String("/")))
            await answers(session, 1)

    await assert_holds_nothing(gateway, client, kex_algs=[exchange], server_host_key_algs=["rsa-sha2-512"])
