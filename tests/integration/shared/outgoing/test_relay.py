"""The relay between a library and the host of a customer: what of a host's answers reaches the library."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import pytest

from shared.outgoing.proxies import proxy_credentials
from support.outgoing import open_outgoing
from support.waiting import until

ANSWER = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 7\r\nConnection: close\r\n\r\nrefused"
BODY_BYTES = 8 << 20

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
Line = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@asynccontextmanager
async def relayed(
    serve: Serve, host: str = "127.0.0.1", *, written: str | None = None
) -> AsyncIterator[tuple[Line, bytes]]:
    """
    A connection to the relay for a server of the test, and the head of a request by it, without its length.

    Args:
        written: The host as the endpoint has it, where that is not its usual form.
    """
    server = await asyncio.start_server(serve, host, 0)
    port = server.sockets[0].getsockname()[1]
    async with (
        open_outgoing() as outgoing,
        outgoing.relay.admit(f"http://{written or host}:{port}", guarded=False, connect_s=5) as admitted,
    ):
        proxy = urlsplit(admitted.proxy_url)
        reader, writer = await asyncio.open_connection(proxy.hostname, proxy.port)
        head = f"PUT {admitted.url}/key HTTP/1.1\r\nProxy-Authorization: {proxy_credentials(admitted.proxy_url)}\r\n"
        with contextlib.closing(writer):
            yield (reader, writer), head.encode()
    server.close()


async def test_answer_that_comes_before_the_request_is_whole_reaches_the_library() -> None:
    answered = asyncio.Event()

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(ANSWER)
        await writer.drain()
        writer.close()
        await writer.wait_closed()
        answered.set()

    async with asyncio.timeout(30), relayed(refuse) as ((reader, writer), head):
        writer.write(head + f"Content-Length: {BODY_BYTES}\r\n\r\n".encode())
        await answered.wait()
        got = await reader.readexactly(len(ANSWER))
        # A library that cannot write on takes the answer for lost.
        for _ in range(8):
            writer.write(bytes(BODY_BYTES // 8))
            await writer.drain()

        assert ANSWER == got
        assert b"" == await reader.read()


async def test_host_that_stops_reading_and_then_closes_leaves_no_request_hanging() -> None:
    full = asyncio.Event()

    async def read_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await full.wait()
        writer.write(ANSWER)
        await writer.drain()
        writer.transport.abort()

    async with asyncio.timeout(30), relayed(read_nothing) as ((reader, writer), head):
        writer.write(head + f"Content-Length: {BODY_BYTES}\r\n\r\n".encode() + bytes(BODY_BYTES))
        left = [0, BODY_BYTES]

        def is_stuck() -> bool:
            left.append(writer.transport.get_write_buffer_size())
            return len(set(left[-10:])) == 1

        await until(is_stuck)
        full.set()

        await writer.drain()
        await reader.read()


@pytest.mark.parametrize("piece_bytes", [1, 7, 60, 1000])
async def test_request_in_pieces_reaches_the_host_as_it_was_sent(piece_bytes: int) -> None:
    body = bytes(range(256)) * 4
    came: list[bytes] = []

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for _ in range(2):
            came.append(await reader.readuntil(b"\r\n\r\n"))
            came.append(await reader.readexactly(len(body)))
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        writer.close()

    async with asyncio.timeout(30), relayed(take) as ((reader, writer), head):
        whole = head + b"x-Name: value\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
        for _ in range(2):
            for at in range(0, len(whole), piece_bytes):
                writer.write(whole[at : at + piece_bytes])
                await writer.drain()
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")

    assert [b"PUT /key HTTP/1.1\r\nx-Name: value\r\nContent-Length: 1024\r\n\r\n", body] * 2 == came


@pytest.mark.parametrize("written", ["[::1]", "[0:0:0:0:0:0:0:1]", "[::0001]", "[0::1]"])
async def test_every_form_of_an_ipv6_address_is_the_same_host(written: str) -> None:
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(ANSWER)
        writer.close()

    async with asyncio.timeout(30), relayed(refuse, "::1", written=written) as ((reader, writer), head):
        shortest = head.replace(b"http://%b:" % written.encode(), b"http://[::1]:")
        writer.write(shortest + b"Content-Length: 0\r\n\r\n")

        assert ANSWER == await reader.read()
