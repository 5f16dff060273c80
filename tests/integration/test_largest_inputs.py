"""The largest inputs of routes: none holds the event loop. The tests of hooks have those of `POST …/events`."""

import asyncio
import io
import json
import os
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import aiohttp
import pytest
from PIL import Image

from exporter.app import SERVICE as EXPORTER
from ftp_gateway.app import SERVICE as FTP_GATEWAY
from ftp_gateway.parsing.profile_txt import MAX_ATTRIBUTES
from hooks.app import SERVICE as HOOKS
from shared.http.server import JSON_BODY_BYTES
from shared.service import RunningService, Service
from storage.app import SERVICE as STORAGE
from support.loop_watch import HELD_S, LoopWatch
from support.run_service import RunService
from support.servers.moto import MotoServer

SHOP = "/v1/apps/shop"
Ask = Callable[..., Any]


@pytest.fixture
async def served(request: pytest.FixtureRequest, run_service: RunService) -> AsyncIterator[RunningService]:
    async with run_service(request.param) as served:
        yield served


def of(service: Service) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("served", [service], indirect=True, ids=[service.name])


async def ask(
    served: RunningService, headers: Mapping[str, str], method: str, path: str, body: object, *, kind: str = ""
) -> tuple[int, Any]:
    """Send a request from a loop of its own, so that only the service's work counts. Returns status and answer."""
    sent = body if isinstance(body, bytes) else json.dumps(body).encode()
    content_type = {"Content-Type": kind or "application/json"}

    async def run() -> tuple[int, Any]:
        async with (
            aiohttp.ClientSession(served.url, headers=headers) as http,
            # As a file, because aiohttp warns of large bodies in one piece.
            http.request(method, f"{SHOP}{path}", data=io.BytesIO(sent), headers=content_type) as answer,
        ):
            told = await answer.read()
            return answer.status, json.loads(told) if answer.content_type == "application/json" else told

    return await asyncio.to_thread(asyncio.run, run())


async def assert_holds_nothing(
    served: RunningService, headers: Mapping[str, str], status: int, method: str, path: str, body: object, **more: Any
) -> None:
    async with LoopWatch() as watch:
        found, told = await ask(served, headers, method, path, body, **more)
    assert found == status, str(told)[:500]
    assert watch.held_s < HELD_S, watch.holder


def hook(codes: object = "*", **changed: object) -> dict[str, object]:
    return {"name": "n", "stream_name": "orders", "trigger_type": "EVENT", "event_code": codes, **changed}


@of(HOOKS)
async def test_hooks_with_all_codes_that_an_app_may_have(served: RunningService, shop: dict[str, str]) -> None:
    for number in range(99):
        codes = [f"{number}-{code}-{'x' * 100}" for code in range(100)]
        found, told = await ask(served, shop, "PUT", f"/hooks/h{number}", hook(codes))
        assert found == 200, told

    await assert_holds_nothing(
        served, shop, 200, "PUT", "/hooks/last", hook([f"last-{code}-{'x' * 100}" for code in range(100)])
    )


def deep(levels: int) -> object:
    value: object = 1
    for _ in range(levels):
        value = [value]
    return value


EVENTS: dict[str, dict[str, object]] = {
    "one long text": {"a": "x" * 900_000},
    "many attributes": {f"a{number}": number for number in range(15_000)},
    "a long list": {"a": list(range(15_000))},
    "nested": {f"a{number}": deep(30) for number in range(600)},
}


@of(HOOKS)
@pytest.mark.parametrize("attributes", EVENTS.values(), ids=EVENTS)
async def test_previews(served: RunningService, shop: dict[str, str], attributes: dict[str, object]) -> None:
    await ask(served, shop, "PUT", "/hooks/all", hook(active=False))
    event = {"code": "c", "user_id": "u", "attributes": attributes}

    await assert_holds_nothing(served, shop, 200, "POST", "/hooks/all/preview", {"event": event})


