"""The Azure Storage connector, on Azurite: storing objects, changes of it, and Test Connection."""

from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import msgspec
import pytest
import pytest_asyncio

from shared.contracts import streams, subjects
from shared.contracts.connection_report import ConnectionReport
from shared.contracts.messages import decode
from shared.messaging.bus import Bus
from shared.runtime.settings import Settings
from storage.handlers import ProbeStorageConnector
from support.clients.storage import PHOTO, form, objects, stored, upload
from support.servers.azurite import AzuriteServer
from support.servers.moto import MotoServer

CONNECTOR = "/v1/apps/shop/connectors/azure-storage"
STEPS = ["fields", "reach", "region", "put", "get", "public_url", "cors", "delete"]
WRONG_KEY = "d3Jvbmcga2V5IG9mIHNob3A="


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def azurite() -> AsyncIterator[AzuriteServer]:
    if AzuriteServer.installed() is None:
        pytest.skip("Azurite is not installed: `npm install --prefix .azurite azurite`")
    async with AzuriteServer() as server:
        yield server


@pytest.fixture
async def container(azurite: AzuriteServer, request: pytest.FixtureRequest) -> str:
    """An empty public container, which pages of any origin may read."""
    name = f"c{abs(hash(request.node.nodeid)):x}"
    await azurite.create_container(name, public=True)
    await azurite.allow_origins("*")
    return name


def connector(azurite: AzuriteServer, container: str, **changed: Any) -> dict[str, Any]:
    return {
        "account_name": azurite.account_name,
        "account_key": azurite.account_key.reveal(),
        "container_name": container,
        "blob_endpoint": azurite.endpoint,
    } | changed


async def put(http: aiohttp.ClientSession, headers: dict[str, str], value: dict[str, Any]) -> None:
    async with http.put(CONNECTOR, json=value, headers=headers) as answer:
        assert 200 == answer.status, await answer.text()


async def probed(http: aiohttp.ClientSession, headers: dict[str, str], form: dict[str, Any] | None) -> ConnectionReport:
    async with http.post(f"{CONNECTOR}/test", json=form, headers=headers) as answer:
        body = await answer.read()
        assert 200 == answer.status, body
    assert AzuriteServer.account_key.reveal().encode() not in body
    return decode(body, ConnectionReport)


def statuses(report: ConnectionReport) -> dict[str, str]:
    assert STEPS == [step.name for step in report.steps]
    return {step.name: step.status for step in report.steps}


async def test_objects_go_to_the_container_with_their_headers_and_urls(
    http: aiohttp.ClientSession, shop: dict[str, str], azurite: AzuriteServer, container: str, settings: Settings
) -> None:
    await put(http, shop, connector(azurite, container, prefix="campaigns"))

    first, again = await stored(http, shop, form()), await stored(http, shop, form())

    assert first.original == again.original
    assert "azure-storage" == first.provider
    assert first.original.key.startswith("campaigns/shop/message-image/")
    assert first.original.key in await azurite.names(container)
    assert f"{azurite.endpoint}/{container}/{first.original.key}" == first.original.url
    async with aiohttp.ClientSession() as session, session.get(first.original.url) as answer:
        assert PHOTO == await answer.read()
        assert "image/jpeg" == answer.headers["Content-Type"]
        assert "public, max-age=31536000, immutable" == answer.headers["Cache-Control"]
        assert "inline" == answer.headers["Content-Disposition"]
    assert [] == objects(settings)


async def test_key_is_never_returned(
    http: aiohttp.ClientSession, shop: dict[str, str], azurite: AzuriteServer, container: str, bus: Bus
) -> None:
    await put(http, shop, connector(azurite, container))

    async with http.get(CONNECTOR, headers=shop) as answer:
        shown = await answer.json()
    assert "***" == shown["account_key"]
    left_out = connector(azurite, container, prefix="p")
    del left_out["account_key"]
    await put(http, shop, left_out)
    entry = await bus.last_message(streams.CONFIG, "$KV.CONFIG.connectors.shop.azure-storage")
    assert entry is not None
    assert azurite.account_key.reveal().encode() not in entry.data
    assert "azure-storage" == (await stored(http, shop, form())).provider


async def test_amazon_takes_precedence_while_both_are_active(
    http: aiohttp.ClientSession, shop: dict[str, str], azurite: AzuriteServer, container: str, moto: MotoServer
) -> None:
    await moto.create_bucket("media", public=True)
    amazon = {"access_key": "testing", "secret_key": "s", "bucket_name": "media", "region": moto.region}
    path = CONNECTOR.replace("azure", "amazon")
    await put(http, shop, connector(azurite, container))
    for active, expected in ((True, "amazon-storage"), (False, "azure-storage")):
        value = amazon | {"endpoint_url": moto.url, "active": active}
        async with http.put(path, json=value, headers=shop) as answer:
            assert 200 == answer.status

        assert expected == (await stored(http, shop, form(b"%PDF-1.7", kind="attachment"))).provider


