"""The object store's reaction to the answers of S3, and its independence of the machine's environment."""

import asyncio
from collections.abc import AsyncIterator, Callable
from io import BytesIO
from typing import Any

import msgspec
import pytest
from aiohttp import web

from shared.aws.roles import AwsRole
from shared.config.secret import Secret
from shared.errors import (
    BusyError,
    CredentialsError,
    DeniedError,
    InvalidError,
    MillraceError,
    NotFoundError,
    TooLargeError,
    UnavailableError,
)
from shared.objects import store as object_store
from shared.objects.config import S3StoreConfig, StoreLimits
from shared.objects.errors import store_code
from shared.objects.store import ObjectStore
from support.outgoing import aws_clients, open_store
from support.servers.moto import MotoServer

ONCE = StoreLimits(request_s=5, retries=0)
OF_AN_OBJECT = {"ETag": '"e"', "Last-Modified": "Sun, 22 Nov 2026 05:23:36 GMT", "Content-Length": "0"}


class FakeS3:
    """An S3 whose answers the test sets, and which records the requests."""

    def __init__(self) -> None:
        self.requests: list[web.Request] = []
        self.answer: Callable[[web.Request], web.StreamResponse] = lambda _: web.Response(headers={"ETag": '"e"'})
        self.speaks = asyncio.Event()
        self.speaks.set()
        self.config = S3StoreConfig(bucket="bucket", region="eu-west-1")

    async def handle(self, request: web.Request) -> web.StreamResponse:
        await request.read()
        self.requests.append(request)
        await self.speaks.wait()
        return self.answer(request)

    def fail(self, status: int, code: str = "") -> None:
        body = f"<Error><Code>{code}</Code><Message>m</Message></Error>" if code else ""
        self.answer = lambda request: web.Response(status=status, text="" if request.method == "HEAD" else body)


@pytest.fixture
async def s3() -> AsyncIterator[FakeS3]:
    fake = FakeS3()
    application = web.Application()
    application.router.add_route("*", "/{rest:.*}", fake.handle)
    runner = web.AppRunner(application, shutdown_timeout=0)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    fake.config = S3StoreConfig(
        bucket="bucket",
        region="eu-west-1",
        access_key_id="AKIA",
        secret_access_key=Secret("the-secret-key"),
        endpoint_url="http://{}:{}".format(*runner.addresses[0]),
    )
    yield fake
    fake.speaks.set()
    await runner.cleanup()


@pytest.fixture
async def store(s3: FakeS3) -> AsyncIterator[ObjectStore]:
    async with open_store(s3.config, ONCE) as store:
        yield store


async def create(store: ObjectStore) -> bool:
    return await store.put_if_absent("a", b"x", content_type="text/plain") is not None


async def put(store: ObjectStore) -> None:
    await store.put("a", b"x", content_type="text/plain")


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (403, "InvalidAccessKeyId", CredentialsError),
        (403, "SignatureDoesNotMatch", CredentialsError),
        (403, "AccessDenied", DeniedError),
        (404, "NoSuchBucket", NotFoundError),
        (400, "AuthorizationHeaderMalformed", InvalidError),
        (400, "EntityTooLarge", TooLargeError),
        (503, "SlowDown", BusyError),
        (429, "", BusyError),
        (500, "InternalError", UnavailableError),
        (502, "", UnavailableError),
        (409, "OperationAborted", BusyError),
        (409, "ConditionalRequestConflict", BusyError),
    ],
)
async def test_an_answer_becomes_the_kind_of_its_code(
    s3: FakeS3, store: ObjectStore, status: int, code: str, kind: type[MillraceError]
) -> None:
    s3.fail(status, code)

    for call in (put(store), create(store)):
        with pytest.raises(MillraceError) as caught:
            await call
        assert kind is type(caught.value)
        assert (code or None) == store_code(caught.value)
        assert (code or str(status)) in caught.value.message
        assert "the-secret-key" not in caught.value.message


@pytest.mark.parametrize(("status", "kind"), [(403, DeniedError), (404, NotFoundError), (500, UnavailableError)])
async def test_head_has_no_code_and_goes_by_its_status(
    s3: FakeS3, store: ObjectStore, status: int, kind: type[MillraceError]
) -> None:
    s3.fail(status, "Whatever")

    with pytest.raises(kind):
        await store.head("a")