def picture() -> bytes:
    """40 megapixels, and 5 MB of noise at the top."""
    whole = Image.new("RGB", (6300, 6300))
    whole.paste(Image.frombytes("RGB", (6300, 250), os.urandom(6300 * 250 * 3)))
    file = io.BytesIO()
    whole.save(file, "PNG", compress_level=1)
    return file.getvalue()


UPLOADS: dict[str, tuple[str, str, Callable[[], bytes]]] = {
    "a picture": ("/media?kind=message-image", "image/png", picture),
    "an attachment": ("/media?kind=attachment", "application/pdf", lambda: b"%PDF-1.7\n" + os.urandom(24 << 20)),
}


@of(STORAGE)
@pytest.mark.parametrize(("path", "kind", "content"), UPLOADS.values(), ids=UPLOADS)
async def test_uploads(
    served: RunningService, shop: dict[str, str], path: str, kind: str, content: Callable[[], bytes]
) -> None:
    await assert_holds_nothing(served, shop, 201, "PUT", path, content(), kind=kind)


def export(moto: MotoServer, **changed: object) -> dict[str, object]:
    destination = {
        "type": "s3",
        "access_key": "testing",
        "secret_key": "testing-secret",
        "bucket": "media",
        "directory": "clicks",
        "region": moto.region,
        "endpoint_url": moto.url,
    }
    return {"data": "clicks", "destination": destination, "frequency": 60, **changed}


@of(FTP_GATEWAY)
async def test_rules_with_the_most_attributes(served: RunningService, shop: dict[str, str]) -> None:
    attributes = {f"a{number}": "string" for number in range(MAX_ATTRIBUTES)}

    await assert_holds_nothing(served, shop, 200, "PUT", "", {"profile_attributes": attributes})


FORMS = (
    (400, b'{"a":[' + b"1," * 19_000 + b"1]}"),
    (413, b"[" * 500_000),
    (400, b'{"name":"' + b"\\u0061" * 170_000 + b'"}'),
)
"""Numbers, levels, and a text of escapes, each with the status of its answer."""


@pytest.mark.parametrize(
    ("served", "paths"),
    [
        (HOOKS, ("/hooks/x", "/connectors/kinesis")),
        (STORAGE, ("/connectors/amazon-storage", "/connectors/azure-storage")),
        (EXPORTER, ("/exports/x",)),
        (FTP_GATEWAY, ("", "/remotes/x", "/ftp-users/x")),
    ],
    indirect=["served"],
    ids=["hooks", "storage", "exporter", "ftp-gateway"],
)
async def test_forms_of_the_largest_size(served: RunningService, shop: dict[str, str], paths: tuple[str, ...]) -> None:
    for path in paths:
        for status, body in FORMS:
            assert len(body) <= JSON_BODY_BYTES
            await assert_holds_nothing(served, shop, status, "PUT", path, body)


@pytest.mark.parametrize(
    ("served", "path", "form"),
    [
        (HOOKS, "/connectors/kinesis/test", {"api_key": "AKIATESTINGTESTING00", "stream_name": "orders"}),
        (STORAGE, "/connectors/amazon-storage/test", {"access_key": "testing", "bucket_name": "media"}),
        (EXPORTER, "/exports/x/test", None),
    ],
    indirect=["served"],
    ids=["kinesis", "amazon-storage", "export"],
)
async def test_test_connections(
    served: RunningService, shop: dict[str, str], moto: MotoServer, path: str, form: dict[str, str] | None
) -> None:
    await moto.create_bucket("media")
    await moto.create_stream("orders")
    at_moto = {"region": moto.region, "secret_key": "testing-secret", "endpoint_url": moto.url}

    await assert_holds_nothing(served, shop, 200, "POST", path, export(moto) if form is None else {**form, **at_moto})


@of(FTP_GATEWAY)
async def test_test_connection_of_a_remote(served: RunningService, shop: dict[str, str]) -> None:
    host, _, port = served.mesh.addresses["sftp"].rpartition(":")
    remote = {"protocol": "sftp", "host": host, "port": int(port), "username": "shop.x", "password": "y", "path": "."}

    await assert_holds_nothing(served, shop, 200, "POST", "/remotes/x/test", remote)
