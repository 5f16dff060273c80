"""Failover: another provider replaces one with an outage, a refusal is not hidden, and each raises one alert."""

import os
import socket
from collections.abc import Iterator
from typing import Any

import aiohttp
import msgspec
import pytest

from shared.contracts import streams
from shared.contracts.messages import Alert, decode
from shared.messaging.bus import Bus
from shared.runtime.settings import Settings
from storage.app import SERVICE
from support.clients.storage import PHOTO, connect, form, objects, stored, upload
from support.run_service import running
from support.servers.moto import MotoServer
from support.servers.stub_store import Fault, StubStore, stub_connector
from support.stored_messages import messages

CONNECTOR = "/v1/apps/shop/connectors/amazon-storage"


@pytest.fixture
def unreachable() -> Iterator[str]:
    """An address that accepts no connection."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{bound.getsockname()[1]}"


async def alerts(bus: Bus) -> list[tuple[str, str]]:
    sent = [decode(message.data, Alert) for message in await messages(bus, streams.ALERTS, "alerts.storage.shop.*")]
    return [(alert.kind, alert.subject) for alert in sent]


async def shown(http: aiohttp.ClientSession, path: str, headers: dict[str, str] | None = None) -> tuple[int, Any]:
    async with http.get(path, headers=headers) as answer:
        return answer.status, msgspec.json.decode(await answer.read())


async def test_objects_go_to_the_next_provider_while_the_first_cannot_be_reached(
    http: aiohttp.ClientSession, shop: dict[str, str], moto: MotoServer, unreachable: str, bus: Bus, settings: Settings
) -> None:
    await moto.create_bucket("media", public=True)
    await connect(http, shop, moto, endpoint_url=unreachable)

    first, second = await stored(http, shop, form()), await stored(http, shop, form())

    assert [("local", True)] * 2 == [(reply.provider, reply.failed_over) for reply in (first, second)]
    assert 2 == len(objects(settings))
    assert [("provider-down", "amazon-storage")] == await alerts(bus)
    _, statuses = await shown(http, "/v1/apps/shop/providers", shop)
    assert ["down", "ok"] == [provider["state"] for provider in statuses["providers"]]
    assert (200, {"amazon-storage": "down for 1 app"}) == (
        (readiness := await shown(http, "/readyz"))[0],
        readiness[1]["degraded"],
    )

    await connect(http, shop, moto)
    back = await stored(http, shop, form())

    assert ("amazon-storage", False) == (back.provider, back.failed_over)
    assert [("provider-down", "amazon-storage"), ("provider-recovered", "amazon-storage")] == await alerts(bus)


async def test_revoked_key_fails_uploads_alerts_once_and_a_new_one_works_at_once(
    http: aiohttp.ClientSession, shop: dict[str, str], moto: MotoServer, bus: Bus, settings: Settings
) -> None:
    await moto.create_bucket("media", public=True)
    user = await moto.create_user("media", actions=["s3:*"])
    good = {"access_key": user.access_key_id, "secret_key": user.secret_access_key.reveal()}
    await connect(http, shop, moto)
    before = await stored(http, shop, form())
    await moto.demand_real_keys()

    for _ in range(3):
        status, body = await upload(http, shop, form(b"a file", kind="file"))
        error = msgspec.json.decode(body)["error"]
        assert (424, "credentials") == (status, error["code"])
        assert "InvalidAccessKeyId" in error["message"]

    assert [] == objects(settings)
    assert [("provider-refuses", "amazon-storage")] == await alerts(bus)
    status, readiness = await shown(http, "/readyz")
    assert (200, {"amazon-storage": "refuses for 1 app"}) == (status, readiness["degraded"])

    await connect(http, shop, moto, **good)
    assert "amazon-storage" == (await stored(http, shop, form(b"a file", kind="file"))).provider
    assert ["provider-refuses", "provider-recovered"] == [kind for kind, _ in await alerts(bus)]
    assert "degraded" not in (await shown(http, "/readyz"))[1]
    # moto cannot let everybody read while it demands keys.
    await moto.demand_real_keys(False)
    async with http.get(before.original.url) as answer:
        assert PHOTO == await answer.read()


async def save(http: aiohttp.ClientSession, headers: dict[str, str], kind: str, config: Any) -> None:
    value = msgspec.json.decode(msgspec.json.encode(config, enc_hook=lambda secret: secret.reveal()))
    async with http.put(f"/v1/apps/shop/connectors/{kind}", json=value, headers=headers) as answer:
        assert 200 == answer.status, await answer.text()


@pytest.mark.parametrize(
    "fault",
    [
        Fault(status=500, code="InternalError"),
        Fault(status=503, code="SlowDown"),
        Fault(status=503, code="ServiceUnavailable"),
        Fault(deed="close"),
        Fault(deed="garbage"),
    ],
    ids=lambda fault: fault.code or fault.deed,
)
async def test_azure_replaces_s3_during_an_outage(
    fault: Fault, http: aiohttp.ClientSession, shop: dict[str, str], bus: Bus, settings: Settings
) -> None:
    async with StubStore("s3") as amazon, StubStore("azure") as azure:
        await save(http, shop, "amazon-storage", stub_connector(amazon))
        await save(http, shop, "azure-storage", stub_connector(azure))
        before = await stored(http, shop, form(b"before", kind="file"))
        amazon.fault = fault

        reply = await stored(http, shop, form())

        assert ("amazon-storage", False) == (before.provider, before.failed_over)
        assert ("azure-storage", True) == (reply.provider, reply.failed_over)
        assert {f"/stub/media/{reply.original.key}"} <= set(azure.objects)
        assert [("provider-down", "amazon-storage")] == await alerts(bus)
        assert [] == objects(settings)


@pytest.mark.parametrize(
    ("fault", "status"),
    [
        (Fault(status=403, code="AccessDenied"), 403),
        (Fault(status=403, code="SignatureDoesNotMatch"), 424),
        (Fault(status=403, code="RequestTimeTooSkewed"), 424),
        (Fault(status=404, code="NoSuchBucket"), 424),
        (Fault(status=301, code="PermanentRedirect"), 424),
    ],
    ids=lambda case: case.code if isinstance(case, Fault) else "",
)
async def test_azure_does_not_hide_what_s3_refuses(
    fault: Fault, status: int, http: aiohttp.ClientSession, shop: dict[str, str], bus: Bus
) -> None:
    async with StubStore("s3") as amazon, StubStore("azure") as azure:
        await save(http, shop, "amazon-storage", stub_connector(amazon))
        await save(http, shop, "azure-storage", stub_connector(azure))
        amazon.fault = fault

        answered, body = await upload(http, shop, form())

        assert status == answered
        assert fault.code in msgspec.json.decode(body)["error"]["message"] or fault.status == 301
        assert {} == azure.objects
        assert [("provider-refuses", "amazon-storage")] == await alerts(bus)


async def test_large_body_goes_in_parts_and_is_not_sent_twice(
    http: aiohttp.ClientSession, shop: dict[str, str], moto: MotoServer
) -> None:
    await moto.create_bucket("media", public=True)
    await connect(http, shop, moto)
    content = os.urandom(9 << 20)

    first = await stored(http, shop, form(content, kind="attachment"))
    again = await stored(http, shop, form(content, kind="attachment"))

    assert first == again
    async with http.get(first.original.url) as answer:
        assert content == await answer.read()
        assert "public, max-age=31536000, immutable" == answer.headers["Cache-Control"]
    async with moto.client("s3") as s3:
        about = await s3.head_object(Bucket="media", Key=first.original.key)
    assert about["ETag"].strip('"').endswith("-2")


async def test_outage_of_one_tenant_does_not_affect_another(
    http: aiohttp.ClientSession, shop: dict[str, str], rival: dict[str, str], moto: MotoServer, unreachable: str
) -> None:
    await connect(http, shop, moto, endpoint_url=unreachable)
    for _ in range(3):
        await stored(http, shop, form())

    async with http.post("/v1/apps/rival/media", data=form(), headers=rival) as answer:
        reply = await answer.json()

    assert ("local", 201) == (reply["provider"], answer.status)
    assert "failed_over" not in reply


async def test_deleted_bucket_is_a_fault_of_the_connector(
    http: aiohttp.ClientSession, shop: dict[str, str], moto: MotoServer, bus: Bus, settings: Settings
) -> None:
    await connect(http, shop, moto)

    status, body = await upload(http, shop, form())

    assert (424, "credentials") == (status, msgspec.json.decode(body)["error"]["code"])
    assert [("provider-refuses", "amazon-storage")] == await alerts(bus)
    assert [] == objects(settings)


async def test_nothing_is_stored_locally_when_the_operator_disables_it(
    settings: Settings, shop: dict[str, str]
) -> None:
    async with (
        running(SERVICE, msgspec.structs.replace(settings, storage_local=False)) as storage,
        aiohttp.ClientSession(storage.url) as http,
    ):
        status, body = await upload(http, shop, form())

    assert 503 == status
    assert "activate a connector" in msgspec.json.decode(body)["error"]["message"]
    assert [] == objects(settings)