async def test_a_redirect_without_a_place_is_the_wrong_region(s3: FakeS3, store: ObjectStore) -> None:
    s3.fail(301, "PermanentRedirect")

    with pytest.raises(InvalidError, match="another region"):
        await put(store)


async def test_a_conflict_that_is_no_failed_condition_is_tried_again(s3: FakeS3, store: ObjectStore) -> None:
    s3.fail(409, "AnotherOperation")

    with pytest.raises(BusyError, match="AnotherOperation"):
        await create(store)


async def test_a_failed_condition_means_that_the_object_is_there(s3: FakeS3, store: ObjectStore) -> None:
    s3.fail(412, "PreconditionFailed")

    assert not await create(store)


@pytest.mark.parametrize("status", [501, 304])
@pytest.mark.parametrize("there", [True, False])
async def test_a_store_without_conditions_is_queried_before_a_write(
    s3: FakeS3, store: ObjectStore, status: int, there: bool
) -> None:
    def answer(request: web.Request) -> web.StreamResponse:
        if "If-None-Match" in request.headers:
            return web.Response(status=status)
        if request.method == "HEAD" and not there:
            return web.Response(status=404)
        return web.Response(headers=OF_AN_OBJECT)

    s3.answer = answer

    created = await create(store)

    assert created is not there
    assert ["PUT", "HEAD", *([] if there else ["PUT"])] == [request.method for request in s3.requests]


async def test_obstore_retries_up_to_the_limit(s3: FakeS3) -> None:
    s3.fail(503, "SlowDown")

    async with open_store(s3.config, StoreLimits(request_s=5, retries=2)) as store:
        with pytest.raises(BusyError):
            await put(store)

    assert 3 == len(s3.requests)


async def test_a_store_that_does_not_answer_is_unavailable_in_time(s3: FakeS3) -> None:
    s3.speaks.clear()

    async with open_store(s3.config, StoreLimits(request_s=0.2, retries=0)) as store:
        async with asyncio.timeout(5):
            with pytest.raises(UnavailableError, match="cannot be reached"):
                await put(store)


@pytest.mark.parametrize(
    ("endpoint", "why"), [("http://127.0.0.1:9", "cannot be reached"), ("http://no-such-host.invalid", "not known")]
)
async def test_an_endpoint_without_a_listener_is_unavailable(endpoint: str, why: str) -> None:
    config = S3StoreConfig(
        bucket="bucket", region="eu-west-1", access_key_id="A", secret_access_key=Secret("s"), endpoint_url=endpoint
    )

    async with open_store(config, ONCE) as store:
        for call in (put(store), store.ping(), store.delete("a")):
            with pytest.raises(UnavailableError, match=why):
                await call


@pytest.mark.parametrize(("status", "code"), [(404, "NoSuchKey"), (403, "AccessDenied"), (200, "")])
async def test_ping_passes_with_keys_that_may_only_write(
    s3: FakeS3, store: ObjectStore, status: int, code: str
) -> None:
    if code:
        s3.fail(status, code)
    else:
        s3.answer = lambda _: web.Response(headers=OF_AN_OBJECT)

    await store.ping()


async def test_ping_fails_with_keys_that_are_wrong(s3: FakeS3, store: ObjectStore) -> None:
    s3.fail(403, "SignatureDoesNotMatch")

    with pytest.raises(CredentialsError):
        await store.ping()


