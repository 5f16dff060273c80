"""AWS clients against moto: sharing, closing, roles, and the translation of errors."""

import asyncio
import gc
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from aiohttp import web

from shared.aws.clients import AwsClients
from shared.aws.errors import AWS_ERRORS, aws_code, aws_details, aws_error
from shared.aws.roles import AwsCredentials, AwsRole
from shared.config.secret import Secret
from shared.errors import (
    CredentialsError,
    DeniedError,
    InvalidError,
    MillraceError,
    NotFoundError,
    UnavailableError,
)
from support.outgoing import aws_clients
from support.servers.moto import MotoServer

TRUST = (
    '{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"AWS":"*"},"Action":"sts:AssumeRole",'
    '"Condition":{"StringEquals":{"sts:ExternalId":"millrace-1"}}}]}'
)


def keys(name: str) -> AwsCredentials:
    return AwsCredentials(access_key_id=name, secret_access_key=Secret(f"secret of {name}"))


async def test_the_same_client_serves_every_caller_with_the_same_keys(moto: MotoServer) -> None:
    where: dict[str, Any] = {"region": moto.region, "endpoint_url": moto.url}
    async with aws_clients() as aws:
        async with (
            aws.client("s3", credentials=keys("a"), **where) as one,
            aws.client("s3", credentials=keys("a"), **where) as same,
            aws.client("s3", credentials=keys("b"), **where) as other,
        ):
            assert one is same
            assert one is not other
        async with aws.client("s3", credentials=keys("a"), **where) as later:
            assert one is later


async def test_concurrent_first_use_makes_one_client(moto: MotoServer) -> None:
    together = asyncio.Barrier(8)

    async def use(aws: AwsClients) -> int:
        async with aws.client("s3", region=moto.region, credentials=keys("a"), endpoint_url=moto.url) as client:
            await together.wait()
            return id(client)

    async with aws_clients() as aws:
        ids = await asyncio.gather(*(use(aws) for _ in range(8)))

    assert 1 == len(set(ids))


async def test_the_client_that_was_unused_longest_is_closed_and_one_in_use_never(moto: MotoServer) -> None:
    where: dict[str, Any] = {"region": moto.region, "endpoint_url": moto.url}
    async with aws_clients(most=1) as aws, aws.client("s3", credentials=keys("held"), **where) as held:
        seen = {}
        for name in ("a", "b", "c"):
            async with aws.client("s3", credentials=keys(name), **where) as seen[name]:
                pass
        await held.list_buckets()

        async with aws.client("s3", credentials=keys("c"), **where) as kept:
            assert seen["c"] is kept
        async with aws.client("s3", credentials=keys("a"), **where) as made_anew:
            assert seen["a"] is not made_anew
            await made_anew.list_buckets()


async def test_a_client_that_cannot_be_created_is_refused_and_leaves_nothing(moto: MotoServer) -> None:
    async with aws_clients() as aws:
        with pytest.raises(InvalidError):
            async with aws.client("s3", region="no region!", credentials=keys("a")):
                pass
        with pytest.raises(InvalidError, match="endpoint"):
            async with aws.client("s3", region=moto.region, credentials=keys("a"), endpoint_url="nonsense"):
                pass
        async with aws.client("s3", region=moto.region, credentials=keys("a"), endpoint_url=moto.url) as client:
            await client.list_buckets()


