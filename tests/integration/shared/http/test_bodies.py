"""Bodies of requests: nothing before the token, packed and slow ones, and what is left unread."""

import asyncio
import gzip
import json
import zlib
from collections.abc import AsyncIterator
from functools import partial
from io import BytesIO
from typing import Any

import aiohttp
import pytest
from msgspec import Struct
from structlog.testing import capture_logs

from shared.contracts.streams import CONFIG
from shared.http import bodies
from shared.http.bodies import TransferRate, read_body
from shared.http.routes import Route
from shared.http.server import Call
from shared.service import Mesh, RunningService, Service
from support.loop_watch import HELD_S, LoopWatch
from support.run_service import RunService
from support.waiting import until

LIMIT = 16 << 20


class Thing(Struct):
    size: int


async def echo(call: Call[None]) -> Thing:
    return Thing(size=call.body.size)


async def count(call: Call[None]) -> Thing:
    return Thing(size=len(await read_body(call.request, LIMIT)))


async def build(mesh: Mesh) -> None:
    return None


ROUTES = (
    Route("POST", "/v1/apps/{app_key}/echo", echo, "Echo", body=Thing, reply=Thing),
    Route("POST", "/v1/apps/{app_key}/count", count, "Count", body=Thing, reads_body=True, reply=Thing),
)


@pytest.fixture
async def served(run_service: RunService) -> AsyncIterator[RunningService]:
    async with run_service(Service(name="toy", build=build, routes=ROUTES, buckets=(CONFIG,))) as served:
        yield served


@pytest.fixture
async def http(served: RunningService) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(served.url) as session:
        yield session


def zeros(mib: int) -> bytes:
    """Gzip of as many MiB of zeros, one MiB a member: 1 KB each."""
    return gzip.compress(bytes(1 << 20), 9) * mib


