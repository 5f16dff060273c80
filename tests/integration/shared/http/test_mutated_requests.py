"""
Requests that are damaged at random: each is answered in the one form or closed, none is a bug, and the service lives.

The seeds are fixed, so that a finding is found again. `MUTATIONS` is the share of the suite; more were run once.
"""

import asyncio
import gzip
import json
import random
from collections.abc import AsyncIterator
from functools import partial

import aiohttp
import pytest
from msgspec import Struct, structs

from shared.contracts.streams import CONFIG
from shared.http import bodies, web_server
from shared.http.bodies import TransferRate
from shared.http.routes import Query, Route
from shared.http.server import Call
from shared.runtime.settings import Settings
from shared.service import Mesh, RunningService, Service
from support.run_service import running

MUTATIONS = 160
AT_ONCE = 20
WAIT_S = 3.0


class Thing(Struct, forbid_unknown_fields=True):
    size: int
    names: tuple[str, ...] = ()


async def echo(call: Call[None]) -> Thing:
    thing: Thing = call.body
    return thing


async def build(mesh: Mesh) -> None:
    return None


ROUTES = (
    Route(
        "POST",
        "/v1/apps/{app_key}/things/{id}",
        echo,
        "Echo",
        body=Thing,
        reply=Thing,
        query={"strict": Query("All or nothing", bool, False), "after": "Where to begin"},
    ),
)


@pytest.fixture
async def served(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[RunningService]:
    """A toy that waits for the rest of a request for moments only."""
    monkeypatch.setattr(web_server, "HEADERS_S", WAIT_S)
    monkeypatch.setattr(web_server, "SWEEP_S", WAIT_S / 4)
    monkeypatch.setattr(web_server, "LINGERING_S", WAIT_S / 4)
    monkeypatch.setattr(bodies, "TransferRate", partial(TransferRate, grace_s=WAIT_S))
    service = Service(name="toy", build=build, routes=ROUTES, buckets=(CONFIG,))
    async with running(service, structs.replace(settings, http_keepalive_s=WAIT_S)) as served:
        yield served


def whole_requests(token: str) -> list[bytes]:
    """Good requests: plain, packed, in chunks, two in a row, and one that waits to be asked for its body."""
    body = b'{"size": 7, "names": ["a", "\\u00fc"]}'
    packed = gzip.compress(body)
    start = f"POST /v1/apps/shop/things/a?strict=true&after=%C3%BC HTTP/1.1\r\nHost: x\r\nAuthorization: {token}\r\n"
    head = start.encode()
    plain = head + b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
    chunks = b"5\r\n%b\r\n%x\r\n%b\r\n0\r\n\r\n" % (body[:5], len(body) - 5, body[5:])
    return [
        plain,
        head + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n%b" % (len(packed), packed),
        head + b"Transfer-Encoding: chunked\r\n\r\n" + chunks,
        head + b"Expect: 100-continue\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body),
        plain + b"GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /metrics?x=%41&x HTTP/1.0\r\n\r\n",
    ]


def mutated(request: bytes, at_random: random.Random) -> bytes:
    """Flip, delete, repeat, insert or cut, one to four times."""
    for _ in range(at_random.randint(1, 4)):
        first = at_random.randrange(len(request) + 1)
        last = min(len(request), first + at_random.randint(1, 12))
        part = request[first:last]
        put = at_random.choice(
            [
                bytes(byte ^ (1 << at_random.randrange(8)) for byte in part),
                b"",
                part * at_random.randint(2, 40),
                part + at_random.randbytes(at_random.randint(1, 12)),
                part + at_random.choice([b"\r\n", b"\n", b"\0", b"\xff", b":", b"9" * 30, b"%", b"\r\n\r\n"]),
            ]
        )
        request = request[:first] + put + (request[last:] if at_random.random() < 0.9 else b"")
    return request


async def send(served: RunningService, request: bytes) -> bytes:
    """The answer until the service ends the connection."""
    host, port = served.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        writer.write(request)
        async with asyncio.timeout(40):
            return await reader.read()
    except ConnectionError:
        return b""
    finally:
        writer.close()


async def test_whole_requests_are_answered(served: RunningService, shop: dict[str, str]) -> None:
    statuses = [(await send(served, one)).split(b"\r\n")[0] for one in whole_requests(shop["Authorization"])]

    assert [b"200", b"200", b"200", b"100", b"200", b"400"] == [status.split()[1] for status in statuses]


@pytest.mark.parametrize("seed", range(4))
async def test_damaged_request_is_answered_in_the_one_form_or_closed(
    served: RunningService, shop: dict[str, str], seed: int
) -> None:
    at_random = random.Random(seed)
    whole = whole_requests(shop["Authorization"])
    requests = [mutated(at_random.choice(whole), at_random) for _ in range(MUTATIONS // 4)]
    answers: list[bytes] = []
    for first in range(0, len(requests), AT_ONCE):
        answers += await asyncio.gather(*(send(served, request) for request in requests[first : first + AT_ONCE]))

    for request, answer in zip(requests, answers, strict=True):
        if answer := answer.removeprefix(b"HTTP/1.1 100 Continue\r\n\r\n"):
            assert answer.startswith(b"HTTP/1."), request
            status = int(answer.split()[1])
            assert status < 500, request
            if status >= 400:
                # A second answer may follow.
                told, _ = json.JSONDecoder().raw_decode(answer.partition(b"\r\n\r\n")[2].decode())
                assert {"code", "message"} <= set(told["error"]), request
    assert sum(map(bool, answers)) > len(requests) / 4
    async with aiohttp.ClientSession(served.url) as http, http.get("/metrics") as metrics:
        assert 'millrace_bugs_total{where="http"}' not in await metrics.text()