async def test_the_machines_endpoint_does_not_redirect_a_customers_keys(
    moto: MotoServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")

    async with aws_clients() as aws, aws.client("s3", region="eu-west-1", credentials=keys("a")) as client:
        assert "https://s3.eu-west-1.amazonaws.com" == client.meta.endpoint_url


class Recorder:
    """An HTTP server that answers every request with one status and body, and records the requests."""

    def __init__(self, status: int = 200, body: str = "", region: str | None = None) -> None:
        self.status, self.body, self.region = status, body, region
        self.requests: list[web.Request] = []
        self.url = ""

    async def __aenter__(self) -> "Recorder":
        application = web.Application()
        application.router.add_route("*", "/{rest:.*}", self.answer)
        self.runner = web.AppRunner(application)
        await self.runner.setup()
        await web.TCPSite(self.runner, "127.0.0.1", 0).start()
        self.url = "http://{}:{}".format(*self.runner.addresses[0])
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.runner.cleanup()

    async def answer(self, request: web.Request) -> web.Response:
        await request.read()
        self.requests.append(request)
        headers = {"x-amz-bucket-region": self.region} if self.region else {}
        return web.Response(status=self.status, text=self.body, headers=headers)


async def put_object(url: str) -> None:
    async with (
        aws_clients() as aws,
        aws.client("s3", region="eu-west-1", credentials=keys("a"), endpoint_url=url) as s3,
    ):
        await s3.put_object(Bucket="bucket", Key="key", Body=b"content")


async def test_a_put_waits_for_no_continue_and_sends_no_checksum_of_its_own() -> None:
    async with Recorder() as server:
        await put_object(server.url)

    [request] = server.requests
    assert "Expect" not in request.headers
    assert [] == [name for name in request.headers if "checksum" in name.lower()]
    assert "/bucket/key" == request.path


@pytest.mark.parametrize("status", [500, 503])
async def test_the_sdk_does_not_try_again_behind_us(status: int) -> None:
    async with Recorder(status) as server:
        with pytest.raises(AWS_ERRORS):
            await put_object(server.url)

    assert 1 == len(server.requests)


@pytest.mark.parametrize("operation", ["put_object", "head_bucket"])
async def test_an_endpoint_that_redirects_every_request_receives_one(operation: str) -> None:
    """The SDK would request the bucket's region again after each redirect, without end."""
    arguments = {"Key": "key", "Body": b"content"} if operation == "put_object" else {}
    async with (
        Recorder(301, region="us-east-2") as server,
        aws_clients() as aws,
        aws.client("s3", region="eu-west-1", credentials=keys("a"), endpoint_url=server.url) as s3,
    ):
        with pytest.raises(AWS_ERRORS) as caught:
            await getattr(s3, operation)(Bucket="bucket", **arguments)

    assert 1 == len(server.requests)
    assert (301, "us-east-2") == (aws_details(caught.value).http_status, aws_details(caught.value).region)


async def test_an_error_has_its_code_status_and_region() -> None:
    body = "<Error><Code>AccessDenied</Code><Message>no</Message></Error>"
    async with Recorder(403, body, region="us-east-2") as server:
        with pytest.raises(AWS_ERRORS) as caught:
            await put_object(server.url)

    details = aws_details(caught.value)
    assert ("AccessDenied", 403, "us-east-2") == (details.code, details.http_status, details.region)


async def test_an_endpoint_without_a_listener_is_unavailable() -> None:
    with pytest.raises(AWS_ERRORS) as caught:
        await put_object("http://127.0.0.1:9")

    assert isinstance(aws_error(caught.value), UnavailableError)


async def test_an_answer_that_is_not_awss_is_unavailable() -> None:
    async with Recorder(502, "<html>Bad gateway</html>") as server:
        with pytest.raises(AWS_ERRORS) as caught:
            await put_object(server.url)

    assert isinstance(aws_error(caught.value), UnavailableError)


async def refused(aws: AwsClients, moto: MotoServer, credentials: AwsCredentials, call: str, **arguments: Any) -> Any:
    service = "kinesis" if "Stream" in str(arguments) else "s3"
    with pytest.raises(AWS_ERRORS) as caught:
        async with aws.client(service, region=moto.region, credentials=credentials, endpoint_url=moto.url) as client:
            await getattr(client, call)(**arguments)
    error = aws_error(caught.value)
    error.__cause__ = caught.value
    return error


async def test_wrong_keys_are_distinguished_from_keys_without_permission(moto: MotoServer) -> None:
    await moto.create_bucket("bucket")
    right = await moto.create_user("writer")
    wrong = AwsCredentials(access_key_id=right.access_key_id, secret_access_key=Secret("wrong-secret-key"))
    await moto.demand_real_keys()
    put = {"Bucket": "bucket", "Key": "k", "Body": b""}

    async with aws_clients() as aws:
        unknown = await refused(aws, moto, keys("AKIAUNKNOWN"), "put_object", **put)
        mistyped = await refused(aws, moto, wrong, "put_object", **put)
        denied = await refused(aws, moto, right, "put_object", **put)

    assert (CredentialsError, "InvalidAccessKeyId") == (type(unknown), aws_code(unknown))
    assert (CredentialsError, "SignatureDoesNotMatch") == (type(mistyped), aws_code(mistyped))
    assert (DeniedError, "AccessDenied") == (type(denied), aws_code(denied))
    assert "wrong-secret-key" not in mistyped.message


async def test_a_missing_bucket_or_stream_is_reported(moto: MotoServer) -> None:
    async with aws_clients() as aws:
        bucket = await refused(aws, moto, moto.credentials, "put_object", Bucket="none", Key="k", Body=b"")
        stream = await refused(aws, moto, moto.credentials, "put_record", StreamName="n", Data=b"", PartitionKey="1")

    assert (NotFoundError, "NoSuchBucket") == (type(bucket), aws_code(bucket))
    assert (NotFoundError, "ResourceNotFoundException") == (type(stream), aws_code(stream))


async def assume(moto: MotoServer) -> AwsRole:
    async with moto.client("iam") as iam:
        role = await iam.create_role(RoleName="exporter", AssumeRolePolicyDocument=TRUST)
    arn = role["Role"]["Arn"]
    return AwsRole(role_arn=arn, external_id="millrace-1", base=moto.credentials)


async def test_a_role_signs_with_temporary_keys_and_renews_them(
    moto: MotoServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    role = await assume(moto)
    used = []

    async with (
        aws_clients(sts_endpoint_url=moto.url) as aws,
        aws.client("sts", region=moto.region, credentials=role, endpoint_url=moto.url) as sts,
    ):
        credentials = sts._request_signer._credentials
        for _ in range(2):
            identity = await sts.get_caller_identity()
            used.append((await credentials.get_frozen_credentials()).access_key)
        # An hour later the keys are too old to be used.
        credentials._expiry_time = datetime.now(UTC) - timedelta(seconds=1)
        await sts.get_caller_identity()
        used.append((await credentials.get_frozen_credentials()).access_key)

    assert "assumed-role/exporter/millrace" in identity["Arn"]
    assert used[0] == used[1]
    assert used[0] != used[2]
    assert moto.credentials.access_key_id not in used


async def test_the_external_id_is_sent_with_every_assume_role() -> None:
    async with Recorder(403, "<ErrorResponse><Error><Code>AccessDenied</Code></Error></ErrorResponse>") as server:
        role = AwsRole(role_arn="arn:aws:iam::123456789012:role/x", external_id="millrace-7", base=keys("base"))
        async with aws_clients(sts_endpoint_url=server.url) as aws:
            with pytest.raises(AWS_ERRORS) as caught:
                async with aws.client("kinesis", region="eu-west-1", credentials=role) as kinesis:
                    await kinesis.list_streams()
            with pytest.raises(DeniedError):
                await aws.credential_provider(role, region="eu-west-1")()

    bodies = [await request.text() for request in server.requests]
    assert 2 == len(bodies)
    assert all("ExternalId=millrace-7" in body and "DurationSeconds=3600" in body for body in bodies)
    assert isinstance(aws_error(caught.value), DeniedError)
    assert "trust policy" in aws_error(caught.value).message
    assert "AssumeRole" == aws_details(caught.value).operation


async def test_keys_that_are_not_awaited_are_not_requested() -> None:
    role = AwsRole(role_arn="arn:aws:iam::123456789012:role/x", external_id="millrace-7", base=keys("base"))
    async with aws_clients() as aws:
        given = aws.credential_provider(role, region="eu-west-1")()

    # obstore drops it so when a call is cancelled; a coroutine would complain, and warnings are errors here.
    assert not asyncio.iscoroutine(given)
    del given
    gc.collect()


async def test_a_provider_of_temporary_keys_returns_the_fields_of_obstore(moto: MotoServer) -> None:
    role = await assume(moto)

    async with aws_clients(sts_endpoint_url=moto.url) as aws:
        provided = await aws.credential_provider(role, region=moto.region)()

    assert {"access_key_id", "secret_access_key", "token", "expires_at"} == provided.keys()
    assert timedelta(minutes=50) < provided["expires_at"] - datetime.now(UTC) <= timedelta(minutes=61)


def test_an_error_keeps_its_details_when_it_becomes_ours() -> None:
    cause = Exception("of the SDK")
    cause.response = {"Error": {"Code": "NoSuchBucket"}, "ResponseMetadata": {"HTTPStatusCode": 404}}  # type: ignore[attr-defined]
    ours = NotFoundError("there is no bucket")
    ours.__cause__ = cause

    assert "NoSuchBucket" == aws_code(ours)
    assert None is aws_code(MillraceError("something else"))