async def test_the_environment_of_the_machine_does_not_reach_a_customers_requests(
    s3: FakeS3, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {
        "AWS_ACCESS_KEY_ID": "machine",
        "AWS_SECRET_ACCESS_KEY": "machine",
        "AWS_SESSION_TOKEN": "machine",
        "AWS_ENDPOINT_URL": "http://127.0.0.1:9",
        "AWS_ENDPOINT_URL_S3": "http://127.0.0.1:9",
        "AWS_SKIP_SIGNATURE": "true",
        "AWS_UNSIGNED_PAYLOAD": "true",
        "AWS_VIRTUAL_HOSTED_STYLE_REQUEST": "true",
        "AWS_REQUEST_PAYER": "true",
        "AWS_REGION": "us-gov-east-1",
    }.items():
        monkeypatch.setenv(name, value)

    async with open_store(s3.config, ONCE) as store:
        await put(store)

    [request] = s3.requests
    assert "/bucket/a" == request.path
    assert "Credential=AKIA/" in request.headers["Authorization"]
    assert "/eu-west-1/s3/" in request.headers["Authorization"]
    assert "x-amz-security-token" not in request.headers
    assert "x-amz-request-payer" not in request.headers
    assert "UNSIGNED-PAYLOAD" != request.headers["x-amz-content-sha256"]


KEY = "arn:aws:kms:eu-west-1:123456789012:key/1234abcd-12ab-34cd-56ef-1234567890ab"


@pytest.mark.parametrize(("sse", "key_id"), [("off", ""), ("AES256", ""), ("aws:kms", KEY), ("aws:kms", "alias/data")])
async def test_every_object_is_stored_with_the_encryption_of_the_store(moto: MotoServer, sse: Any, key_id: str) -> None:
    await moto.create_bucket("bucket")
    config = S3StoreConfig(
        bucket="bucket",
        region=moto.region,
        access_key_id=moto.credentials.access_key_id,
        secret_access_key=moto.credentials.secret_access_key,
        endpoint_url=moto.url,
        sse=sse,
        sse_kms_key_id=key_id,
    )
    async with open_store(config) as store:
        await store.put("put", b"x", content_type="text/plain")
        await store.put("in parts", bytes(object_store.SINGLE_PUT_BYTES), content_type="text/plain")
        await store.put_if_absent("created", b"x", content_type="text/plain")
        await store.put_file_if_absent("of a file", BytesIO(bytes(6 << 20)), content_type="text/plain")

    async with moto.client("s3") as s3:
        for name in ("put", "in parts", "created", "of a file"):
            stored = await s3.head_object(Bucket="bucket", Key=name)
            expected = None if sse == "off" else sse, key_id or None
            assert expected == (stored.get("ServerSideEncryption"), stored.get("SSEKMSKeyId")), name


@pytest.mark.parametrize(
    ("sse", "key_id"), [("off", KEY), ("AES256", KEY), ("aws:kms", ""), ("aws:kms", "two words"), ("aws:kms", "a\nb")]
)
async def test_a_key_of_kms_goes_with_its_encryption_alone(s3: FakeS3, sse: Any, key_id: str) -> None:
    with pytest.raises(InvalidError) as caught:
        async with open_store(msgspec.structs.replace(s3.config, sse=sse, sse_kms_key_id=key_id)):
            pass

    assert "sse_kms_key_id" == caught.value.field


async def test_white_space_around_keys_is_stripped(s3: FakeS3) -> None:
    sloppy = S3StoreConfig(**(fields(s3.config) | {"access_key_id": " AKIA\n"}))

    async with open_store(sloppy, ONCE) as store:
        await put(store)

    assert "Credential=AKIA/" in s3.requests[0].headers["Authorization"]


@pytest.mark.parametrize(
    ("field", "value"), [("access_key_id", ""), ("access_key_id", "kéy"), ("secret_access_key", Secret(" \n"))]
)
async def test_keys_that_cannot_be_right_are_refused_at_once(s3: FakeS3, field: str, value: Any) -> None:
    with pytest.raises(InvalidError) as caught:
        async with open_store(S3StoreConfig(**(fields(s3.config) | {field: value}))):
            pass

    assert field == caught.value.field


def fields(config: S3StoreConfig) -> dict[str, Any]:
    names = ("bucket", "region", "access_key_id", "secret_access_key", "endpoint_url")
    return {name: getattr(config, name) for name in names}


async def test_real_keys_are_distinguished_from_wrong_ones_and_ones_without_permission(moto: MotoServer) -> None:
    await moto.create_bucket("bucket")
    writer = await moto.create_user("writer", actions=["s3:PutObject"])
    nobody = await moto.create_user("nobody")
    await moto.demand_real_keys()

    def config(key_id: str, secret: Secret) -> S3StoreConfig:
        return S3StoreConfig(
            bucket="bucket",
            region=moto.region,
            access_key_id=key_id,
            secret_access_key=secret,
            endpoint_url=moto.url,
        )

    async with open_store(config(writer.access_key_id, writer.secret_access_key), ONCE) as store:
        await put(store)
        await store.ping()
        with pytest.raises(DeniedError):
            await store.get("a")
    async with open_store(config(nobody.access_key_id, nobody.secret_access_key), ONCE) as store:
        with pytest.raises(DeniedError):
            await put(store)
    async with open_store(config(writer.access_key_id, Secret("wrong")), ONCE) as store:
        with pytest.raises(CredentialsError, match="SignatureDoesNotMatch"):
            await put(store)
    async with open_store(config("AKIAUNKNOWN", Secret("wrong")), ONCE) as store:
        with pytest.raises(CredentialsError, match="InvalidAccessKeyId"):
            await store.ping()


async def test_a_role_stores_with_temporary_keys(s3: FakeS3, moto: MotoServer) -> None:
    role = AwsRole(role_arn="arn:aws:iam::123456789012:role/exporter", external_id="millrace-1", base=moto.credentials)
    config = S3StoreConfig(bucket="bucket", region="eu-west-1", endpoint_url=s3.config.endpoint_url)

    async with aws_clients(sts_endpoint_url=moto.url) as aws:
        provider = aws.credential_provider(role, region=moto.region)
        async with open_store(config, ONCE, credential_provider=provider) as store:
            await put(store)
            await put(store)

    tokens = {request.headers["x-amz-security-token"] for request in s3.requests}
    assert 1 == len(tokens)
    assert f"Credential={moto.credentials.access_key_id}/" not in s3.requests[0].headers["Authorization"]


@pytest.mark.parametrize(
    ("status", "code", "kind"), [(400, "ExpiredToken", CredentialsError), (403, "AccessDenied", DeniedError)]
)
async def test_a_role_whose_keys_end_early_is_assumed_anew_for_the_next_call(
    s3: FakeS3, moto: MotoServer, monkeypatch: pytest.MonkeyPatch, status: int, code: str, kind: type[MillraceError]
) -> None:
    monkeypatch.setattr(object_store, "REVOKED_AFTER_S", -1)
    role = AwsRole(role_arn="arn:aws:iam::123456789012:role/exporter", external_id="millrace-1", base=moto.credentials)
    config = S3StoreConfig(bucket="bucket", region="eu-west-1", endpoint_url=s3.config.endpoint_url)

    async with aws_clients(sts_endpoint_url=moto.url) as aws:
        provider = aws.credential_provider(role, region=moto.region)
        async with open_store(config, ONCE, credential_provider=provider) as store:
            answer = s3.answer
            s3.fail(status, code)
            with pytest.raises(kind, match=code):
                await put(store)
            s3.answer = answer
            await put(store)
            await put(store)

    refused, *taken = [request.headers["x-amz-security-token"] for request in s3.requests]
    assert 1 == len(set(taken))
    assert refused not in taken


async def test_temporary_keys_sign_with_their_token(s3: FakeS3) -> None:
    config = msgspec.structs.replace(s3.config, session_token=Secret("the-token"))
    async with open_store(config, ONCE) as store:
        await put(store)
    async with open_store(s3.config, ONCE) as store:
        await put(store)

    assert ["the-token", None] == [request.headers.get("x-amz-security-token") for request in s3.requests]


async def test_a_role_that_cannot_be_assumed_is_reported(s3: FakeS3) -> None:
    async def provide() -> Any:
        raise CredentialsError("the trust policy does not name us")

    async with open_store(s3.config, ONCE, credential_provider=provide) as store:
        with pytest.raises(CredentialsError, match=r"^the trust policy does not name us$"):
            await put(store)


async def test_requests_to_aws_use_the_host_of_the_bucket() -> None:
    config = S3StoreConfig(bucket="shop", region="eu-west-1", access_key_id="A", secret_access_key=Secret("s"))

    async with open_store(config) as store:
        assert "https://shop.s3.eu-west-1.amazonaws.com" == store._store.config["endpoint"]  # type: ignore[union-attr]


@pytest.mark.parametrize("cancelled_after", [0.0, 0.01])
async def test_a_cancelled_put_ends_at_once(s3: FakeS3, store: ObjectStore, cancelled_after: float) -> None:
    s3.speaks.clear()
    task = asyncio.ensure_future(put(store))

    done, _ = await asyncio.wait([task], timeout=cancelled_after)
    task.cancel()

    assert set() == done
    with pytest.raises(asyncio.CancelledError):
        async with asyncio.timeout(2):
            await task
