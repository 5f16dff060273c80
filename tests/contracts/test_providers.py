"""One suite for every place that `storage.providers` lists. A provider without a place to be tested in fails it."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, get_args

import aiohttp
import pytest

from shared.errors import BusyError
from shared.secret_store import Secret
from shared.testing import MotoServer
from storage.providers import ProviderConfig
from storage.providers.amazon import AmazonStorageConfig
from storage.providers.local import LocalConfig, LocalProvider
from storage.uploads import CACHE_CONTROL, Headers, Provider, object_key

PROVIDERS: tuple[type[Any], ...] = get_args(ProviderConfig)
PLACES = {AmazonStorageConfig: "amazon_place", LocalConfig: "local_place"}
"""For each provider the fixture that opens one on an empty place."""

HEADERS = Headers(content_type="application/pdf", content_disposition='attachment; filename="bill.pdf"')
ID = "0123456789abcdef" * 2


@pytest.fixture
async def local_place(tmp_path: Path) -> AsyncIterator[Provider]:
    config = LocalConfig(objects=tmp_path / "objects", names=tmp_path / "names", base_url="http://media.example/cdn")
    async with config.open() as provider:
        yield provider


@pytest.fixture
async def amazon_place(moto: MotoServer) -> AsyncIterator[Provider]:
    await moto.create_bucket("media", public=True)
    config = AmazonStorageConfig(
        access_key="testing",
        secret_key=Secret("testing"),
        bucket_name="media",
        region=moto.region,
        endpoint_url=moto.url,
        prefix="p",
    )
    async with config.open(allow_private=True) as provider:
        yield provider


@pytest.fixture(params=PROVIDERS, ids=lambda kind: kind.__name__)
def provider(request: pytest.FixtureRequest) -> Provider:
    place: Provider = request.getfixturevalue(PLACES[request.param])
    return place


def key_of(provider: Provider, id: str = ID) -> str:
    return object_key(provider.prefix, "shop", "attachment", id, "pdf")


async def served(provider: Provider, key: str) -> tuple[bytes, Headers]:
    """What everybody gets who has the URL; the local directory is asked for what its route would serve."""
    if isinstance(provider, LocalProvider):
        found = await provider.find(key)
        return found.path.read_bytes(), found.headers
    async with aiohttp.ClientSession() as http, http.get(provider.url(key)) as answer:
        assert 200 == answer.status
        return await answer.read(), Headers(
            content_type=answer.headers["Content-Type"],
            content_disposition=answer.headers["Content-Disposition"],
            cache_control=answer.headers["Cache-Control"],
        )


async def test_object_is_served_as_it_was_put(provider: Provider) -> None:
    new = await provider.put_if_absent(key_of(provider), b"%PDF-1.7", HEADERS)

    assert new
    assert (b"%PDF-1.7", HEADERS) == await served(provider, key_of(provider))
    assert CACHE_CONTROL == HEADERS.cache_control


async def test_second_put_is_told_that_it_was_there_and_changes_nothing(provider: Provider) -> None:
    await provider.put_if_absent(key_of(provider), b"first", HEADERS)

    assert not await provider.put_if_absent(key_of(provider), b"second", HEADERS)
    assert b"first" == (await served(provider, key_of(provider)))[0]


async def test_puts_at_once_leave_one_whole_object(provider: Provider) -> None:
    outcomes = await asyncio.gather(
        *(provider.put_if_absent(key_of(provider), b"x" * 100_000, HEADERS) for _ in range(8)), return_exceptions=True
    )

    # S3 may tell a writer that another is at it; nothing worse happens.
    assert {type(outcome) for outcome in outcomes} <= {bool, BusyError}
    assert outcomes.count(True) >= 1
    assert b"x" * 100_000 == (await served(provider, key_of(provider)))[0]


def test_url_ends_with_the_key_and_holds_no_credential(provider: Provider) -> None:
    url = provider.url(key_of(provider))

    assert url.endswith(f"/{key_of(provider)}")
    assert "?" not in url
    assert "testing" not in url
