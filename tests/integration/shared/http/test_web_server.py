"""The listener against strangers: half a header, silence, no HTTP, many connections, and nobody who reads."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from msgspec import structs

from shared.contracts.streams import CONFIG
from shared.http import server, web_server
from shared.http.routes import Binary, Route
from shared.http.server import Call
from shared.runtime.settings import Settings
from shared.service import Mesh, RunningService, Service
from support.run_service import running
from support.waiting import until

HALF = b"GET /livez HTTP/1.1\r\nHost: x\r\n"
WHOLE = HALF + b"\r\n"
LARGE = bytes(64 << 20)


class Working:
    """Requests that are in progress until the test lets them end."""

    def __init__(self) -> None:
        self.count = 0
        self.may_finish = asyncio.Event()
        self.file = Path()
        self.deleted = False
        """The file is deleted once it has been found."""


async def work(call: Call[Working]) -> None:
    call.state.count += 1
    await call.state.may_finish.wait()


async def send_large(call: Call[Working]) -> web.Response:
    return web.Response(body=LARGE)


async def send_file(call: Call[Working]) -> web.StreamResponse:
    answer = await call.send_file(call.state.file, {"Content-Type": "text/plain", "Cache-Control": "immutable"})
    if call.state.deleted:
        call.state.file.unlink()
    return answer


async def build(mesh: Mesh) -> Working:
    return Working()


ROUTES = (
    Route("GET", "/v1/work", work, "Work", scope="open", status=204),
    Route("GET", "/v1/file", send_file, "Send a file", scope="open", reply=Binary, produces="*/*"),
    Route("GET", "/v1/large", send_large, "Send much", scope="open", reply=Binary, produces="*/*"),
)
SERVICE = Service(name="toy", build=build, routes=ROUTES, buckets=(CONFIG,))


@asynccontextmanager
async def serving(settings: Settings, **changed: Any) -> AsyncIterator[RunningService]:
    async with running(SERVICE, structs.replace(settings, **changed)) as served:
        yield served
        served.state.may_finish.set()


async def open_line(served: RunningService) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    host, port = served.url.removeprefix("http://").split(":")
    return await asyncio.open_connection(host, int(port), limit=1 << 16)


async def is_closed(reader: asyncio.StreamReader) -> bool:
    with contextlib.suppress(ConnectionError):
        while await reader.read(1 << 16):
            pass
    return True


async def status_of(url: str) -> int:
    async with aiohttp.ClientSession() as http, http.get(url) as response:
        await response.read()
        return response.status


@pytest.mark.parametrize("sent", [b"", HALF, b"\r\n"], ids=["nothing", "half", "line break"])
@pytest.mark.parametrize("place", ["first", "second"])
async def test_request_that_does_not_come_whole_is_closed(
    settings: Settings, place: str, sent: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(web_server, "HEADERS_S", 0.2)
    monkeypatch.setattr(web_server, "SWEEP_S", 0.05)
    async with serving(settings, http_keepalive_s=0.2 if not sent else 75.0) as served:
        reader, writer = await open_line(served)
        if place == "second":
            writer.write(WHOLE)
            await reader.readuntil(b'{"alive":true}')
        writer.write(sent)

        async with asyncio.timeout(20):
            assert await is_closed(reader)

        writer.close()
        assert b'millrace_http_closed_total{reason="time"} 1.0' in served.mesh.metrics.render()


@pytest.mark.parametrize("requests", [1, 3])
async def test_client_that_sends_no_more_gets_its_answers_and_the_close(settings: Settings, requests: int) -> None:
    async with serving(settings) as served:
        reader, writer = await open_line(served)

        writer.write(HALF.replace(b"livez", b"v1/work") + b"\r\n" + WHOLE * (requests - 1))
        writer.write_eof()
        await until(lambda: served.state.count == 1)
        served.state.may_finish.set()
        # Before the time that an idle connection has.
        async with asyncio.timeout(20):
            answers = await reader.read()

        assert answers.startswith(b"HTTP/1.1 204")
        assert answers.count(b'{"alive":true}') == requests - 1
        writer.close()


async def test_client_that_ends_within_a_body_is_closed(settings: Settings) -> None:
    async with serving(settings) as served:
        reader, writer = await open_line(served)

        writer.write(b"GET /v1/work HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nab")
        await until(lambda: served.state.count == 1)
        writer.write_eof()

        async with asyncio.timeout(20):
            assert await reader.read() == b""
        writer.close()


async def test_headers_that_trickle_do_not_move_the_deadline(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(web_server, "HEADERS_S", 0.3)
    monkeypatch.setattr(web_server, "SWEEP_S", 0.05)

    async def trickle(writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while True:
                writer.write(b"x: y\r\n")
                await writer.drain()
                await asyncio.sleep(0.02)

    async with serving(settings) as served:
        reader, writer = await open_line(served)
        writer.write(HALF)
        trickling = asyncio.create_task(trickle(writer))

        async with asyncio.timeout(20):
            assert await is_closed(reader)

        trickling.cancel()
        writer.close()


@pytest.mark.parametrize(
    ("before", "after_answers"),
    [(b"", 0), (WHOLE, 1), (HALF + b"Content-Length: 300000\r\n\r\n" + bytes(300_000), 1), (WHOLE * 40, 40)],
    ids=["first", "second", "after a body that nobody reads", "after many at once"],
)
async def test_head_that_is_too_long_is_refused_before_it_is_whole(
    settings: Settings, before: bytes, after_answers: int
) -> None:
    async with serving(settings) as served:
        reader, writer = await open_line(served)
        writer.write(before)
        for _ in range(after_answers):
            async with asyncio.timeout(20):
                await reader.readuntil(b'{"alive":true}')
        writer.write(HALF + b"".join(b"h%d: %b\r\n" % (number, b"x" * 8000) for number in range(20)))

        async with asyncio.timeout(20):
            head, _, body = (await reader.read()).partition(b"\r\n\r\n")

        writer.close()
        assert head.startswith(b"HTTP/1.1 431 ")
        assert {"code": "too_large", "message": "expected a line and headers of at most 32768 bytes"} == json.loads(
            body
        )["error"]
        assert b'millrace_http_closed_total{reason="headers"} 1.0' in served.mesh.metrics.render()


async def test_body_that_comes_with_its_head_or_that_nobody_reads_is_not_taken_for_a_head(settings: Settings) -> None:
    whole = HALF + b"Content-Length: 300000\r\n\r\n" + bytes(300_000)
    async with serving(settings) as served:
        reader, writer = await open_line(served)
        writer.write(whole * 3)

        for _ in range(3):
            async with asyncio.timeout(20):
                assert (await reader.readuntil(b'{"alive":true}')).startswith(b"HTTP/1.1 200")

        writer.close()


async def test_strangers_with_half_a_header_keep_nobody_out(settings: Settings) -> None:
    async with serving(settings, http_connections=20) as served, AsyncExitStack() as stack:
        held = []
        for _ in range(60):
            reader, writer = await open_line(served)
            stack.callback(writer.close)
            writer.write(HALF)
            held.append(reader)
        await until(lambda: b"millrace_http_connections 20.0" in served.mesh.metrics.render())

        assert 200 == await status_of(f"{served.url}/livez")
        # The oldest made room.
        async with asyncio.timeout(20):
            assert all([await is_closed(reader) for reader in held[:40]])
        assert not held[-1].at_eof()


async def test_request_in_progress_is_never_closed_for_another_and_the_refused_is_told(settings: Settings) -> None:
    async with (
        serving(settings, http_connections=3) as served,
        aiohttp.ClientSession(served.url) as http,
        asyncio.TaskGroup() as group,
    ):

        async def ask() -> int:
            async with http.get("/v1/work") as response:
                return response.status

        asking = [group.create_task(ask()) for _ in range(3)]
        await until(lambda: served.state.count == 3)

        async with http.get("/livez") as refused:
            assert (503, "1") == (refused.status, refused.headers["Retry-After"])
            assert {"error": {"code": "unavailable", "message": "too many connections"}} == await refused.json()

        served.state.may_finish.set()
        assert [204, 204, 204] == [await task for task in asking]
        assert 200 == await status_of(f"{served.url}/livez")


async def test_client_that_reads_nothing_of_its_answer_is_closed(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(web_server, "UNREAD_S", 0.3)
    monkeypatch.setattr(web_server, "SWEEP_S", 0.05)
    async with serving(settings) as served:
        _, writer = await open_line(served)
        writer.write(b"GET /v1/large HTTP/1.1\r\nHost: x\r\n\r\n")

        await until(lambda: b'millrace_http_closed_total{reason="time"} 1.0' in served.mesh.metrics.render())

        writer.close()


async def test_client_that_reads_nothing_of_a_file_is_closed(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving(settings) as served:
        served.state.file = tmp_path / "large"
        served.state.file.write_bytes(LARGE)
        async with aiohttp.ClientSession(served.url, connector=aiohttp.TCPConnector(limit=1)) as http:
            for _ in range(2):
                # One connection: an answer that is sent twice would spoil it.
                async with http.get("/v1/file") as response:
                    assert (200, "text/plain") == (response.status, response.headers["Content-Type"])
                    assert len(LARGE) == len(await response.read())
        monkeypatch.setattr(server, "FILE_GRACE_S", 0.2)
        monkeypatch.setattr(server, "FILE_BYTES_PER_S", len(LARGE))
        _, writer = await open_line(served)
        writer.write(b"GET /v1/file HTTP/1.1\r\nHost: x\r\n\r\n")
        await until(lambda: b"millrace_http_connections 1.0" in served.mesh.metrics.render())

        await until(lambda: b"millrace_http_connections 0.0" in served.mesh.metrics.render())

        writer.close()


async def test_large_answer_reaches_a_client_that_reads(settings: Settings) -> None:
    async with (
        serving(settings) as served,
        aiohttp.ClientSession(served.url) as http,
        http.get("/v1/large") as response,
    ):
        assert len(LARGE) == len(await response.read())


@pytest.mark.parametrize(
    "sent",
    [
        b"POST /v1/work HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx",
        b"\x16\x03\x01\x02\x00\x01\x00\x01",
        b"nonsense\r\n\r\n",
        b"GET /livez HTTP/1.1\r\nAuthorization: Bearer mr_hunter2" + b"x" * 9000 + b"\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /livez HTTP/1.1\r\nHost: x\r\nbad header\r\n\r\n",
        b"POST /livez HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\nhello",
    ],
    ids=["two lengths", "TLS", "nonsense", "long header", "version", "no colon", "smuggling"],
)
async def test_what_is_no_http_gets_the_one_error_body(settings: Settings, sent: bytes) -> None:
    async with serving(settings) as served:
        reader, writer = await open_line(served)
        writer.write(sent)

        async with asyncio.timeout(20):
            head, _, body = (await reader.read()).partition(b"\r\n\r\n")

        writer.close()
        told = json.loads(body)["error"]
        assert head.startswith(b"HTTP/1.0 400") or head.startswith(b"HTTP/1.1 400")
        assert "invalid" == told["code"]
        assert told["message"].startswith("expected HTTP/1.1")
        assert "hunter2" not in told["message"]
        assert 200 == await status_of(f"{served.url}/livez")


async def test_unknown_expectation_gets_the_one_error_body(settings: Settings) -> None:
    async with serving(settings) as served:
        reader, writer = await open_line(served)
        writer.write(b"POST /nowhere HTTP/1.1\r\nHost: x\r\nExpect: wonders\r\nContent-Length: 0\r\n\r\n")

        async with asyncio.timeout(20):
            head = await reader.readuntil(b"\r\n\r\n")
            told = json.loads(await reader.readuntil(b"}}"))["error"]

        writer.close()
        assert head.startswith(b"HTTP/1.1 417")
        assert "invalid" == told["code"]


@pytest.mark.parametrize("moment", ["before", "after"])
async def test_file_that_is_deleted_while_it_is_asked_for_is_not_found(
    settings: Settings, tmp_path: Path, moment: str
) -> None:
    file = tmp_path / "file"
    async with serving(settings) as served, aiohttp.ClientSession(served.url) as http:
        if moment == "after":
            file.write_bytes(b"whole")
            served.state.deleted = True
        served.state.file = file

        async with http.get("/v1/file") as response:
            told = await response.json()

        assert (404, "not_found") == (response.status, told["error"]["code"])
        assert "Cache-Control" not in response.headers
        assert 200 == await status_of(f"{served.url}/livez")