async def test_connector_that_cannot_be_right_is_not_saved(
    http: aiohttp.ClientSession, shop: dict[str, str], azurite: AzuriteServer
) -> None:
    pasted = f"AccountName=shop;AccountKey={WRONG_KEY}"
    for changed in ({"container_name": "No"}, {"account_key": "no key"}, {"account_name": pasted}):
        async with http.put(CONNECTOR, json=connector(azurite, "media") | changed, headers=shop) as answer:
            problem = await answer.json()

        assert [(400, problem["error"]["field"])] == [(answer.status, field) for field in changed]
        assert WRONG_KEY not in str(problem)


async def test_refused_key_fails_the_upload_without_failover(
    http: aiohttp.ClientSession, shop: dict[str, str], azurite: AzuriteServer, container: str, settings: Settings
) -> None:
    await put(http, shop, connector(azurite, container, account_key=WRONG_KEY))

    status, body = await upload(http, shop, form())

    # Azurite says AuthorizationFailure where Azure says AuthenticationFailed.
    assert (403, "denied") == (status, msgspec.json.decode(body)["error"]["code"])
    assert WRONG_KEY.encode() not in body
    assert [] == objects(settings)
    assert [] == await azurite.names(container)


async def test_connection_passes_when_everything_is_right_and_leaves_nothing_behind(
    http: aiohttp.ClientSession, shop: dict[str, str], azurite: AzuriteServer, container: str
) -> None:
    report = await probed(http, shop, connector(azurite, container, prefix="p"))

    assert dict.fromkeys(STEPS, "ok") == statuses(report)
    assert "ok" == report.status
    assert [] == await azurite.names(container)


async def test_connection_of_the_saved_connector_needs_no_form(
    http: aiohttp.ClientSession, shop: dict[str, str], azurite: AzuriteServer, container: str, bus: Bus
) -> None:
    async with http.post(f"{CONNECTOR}/test", headers=shop) as answer:
        assert 404 == answer.status
    await put(http, shop, connector(azurite, container))

    async with http.post(f"{CONNECTOR}/test", headers=shop) as answer:
        by_http = decode(await answer.read(), ConnectionReport)
    masked = connector(azurite, "other", account_key="***")
    subject = subjects.connector_test("storage")
    saved = ProbeStorageConnector(app_key="shop", kind="azure-storage")
    by_nats = await bus.request(subject, saved, ConnectionReport, timeout_s=12)
    entered = ProbeStorageConnector(app_key="shop", kind="azure-storage", config=masked)
    of_form = await bus.request(subject, entered, ConnectionReport, timeout_s=12)

    assert "ok" == by_http.status == by_nats.status
    assert "ContainerNotFound" == of_form.steps[3].code


async def test_connection_reports_a_missing_container(
    http: aiohttp.ClientSession, shop: dict[str, str], azurite: AzuriteServer
) -> None:
    report = await probed(http, shop, connector(azurite, "nobodys"))

    put_step = report.steps[3]
    assert ("failed", "ContainerNotFound", 404) == (put_step.status, put_step.code, put_step.http_status)
    assert "The container does not exist." == put_step.hint


async def test_connection_reports_a_wrong_key(
    http: aiohttp.ClientSession, shop: dict[str, str], azurite: AzuriteServer, container: str
) -> None:
    report = await probed(http, shop, connector(azurite, container, account_key=WRONG_KEY))

    assert {"reach": "ok", "put": "failed", "get": "skipped"}.items() <= statuses(report).items()
    assert (403, "AuthorizationFailure") == (report.steps[3].http_status, report.steps[3].code)
    assert report.steps[3].hint
    assert WRONG_KEY not in str(report)


async def test_connection_reports_a_container_that_is_not_public(
    http: aiohttp.ClientSession, shop: dict[str, str], azurite: AzuriteServer
) -> None:
    await azurite.create_container("private")

    report = await probed(http, shop, connector(azurite, "private"))

    assert dict.fromkeys(STEPS, "ok") | {"public_url": "failed", "cors": "skipped"} == statuses(report)
    public = report.steps[5]
    assert public.http_status in {401, 403, 404}
    assert public.hint is not None
    assert "access level Blob" in public.hint
    assert [] == await azurite.names("private")


async def test_connection_warns_when_pages_of_other_origins_are_excluded(
    http: aiohttp.ClientSession, shop: dict[str, str], azurite: AzuriteServer, container: str
) -> None:
    await azurite.allow_origins("https://shop.example")

    report = await probed(http, shop, connector(azurite, container))

    assert dict.fromkeys(STEPS, "ok") | {"cors": "warning"} == statuses(report)
    assert "warning" == report.status


async def test_connection_reports_an_unknown_account_name(
    http: aiohttp.ClientSession, shop: dict[str, str], azurite: AzuriteServer
) -> None:
    value = connector(azurite, "media", account_name="nobodys", blob_endpoint="", endpoint_suffix="store.invalid")

    report = await probed(http, shop, value)

    assert ("failed", "HostNotFound") == (report.steps[1].status, report.steps[1].code)
    assert report.steps[1].hint is not None
    assert "account_name" in report.steps[1].hint
