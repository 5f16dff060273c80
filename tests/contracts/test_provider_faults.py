"""One suite for every provider over a network: the errors of a store that misbehaves, and that nothing hangs."""

import asyncio
import gc
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from shared.errors import (
    BusyError,
    CredentialsError,
    DeniedError,
    InvalidError,
    MillraceError,
    NotFoundError,
    UnavailableError,
)
from shared.objects.config import AzureStoreConfig, S3StoreConfig, StoreLimits
from storage.content.body import SPOOL_BYTES, Bodies, body_of
from storage.placement.failover import ObjectHeaders
from storage.providers.cloud import CloudProvider
from support.outgoing import aws_clients, open_outgoing, open_store
from support.servers.stub_store import SECRET, Fault, StubStore, stub_connector

HEADERS = ObjectHeaders(content_type="image/png", content_disposition="inline")
KEY = "p/shop/file/01/0123.png"
BODY = body_of(b"content")


@pytest.fixture(params=["s3", "azure"])
async def store(request: pytest.FixtureRequest) -> AsyncIterator[StubStore]:
    async with StubStore(request.param) as stub:
        yield stub


@pytest.fixture
async def provider(store: StubStore) -> AsyncIterator[CloudProvider]:
    """As the connector opens it, but for the tries and the time, which are short."""
    connector = stub_connector(store)
    config: S3StoreConfig | AzureStoreConfig
    if store.speaks == "s3":
        config = S3StoreConfig(
            bucket="media",
            region="eu-west-1",
            access_key_id="stub",
            secret_access_key=connector.secret_key,
            endpoint_url=store.url,
        )
    else:
        config = connector.store()
    async with open_store(config, StoreLimits(retries=0)) as objects:
        yield CloudProvider("stub", connector.place, "p", connector.url, objects, answer_s=0.5, s_per_mib=0.01)


async def put(provider: CloudProvider) -> bool:
    return await provider.put_if_absent(KEY, BODY, HEADERS)


FAILURES: dict[str, tuple[Fault, type[MillraceError]]] = {
    "wrong key of s3": (Fault(status=403, code="SignatureDoesNotMatch"), CredentialsError),
    "wrong key of azure": (Fault(status=403, code="AuthenticationFailed"), CredentialsError),
    "denied by s3": (Fault(status=403, code="AccessDenied"), DeniedError),
    "denied by azure": (Fault(status=403, code="AuthorizationFailure"), DeniedError),
    "denied": (Fault(status=403), DeniedError),
    "no bucket": (Fault(status=404, code="NoSuchBucket"), NotFoundError),
    "no container": (Fault(status=404, code="ContainerNotFound"), NotFoundError),
    "redirect": (Fault(status=301, code="PermanentRedirect"), InvalidError),
    "failure": (Fault(status=500, code="InternalError"), UnavailableError),
    "unavailable": (Fault(status=503), UnavailableError),
    "slow down": (Fault(status=503, code="SlowDown"), BusyError),
    "server busy": (Fault(status=503, code="ServerBusy"), BusyError),
    "hang": (Fault(deed="hang"), UnavailableError),
    "close": (Fault(deed="close"), UnavailableError),
    "garbage": (Fault(deed="garbage"), UnavailableError),
}


@pytest.mark.parametrize("name", FAILURES)
async def test_a_failure_becomes_its_kind_in_time(provider: CloudProvider, store: StubStore, name: str) -> None:
    store.fault, kind = FAILURES[name]

    for call in (put(provider), provider.delete(KEY)):
        with pytest.raises(MillraceError) as caught:
            async with asyncio.timeout(5):
                await call
        assert kind is type(caught.value)
        assert SECRET not in caught.value.message
    assert {} == store.objects


@pytest.mark.parametrize("name", ["hang", "close", "failure"])
async def test_a_large_body_fails_in_time_as_well(
    provider: CloudProvider, store: StubStore, tmp_path: Path, name: str
) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(9):
            yield bytes(1 << 20)

    store.fault, kind = FAILURES[name]
    async with Bodies(tmp_path, memory_bytes=1).receive("acme", pieces(), 2 * SPOOL_BYTES) as body:
        assert body.data is None
        with pytest.raises(kind):
            async with asyncio.timeout(5):
                await provider.put_if_absent(KEY, body, HEADERS)

    assert {} == store.objects


async def test_an_answer_that_ends_after_its_headers_stored_the_object(
    provider: CloudProvider, store: StubStore
) -> None:
    # The status is told, and nothing that follows it is waited for.
    for deed in ("hang in body", "close in body"):
        store.fault = Fault(deed=deed)
        async with asyncio.timeout(5):
            assert await put(provider)


async def test_a_delete_that_hangs_after_its_headers_ends_in_time(provider: CloudProvider, store: StubStore) -> None:
    store.fault = Fault(deed="hang in body")

    async with asyncio.timeout(5):
        if store.speaks == "s3":
            await provider.delete(KEY)
        else:
            # Azure tells in the body what became of it.
            with pytest.raises(UnavailableError):
                await provider.delete(KEY)


async def test_an_existing_object_is_no_failure(provider: CloudProvider, store: StubStore) -> None:
    assert await put(provider)
    assert not await put(provider)

    for fault in (Fault(status=412, code="PreconditionFailed"), Fault(status=409, code="BlobAlreadyExists")):
        store.fault = fault
        assert not await put(provider)


async def test_a_conflict_of_two_writers_is_a_retryable_error(provider: CloudProvider, store: StubStore) -> None:
    store.fault = Fault(status=409, code="ConditionalRequestConflict")

    with pytest.raises(BusyError):
        await put(provider)


@pytest.mark.parametrize("after_s", [0.0, 0.05])
async def test_a_cancelled_put_is_cancelled_and_is_no_failure_of_the_provider(
    provider: CloudProvider, store: StubStore, after_s: float
) -> None:
    store.fault = Fault(deed="hang")
    putting = asyncio.ensure_future(put(provider))
    await asyncio.wait([putting], timeout=after_s)
    putting.cancel()

    with pytest.raises(asyncio.CancelledError):
        async with asyncio.timeout(5):
            await putting


@pytest.mark.parametrize("after_s", [0.0, 0.05])
async def test_a_put_cancelled_while_its_role_is_assumed_leaves_nothing_unawaited(after_s: float) -> None:
    async with StubStore("s3") as store, aws_clients(sts_endpoint_url=store.url) as aws:
        store.fault = Fault(deed="hang", methods=frozenset({"POST"}))
        role = {"role_arn": "arn:aws:iam::123456789012:role/media", "external_id": "shop"}
        async with (
            open_outgoing() as outgoing,
            stub_connector(store, **role).open(outgoing=outgoing, aws=aws) as provider,
        ):
            putting = asyncio.ensure_future(put(provider))
            await asyncio.wait([putting], timeout=after_s)
            putting.cancel()
            with pytest.raises(asyncio.CancelledError):
                async with asyncio.timeout(5):
                    await putting
            # What was dropped is gone, and would have complained, which is an error here.
            gc.collect()


async def test_a_connector_opens_a_provider_of_this_suite(store: StubStore) -> None:
    connector: Any = stub_connector(store)

    async with (
        aws_clients() as aws,
        open_outgoing() as outgoing,
        connector.open(outgoing=outgoing, aws=aws) as provider,
    ):
        assert await put(provider)

    assert isinstance(provider, CloudProvider)
    [(path, (data, headers))] = store.objects.items()
    assert provider.url(KEY) == f"{store.url}{path}"
    assert (b"content", "image/png") == (data, headers["Content-Type"])
