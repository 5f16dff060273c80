"""One suite for every place that `storage.providers` lists. A provider without a place to be tested in fails it."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, get_args

import aiohttp
import pytest
import pytest_asyncio

from shared.aws.clients import AwsClients
from shared.config.secret import Secret
from shared.errors import BusyError, NotFoundError
from shared.outgoing.door import Outgoing
from storage.content.body import SPOOL_BYTES, Bodies, Body, body_of
from storage.placement.failover import CACHE_CONTROL, ObjectHeaders, Provider
from storage.providers import ProviderConfig
from storage.providers.amazon import AmazonStorageConfig
from storage.providers.azure import AzureStorageConfig
from storage.providers.local import LocalConfig, LocalProvider
from storage.uploads.object_keys import object_key
from support.outgoing import aws_clients, open_outgoing
from support.servers.azurite import AzuriteServer
from support.servers.moto import MotoServer

PROVIDERS: tuple[type[Any], ...] = get_args(ProviderConfig)
PLACES = {AmazonStorageConfig: "amazon_place", AzureStorageConfig: "azure_place", LocalConfig: "local_place"}
"""For each provider the fixture that opens one on an empty place."""

HEADERS = ObjectHeaders(content_type="application/pdf", content_disposition='attachment; filename="bill.pdf"')
ID = "0123456789abcdef" * 4


@pytest.fixture
async def local_place(tmp_path: Path) -> AsyncIterator[Provider]:
    config = LocalConfig(objects=tmp_path / "objects", names=tmp_path / "names", base_url="http://media.example/cdn")
    async with config.open() as provider:
        yield provider


@pytest.fixture
async def aws() -> AsyncIterator[AwsClients]:
    async with aws_clients() as clients:
        yield clients


@pytest.fixture
async def outgoing() -> AsyncIterator[Outgoing]:
    async with open_outgoing() as outgoing:
        yield outgoing


@pytest.fixture
async def amazon_place(moto: MotoServer, aws: AwsClients, outgoing: Outgoing) -> AsyncIterator[Provider]:
    await moto.create_bucket("media", public=True)
    config = AmazonStorageConfig(
        access_key="testing",
        secret_key=Secret("testing"),
        bucket_name="media",
        region=moto.region,
        endpoint_url=moto.url,
        prefix="p",
    )
    async with config.open(outgoing=outgoing, aws=aws) as provider:
        yield provider


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def azurite() -> AsyncIterator[AzuriteServer]:
    if AzuriteServer.installed() is None:
        pytest.skip("Azurite is not installed: `npm install --prefix .azurite azurite`")
    async with AzuriteServer() as server:
        yield server


@pytest.fixture
async def azure_place(
    azurite: AzuriteServer, aws: AwsClients, outgoing: Outgoing, request: pytest.FixtureRequest
) -> AsyncIterator[Provider]:
    container = f"c{abs(hash(request.node.nodeid)):x}"
    await azurite.create_container(container, public=True)
    config = AzureStorageConfig(
        account_name=azurite.account_name,
        account_key=azurite.account_key,
        container_name=container,
        blob_endpoint=azurite.endpoint,
        prefix="p",
    )
    async with config.open(outgoing=outgoing, aws=aws) as provider:
        yield provider


@pytest.fixture(params=PROVIDERS, ids=lambda kind: kind.__name__)
def provider(request: pytest.FixtureRequest) -> Provider:
    place: Provider = request.getfixturevalue(PLACES[request.param])
    return place


def key_of(provider: Provider, id: str = ID) -> str:
    return object_key(provider.prefix, "shop", "attachment", id, "pdf")


async def served(provider: Provider, key: str) -> tuple[bytes, ObjectHeaders] | None:
    """The public response at the URL; for the local directory, the content that its route would serve."""
    if isinstance(provider, LocalProvider):
        try:
            found = await provider.find(key)
        except NotFoundError:
            return None
        return found.path.read_bytes(), found.headers
    async with aiohttp.ClientSession() as http, http.get(provider.url(key)) as answer:
        if answer.status == 404:
            return None
        assert 200 == answer.status
        return await answer.read(), ObjectHeaders(
            content_type=answer.headers["Content-Type"],
            content_disposition=answer.headers["Content-Disposition"],
            cache_control=answer.headers["Cache-Control"],
        )


async def bytes_served(provider: Provider, key: str) -> bytes:
    found = await served(provider, key)
    assert found is not None
    return found[0]


@pytest.fixture(params=["in memory", "on disk"])
async def body(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Body]:
    """A body wherever uploads keep one."""
    if request.param == "in memory":
        yield body_of(b"%PDF-1.7 of a few bytes")
        return

    async def pieces() -> AsyncIterator[bytes]:
        for number in range(9):
            yield bytes([number]) * (1 << 20)
        yield b"the end"

    async with Bodies(tmp_path / "uploads", memory_bytes=1 << 30).receive("acme", pieces(), 2 * SPOOL_BYTES) as large:
        assert large.data is None
        yield large


async def test_object_is_served_as_it_was_put(provider: Provider, body: Body) -> None:
    new = await provider.put_if_absent(key_of(provider), body, HEADERS)

    assert new
    assert (body.read(), HEADERS) == await served(provider, key_of(provider))
    assert CACHE_CONTROL == HEADERS.cache_control


async def test_second_put_reports_an_existing_object_and_changes_nothing(provider: Provider, body: Body) -> None:
    await provider.put_if_absent(key_of(provider), body_of(b"first"), HEADERS)

    assert not await provider.put_if_absent(key_of(provider), body, HEADERS)
    assert b"first" == await bytes_served(provider, key_of(provider))


async def test_puts_at_once_leave_one_whole_object(provider: Provider) -> None:
    content = body_of(b"x" * 100_000)
    outcomes = await asyncio.gather(
        *(provider.put_if_absent(key_of(provider), content, HEADERS) for _ in range(8)), return_exceptions=True
    )

    # S3 may tell a writer that another is at it; nothing worse happens.
    assert {type(outcome) for outcome in outcomes} <= {bool, BusyError}
    assert outcomes.count(True) >= 1
    assert b"x" * 100_000 == await bytes_served(provider, key_of(provider))


async def test_deleted_object_is_served_no_more_and_may_be_put_again(provider: Provider) -> None:
    key = key_of(provider)
    await provider.put_if_absent(key, body_of(b"first"), HEADERS)

    await provider.delete(key)
    assert None is await served(provider, key)

    assert await provider.put_if_absent(key, body_of(b"second"), HEADERS)
    assert b"second" == await bytes_served(provider, key)


async def test_object_that_is_not_there_counts_as_deleted(provider: Provider) -> None:
    await provider.delete(key_of(provider))


def test_url_ends_with_the_key_and_holds_no_credential(provider: Provider) -> None:
    url = provider.url(key_of(provider))

    assert url.endswith(f"/{key_of(provider)}")
    assert "?" not in url
    assert "testing" not in url


def test_place_identifies_a_store_and_holds_no_credential(provider: Provider) -> None:
    assert provider.place == "local" or "://" in provider.place
    assert "testing" not in provider.place


async def test_cancelled_put_ends_at_once_and_is_no_failure_of_the_provider(provider: Provider, body: Body) -> None:
    putting = asyncio.ensure_future(provider.put_if_absent(key_of(provider), body, HEADERS))
    await asyncio.sleep(0)
    putting.cancel()

    with pytest.raises(asyncio.CancelledError):
        await putting