def raw_deflate(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(data) + packer.flush()


async def post(
    http: aiohttp.ClientSession, path: str, body: bytes, headers: dict[str, str], coding: str = ""
) -> tuple[int, Any]:
    packed = {"Content-Encoding": coding} if coding else {}
    async with http.post(f"/v1/apps/shop/{path}", data=BytesIO(body), headers=headers | packed) as response:
        return response.status, await response.json()


async def open_line(served: RunningService) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    host, port = served.url.removeprefix("http://").split(":")
    return await asyncio.open_connection(host, int(port))


def head(path: str, headers: dict[str, str]) -> bytes:
    lines = [
        f"POST /v1/apps/shop/{path} HTTP/1.1",
        "Host: toy",
        *(f"{name}: {value}" for name, value in headers.items()),
    ]
    return "\r\n".join([*lines, "", ""]).encode()


async def test_gzip_without_a_token_costs_nothing(http: aiohttp.ClientSession) -> None:
    bomb = zeros(1000) * 3

    async with LoopWatch() as watch:
        answers = await asyncio.gather(*(post(http, "count", bomb, {}, "gzip") for _ in range(4)))

    assert [401] * 4 == [status for status, _ in answers]
    assert watch.held_s < HELD_S, watch.holder


async def test_bomb_of_a_tenant_is_refused_at_the_limit(http: aiohttp.ClientSession, shop: dict[str, str]) -> None:
    bomb = zeros(1000)

    async with LoopWatch() as watch:
        status, told = await post(http, "count", bomb, shop, "gzip")

    assert (413, "too_large") == (status, told["error"]["code"])
    assert f"expected at most {LIMIT} bytes" == told["error"]["message"]
    assert watch.held_s < HELD_S, watch.holder


async def test_largest_packed_body_is_read_in_slices(http: aiohttp.ClientSession, shop: dict[str, str]) -> None:
    packed = zeros(16)

    async with LoopWatch() as watch:
        assert (200, {"size": LIMIT}) == await post(http, "count", packed, shop, "gzip")

    assert watch.held_s < HELD_S, watch.holder


@pytest.mark.parametrize(
    ("coding", "pack"),
    [
        ("gzip", gzip.compress),
        ("x-gzip", gzip.compress),
        ("GZIP", gzip.compress),
        ("deflate", zlib.compress),
        ("deflate", raw_deflate),
        ("identity", bytes),
    ],
)
async def test_packed_body_is_read_by_every_route(
    http: aiohttp.ClientSession, shop: dict[str, str], coding: str, pack: Any
) -> None:
    assert (200, {"size": 7}) == await post(http, "echo", pack(b'{"size": 7}'), shop, coding)


async def test_gzip_cut_at_half_is_refused(http: aiohttp.ClientSession, shop: dict[str, str]) -> None:
    packed = gzip.compress(b"".join(b"%d\n" % number for number in range(10_000)))

    status, told = await post(http, "count", packed[: len(packed) // 2], shop, "gzip")

    assert (400, "body", "the gzip body ends too early") == (status, told["error"]["field"], told["error"]["message"])


@pytest.mark.parametrize("coding", ["br", "zstd", "gzip, gzip"])
async def test_other_coding_is_415_and_the_known_ones_are_told(
    http: aiohttp.ClientSession, shop: dict[str, str], coding: str
) -> None:
    headers = shop | {"Content-Encoding": coding}
    async with http.post("/v1/apps/shop/echo", data=b"xx", headers=headers) as response:
        told = (await response.json())["error"]

    assert (415, "gzip, deflate") == (response.status, response.headers["Accept-Encoding"])
    assert ("invalid", "Content-Encoding") == (told["code"], told["field"])
    assert f"expected gzip, deflate or identity, found {coding!r}" == told["message"]


async def test_codings_in_several_lines_are_one_list(served: RunningService, shop: dict[str, str]) -> None:
    reader, writer = await open_line(served)
    lines = head("count", shop | {"Content-Length": "5", "Content-Encoding": "identity"})
    writer.write(lines.replace(b"\r\n\r\n", b"\r\nContent-Encoding: gzip\r\n\r\n") + b"hello")

    assert b"HTTP/1.1 415 Unsupported Media Type" == (await reader.readline()).strip()
    writer.close()


async def test_body_that_is_packed_on_its_way_is_refused(served: RunningService, shop: dict[str, str]) -> None:
    reader, writer = await open_line(served)
    packed = gzip.compress(b"hello")
    writer.write(head("count", shop | {"Transfer-Encoding": "gzip, chunked"}))
    writer.write(b"%x\r\n%b\r\n0\r\n\r\n" % (len(packed), packed))

    assert b"HTTP/1.1 400 Bad Request" == (await reader.readline()).strip()
    writer.close()


async def test_client_that_goes_away_is_no_error(served: RunningService, shop: dict[str, str]) -> None:
    with capture_logs() as logs:
        _, writer = await open_line(served)
        writer.write(head("count", shop | {"Content-Length": "50"}) + b"hello")
        await until(lambda: b"millrace_http_connections 1.0" in served.mesh.metrics.render())
        # The handler waits for the rest by now, or does with the next turns of the loop.
        await writer.drain()
        writer.transport.abort()
        await until(lambda: b"millrace_http_connections 0.0" in served.mesh.metrics.render())
        async with aiohttp.ClientSession(served.url) as session, session.get("/livez") as response:
            assert 200 == response.status

    assert [] == [line for line in logs if line["log_level"] == "error"]
    assert b'millrace_bugs_total{where="http"}' not in served.mesh.metrics.render()


async def test_json_of_too_many_values_is_refused_before_it_is_decoded(
    http: aiohttp.ClientSession, shop: dict[str, str]
) -> None:
    body = gzip.compress(b"[" + b",".join([b"[]"] * 340_000) + b"]")

    async with LoopWatch() as watch:
        status, told = await post(http, "echo", body, shop, "gzip")

    assert (413, "expected JSON of at most 20000 values") == (status, told["error"]["message"])
    assert watch.held_s < HELD_S, watch.holder


async def test_json_of_many_levels_is_refused(http: aiohttp.ClientSession, shop: dict[str, str]) -> None:
    status, told = await post(http, "echo", b"[" * 9000, shop)

    assert (400, "invalid") == (status, told["error"]["code"])


async def test_body_is_asked_for_after_the_token_is_checked(served: RunningService, shop: dict[str, str]) -> None:
    waits = {"Content-Length": "11", "Expect": "100-continue"}

    reader, writer = await open_line(served)
    writer.write(head("echo", waits))
    assert b"HTTP/1.1 401 Unauthorized" == (await reader.readline()).strip()
    writer.close()

    reader, writer = await open_line(served)
    writer.write(head("echo", waits | shop))
    assert b"HTTP/1.1 100 Continue" == (await reader.readline()).strip()
    writer.write(b'{"size": 7}')
    assert b"" == (await reader.readline()).strip()
    assert b"HTTP/1.1 200 OK" == (await reader.readline()).strip()
    writer.close()


async def test_refused_body_is_not_discarded_at_length(served: RunningService) -> None:
    reader, writer = await open_line(served)
    writer.write(head("echo", {"Content-Length": str(1 << 40)}))

    answer = await reader.readuntil(b"\r\n\r\n")

    assert answer.startswith(b"HTTP/1.1 401")
    assert b"connection: close" in answer.lower()
    # The body never comes; without a bound the line would stay open.
    async with asyncio.timeout(20):
        await reader.read()
    writer.close()


async def test_body_that_comes_slowly_is_refused(
    served: RunningService, shop: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bodies, "TransferRate", partial(TransferRate, grace_s=0.2))
    reader, writer = await open_line(served)
    writer.write(head("echo", shop | {"Content-Length": "11"}) + b"{")

    answer = await reader.readuntil(b"\r\n\r\n")
    told = json.loads(await reader.read())

    assert answer.startswith(b"HTTP/1.1 400")
    assert "the body came more slowly than 8192 bytes per second" == told["error"]["message"]
    writer.close()
