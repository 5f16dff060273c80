"""The Amazon Storage connector, on moto: storing objects, changes of it, and Test Connection."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Iterator
from functools import partial
from typing import Any

import aiohttp
import msgspec
import pytest

from shared.contracts import streams, subjects
from shared.contracts.connection_report import ConnectionReport
from shared.contracts.messages import decode
from shared.errors import NotFoundError
from shared.messaging.bus import Bus
from shared.runtime.settings import Settings
from storage.app import SERVICE, build
from storage.handlers import ProbeStorageConnector
from support.clients.storage import PHOTO, form, objects, stored, upload
from support.run_service import RunService, running
from support.servers.moto import MotoServer

SECRET = "the-secret-of-shop"
CONNECTOR = "/v1/apps/shop/connectors/amazon-storage"
STEPS = ["fields", "reach", "region", "put", "get", "public_url", "cors", "delete"]


@pytest.fixture
async def bucket(moto: MotoServer) -> str:
    """A bucket of the connector's name that is public."""
    await moto.create_bucket("media", public=True)
    return "media"


def connector(moto: MotoServer, **changed: Any) -> dict[str, Any]:
    return {
        "access_key": "testing",
        "secret_key": SECRET,
        "bucket_name": "media",
        "region": moto.region,
        "endpoint_url": moto.url,
    } | changed


async def put(http: aiohttp.ClientSession, headers: dict[str, str], value: dict[str, Any]) -> None:
    async with http.put(CONNECTOR, json=value, headers=headers) as answer:
        assert 200 == answer.status, await answer.text()


async def probed(http: aiohttp.ClientSession, headers: dict[str, str], form: dict[str, Any] | None) -> ConnectionReport:
    async with http.post(f"{CONNECTOR}/test", json=form, headers=headers) as answer:
        body = await answer.read()
        assert 200 == answer.status, body
    assert SECRET.encode() not in body
    return decode(body, ConnectionReport)


def statuses(report: ConnectionReport) -> dict[str, str]:
    assert STEPS == [step.name for step in report.steps]
    return {step.name: step.status for step in report.steps}


async def keys(moto: MotoServer) -> list[str]:
    async with moto.client("s3") as s3:
        return [entry["Key"] for entry in (await s3.list_objects_v2(Bucket="media")).get("Contents", [])]


async def test_objects_go_to_the_bucket_with_their_headers_and_urls(
    http: aiohttp.ClientSession, shop: dict[str, str], moto: MotoServer, bucket: str, settings: Settings
) -> None:
    await put(http, shop, connector(moto, prefix="campaigns"))

    first, again = await stored(http, shop, form()), await stored(http, shop, form())

    assert first == again
    assert "amazon-storage" == first.provider
    assert first.thumbnail is not None
    assert sorted([first.original.key, first.thumbnail.key]) == sorted(await keys(moto))
    assert first.original.key.startswith("campaigns/shop/message-image/")
    assert f"{moto.url}/media/{first.original.key}" == first.original.url
    async with aiohttp.ClientSession() as session, session.get(first.original.url) as answer:
        assert PHOTO == await answer.read()
        assert "image/jpeg" == answer.headers["Content-Type"]
        assert "public, max-age=31536000, immutable" == answer.headers["Cache-Control"]
        assert "inline" == answer.headers["Content-Disposition"]
    assert [] == objects(settings)


async def test_secret_is_never_returned(
    http: aiohttp.ClientSession, shop: dict[str, str], moto: MotoServer, bucket: str, bus: Bus
) -> None:
    await put(http, shop, connector(moto))

    async with http.get(CONNECTOR, headers=shop) as answer:
        shown = await answer.json()
    assert "***" == shown["secret_key"]
    left_out = connector(moto, prefix="p")
    del left_out["secret_key"]
    await put(http, shop, left_out)
    await put(http, shop, shown | {"active": True})
    entry = await bus.last_message(streams.CONFIG, "$KV.CONFIG.connectors.shop.amazon-storage")
    assert entry is not None
    assert SECRET.encode() not in entry.data
    assert (await stored(http, shop, form())).provider == "amazon-storage"


async def test_connector_that_cannot_be_right_is_not_saved(
    http: aiohttp.ClientSession, shop: dict[str, str], moto: MotoServer
) -> None:
    async with http.put(CONNECTOR, json=connector(moto, bucket_name="No Bucket"), headers=shop) as answer:
        problem = await answer.json()

    assert (400, "bucket_name") == (answer.status, problem["error"]["field"])


async def test_change_of_the_connector_takes_effect_without_a_restart(
    http: aiohttp.ClientSession, shop: dict[str, str], moto: MotoServer, bucket: str
) -> None:
    local = await stored(http, shop, form())
    await put(http, shop, connector(moto))
    in_bucket = await stored(http, shop, form())
    await put(http, shop, connector(moto, cdn_base_url="https://cdn.example/media/"))
    behind_cdn = await stored(http, shop, form())
    await put(http, shop, connector(moto, active=False))
    local_again = await stored(http, shop, form())
    await put(http, shop, connector(moto))
    async with http.delete(CONNECTOR, headers=shop) as answer:
        assert 204 == answer.status
    without = await stored(http, shop, form())

    assert "local" == local.provider == local_again.provider == without.provider
    assert "amazon-storage" == in_bucket.provider == behind_cdn.provider
    assert f"https://cdn.example/media/{in_bucket.original.key}" == behind_cdn.original.url


async def test_no_upload_is_lost_while_the_connector_changes(
    http: aiohttp.ClientSession, shop: dict[str, str], moto: MotoServer, bucket: str
) -> None:
    await put(http, shop, connector(moto))

    async with asyncio.TaskGroup() as group:
        uploads = [group.create_task(upload(http, shop, form())) for _ in range(12)]
        for number in range(6):
            group.create_task(put_when_free(http, shop, connector(moto, prefix=f"p{number}")))

    assert [201] * 12 == [task.result()[0] for task in uploads]


async def put_when_free(http: aiohttp.ClientSession, headers: dict[str, str], value: dict[str, Any]) -> None:
    while True:
        async with http.put(CONNECTOR, json=value, headers=headers) as answer:
            # Two at once read the same revision; one of them has to read again.
            if answer.status != 409:
                assert 200 == answer.status
                return


async def test_refused_keys_fail_the_upload_without_failover(
    http: aiohttp.ClientSession, shop: dict[str, str], moto: MotoServer, bucket: str
) -> None:
    await put(http, shop, connector(moto))
    await moto.demand_real_keys()

    status, body = await upload(http, shop, form())

    assert 424 == status
    assert "credentials" == msgspec.json.decode(body)["error"]["code"]
    await moto.demand_real_keys(False)
    assert [] == await keys(moto)


async def test_missing_permission_fails_the_upload_as_denied(
    http: aiohttp.ClientSession, shop: dict[str, str], moto: MotoServer, bucket: str
) -> None:
    user = await moto.create_user("reader", actions=["s3:GetObject"])
    value = connector(moto, access_key=user.access_key_id, secret_key=user.secret_access_key.reveal())
    await put(http, shop, value)
    await moto.demand_real_keys()

    status, body = await upload(http, shop, form())

    assert (403, "denied") == (status, msgspec.json.decode(body)["error"]["code"])


async def test_connection_passes_when_everything_is_right_and_leaves_nothing_behind(
    http: aiohttp.ClientSession, shop: dict[str, str], moto: MotoServer, bucket: str
) -> None:
    report = await probed(http, shop, connector(moto, prefix="p"))

    assert dict.fromkeys(STEPS, "ok") == statuses(report)
    assert "ok" == report.status
    assert all(step.ms >= 0 for step in report.steps)
    assert [] == await keys(moto)


async def test_connection_of_the_saved_connector_needs_no_form(
    http: aiohttp.ClientSession, shop: dict[str, str], moto: MotoServer, bucket: str, bus: Bus
) -> None:
    subject = subjects.connector_test("storage")
    with pytest.raises(NotFoundError):
        await bus.request(subject, ProbeStorageConnector(app_key="shop"), ConnectionReport)
    async with http.post(f"{CONNECTOR}/test", headers=shop) as answer:
        assert 404 == answer.status
    await put(http, shop, connector(moto))

    async with http.post(f"{CONNECTOR}/test", headers=shop) as answer:
        by_http = decode(await answer.read(), ConnectionReport)
    saved = ProbeStorageConnector(app_key="shop")
    by_nats = await bus.request(subject, saved, ConnectionReport, timeout_s=5)
    masked = ProbeStorageConnector(app_key="shop", config=connector(moto, secret_key="***", bucket_name="other"))
    of_form = await bus.request(subject, masked, ConnectionReport, timeout_s=5)

    assert "ok" == by_http.status == by_nats.status
    assert "failed" == of_form.status


async def test_connection_reports_an_invalid_field(
    http: aiohttp.ClientSession, shop: dict[str, str], moto: MotoServer
) -> None:
    report = await probed(http, shop, connector(moto, bucket_name="No Bucket"))

    assert dict.fromkeys(STEPS, "skipped") | {"fields": "failed"} == statuses(report)
    assert report.steps[0].message.startswith("bucket_name: expected")


async def test_connection_reports_a_missing_bucket(
    http: aiohttp.ClientSession, shop: dict[str, str], moto: MotoServer
) -> None:
    report = await probed(http, shop, connector(moto))

    assert "failed" == report.status
    assert {"reach": "ok", "put": "failed", "get": "skipped"}.items() <= statuses(report).items()
    put_step = report.steps[3]
    assert ("NoSuchBucket", 404) == (put_step.code, put_step.http_status)
    assert "The bucket does not exist." == put_step.hint


async def test_connection_reports_unknown_keys(
    http: aiohttp.ClientSession, shop: dict[str, str], moto: MotoServer, bucket: str
) -> None:
    await moto.demand_real_keys()

    report = await probed(http, shop, connector(moto))

    put_step = report.steps[3]
    assert ("failed", "InvalidAccessKeyId", 403) == (put_step.status, put_step.code, put_step.http_status)
    assert put_step.hint is not None
    assert "does not exist" in put_step.hint


async def test_connection_reports_the_region_of_the_bucket(
    http: aiohttp.ClientSession, shop: dict[str, str], moto: MotoServer, bucket: str
) -> None:
    report = await probed(http, shop, connector(moto, region="us-east-1"))

    region = report.steps[2]
    assert ("failed", "WrongRegion") == (region.status, region.code)
    assert f"Enter {moto.region} as the region." == region.hint


async def test_connection_warns_when_it_may_not_delete(
    http: aiohttp.ClientSession, shop: dict[str, str], moto: MotoServer, bucket: str
) -> None:
    user = await moto.create_user("writer", actions=["s3:PutObject", "s3:GetObject"])
    value = connector(moto, access_key=user.access_key_id, secret_key=user.secret_access_key.reveal())
    await moto.demand_real_keys()

    report = await probed(http, shop, value)

    assert "warning" == statuses(report)["delete"]
    assert {"put": "ok", "get": "ok"}.items() <= statuses(report).items()
    delete = report.steps[-1]
    assert ("AccessDenied", 403) == (delete.code, delete.http_status)
    await moto.demand_real_keys(False)
    (left,) = await keys(moto)
    assert left in delete.message


async def test_connection_reports_an_address_that_is_not_public(
    http: aiohttp.ClientSession, shop: dict[str, str], moto: MotoServer, bucket: str
) -> None:
    report = await probed(http, shop, connector(moto, cdn_base_url=f"{moto.url}/elsewhere"))

    public = report.steps[5]
    assert ("failed", 404) == (public.status, public.http_status)
    assert public.hint is not None
    assert "cdn_base_url" in public.hint
    assert "ok" == statuses(report)["delete"]


async def test_connection_reports_a_bucket_that_is_not_public(
    http: aiohttp.ClientSession, shop: dict[str, str], moto: MotoServer
) -> None:
    await moto.create_bucket("media")

    report = await probed(http, shop, connector(moto))

    assert dict.fromkeys(STEPS, "ok") | {"public_url": "failed", "cors": "skipped"} == statuses(report)
    public = report.steps[5]
    assert 403 == public.http_status
    assert public.hint is not None
    assert "bucket policy" in public.hint


@contextlib.contextmanager
def bound(*, listening: bool) -> Iterator[str]:
    """A port that refuses, or one that accepts connections and never answers."""
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        if listening:
            silent.listen(16)
        yield f"http://127.0.0.1:{silent.getsockname()[1]}"


async def test_connection_reports_an_endpoint_that_accepts_no_connection(
    http: aiohttp.ClientSession, shop: dict[str, str], moto: MotoServer
) -> None:
    with bound(listening=False) as url:
        report = await probed(http, shop, connector(moto, endpoint_url=url))

    assert dict.fromkeys(STEPS, "skipped") | {"fields": "ok", "reach": "failed"} == statuses(report)
    assert "EndpointConnectionError" == report.steps[1].code
    assert report.steps[1].hint is not None


async def test_connection_test_ends_in_time_when_the_endpoint_does_not_answer(
    run_service: RunService, shop: dict[str, str], moto: MotoServer
) -> None:
    hasty = msgspec.structs.replace(SERVICE, build=partial(build, test_deadline_s=1.0))
    async with run_service(hasty) as started, aiohttp.ClientSession(started.url) as http:
        with bound(listening=True) as url:
            begun = asyncio.get_running_loop().time()
            report = await probed(http, shop, connector(moto, endpoint_url=url))
            took_s = asyncio.get_running_loop().time() - begun

    # The deadline, and what else a request costs on a busy machine; the SDK by itself would wait for 30 s.
    assert took_s < 1.0 + 2.0
    assert ("failed", "timeout") == (report.steps[1].status, report.steps[1].code)
    assert "failed" == report.status


async def test_endpoint_in_our_own_network_is_refused_unless_the_operator_allows_it(
    settings: Settings, shop: dict[str, str], moto: MotoServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = socket.getaddrinfo

    def getaddrinfo(host: str, port: int, *arguments: Any, **options: Any) -> list[Any]:
        return known("127.0.0.1" if host == "store.example" else host, port, *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    strict = msgspec.structs.replace(settings, allow_private_endpoints=False)
    async with running(SERVICE, strict) as started, aiohttp.ClientSession(started.url) as http:
        async with http.put(CONNECTOR, json=connector(moto), headers=shop) as answer:
            problem = await answer.json()
        report = await probed(http, shop, connector(moto, endpoint_url="https://127.0.0.1:1"))
        by_name = connector(moto, access_key="A" * 20, endpoint_url="https://store.example")
        resolved = await probed(http, shop, by_name)

    assert (400, "endpoint_url") == (answer.status, problem["error"]["field"])
    assert "failed" == statuses(report)["fields"]
    assert {"fields": "ok", "reach": "failed"}.items() <= statuses(resolved).items()
    assert "reachable from the internet" in resolved.steps[1].message


@pytest.fixture
async def role(moto: MotoServer) -> str:
    """A role whose trust policy demands the external id of the tenant `shop`."""
    condition = {"StringEquals": {"sts:ExternalId": "shop:media"}}
    statement = {"Effect": "Allow", "Principal": {"AWS": "*"}, "Action": "sts:AssumeRole", "Condition": condition}
    policy = msgspec.json.encode({"Version": "2012-10-17", "Statement": [statement]}).decode()
    async with moto.client("iam") as iam:
        made = await iam.create_role(RoleName="media", AssumeRolePolicyDocument=policy)
    return str(made["Role"]["Arn"])


def role_connector(moto: MotoServer, role_arn: str, **changed: Any) -> dict[str, Any]:
    value = connector(moto, role_arn=role_arn, external_id="shop:media") | changed
    return {name: given for name, given in value.items() if given is not None}


@pytest.fixture
async def of_role(settings: Settings, moto: MotoServer) -> AsyncIterator[aiohttp.ClientSession]:
    """The service, which assumes roles at moto."""
    there = msgspec.structs.replace(settings, sts_endpoint_url=moto.url)
    async with running(SERVICE, there) as storage, aiohttp.ClientSession(storage.url) as session:
        yield session


async def test_role_that_the_keys_assume_stores(
    of_role: aiohttp.ClientSession, shop: dict[str, str], moto: MotoServer, bucket: str, role: str
) -> None:
    await put(of_role, shop, role_connector(moto, role))

    report = await probed(of_role, shop, None)
    photo = await stored(of_role, shop, form())

    assert dict.fromkeys(STEPS, "ok") == statuses(report)
    assert "amazon-storage" == photo.provider
    assert photo.original.key in await keys(moto)


async def test_role_that_this_service_assumes_by_itself_stores(
    of_role: aiohttp.ClientSession,
    shop: dict[str, str],
    moto: MotoServer,
    bucket: str,
    role: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "of-the-service")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "of-the-service")
    await put(of_role, shop, connector(moto))
    # The keys are left out; the secret that was saved with them goes too.
    value = role_connector(moto, role, access_key=None, secret_key=None)
    await put(of_role, shop, value)

    async with of_role.get(CONNECTOR, headers=shop) as answer:
        shown = await answer.json()
    report = await probed(of_role, shop, value)
    photo = await stored(of_role, shop, form())

    assert ("", "", role) == (shown["access_key"], shown["secret_key"], shown["role_arn"])
    assert dict.fromkeys(STEPS, "ok") == statuses(report)
    assert photo.original.key in await keys(moto)


async def test_role_without_an_identity_to_assume_it_is_reported(
    of_role: aiohttp.ClientSession,
    shop: dict[str, str],
    moto: MotoServer,
    bucket: str,
    role: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")

    report = await probed(of_role, shop, role_connector(moto, role, access_key=None, secret_key=None))

    assert {"fields": "ok", "reach": "failed", "put": "skipped"}.items() <= statuses(report).items()
    assert "NoCredentialsError" == report.steps[1].code
    assert report.steps[1].hint is not None
    assert "keys that may assume the role" in report.steps[1].hint


async def test_role_that_refuses_is_reported_with_the_error_of_sts_and_fails_uploads(
    of_role: aiohttp.ClientSession, shop: dict[str, str], moto: MotoServer, bucket: str, role: str
) -> None:
    user = await moto.create_user("stranger", actions=["s3:PutObject"])
    secret = user.secret_access_key.reveal()
    value = role_connector(moto, role, access_key=user.access_key_id, secret_key=secret)
    await put(of_role, shop, value)
    await moto.demand_real_keys()

    report = await probed(of_role, shop, value)
    status, body = await upload(of_role, shop, form())

    reach = report.steps[1]
    assert ("failed", "AccessDenied", 403) == (reach.status, reach.code, reach.http_status)
    assert reach.hint is not None
    assert "trust policy" in reach.hint
    assert (403, "denied") == (status, msgspec.json.decode(body)["error"]["code"])
    assert secret.encode() not in body + msgspec.json.encode(report)


async def test_role_of_another_tenant_is_not_saved_and_not_tried(
    of_role: aiohttp.ClientSession, rival: dict[str, str], moto: MotoServer, bucket: str, role: str
) -> None:
    path = CONNECTOR.replace("shop", "rival")
    value = role_connector(moto, role)

    async with of_role.put(path, json=value, headers=rival) as answer:
        problem = await answer.json()
    async with of_role.post(f"{path}/test", json=value, headers=rival) as tested:
        report = decode(await tested.read(), ConnectionReport)

    assert (400, "external_id") == (answer.status, problem["error"]["field"])
    assert "failed" == statuses(report)["fields"]
    assert report.steps[0].message.startswith("external_id: expected 'rival'")


async def test_a_field_that_is_written_in_another_way_is_refused_by_the_name_of_ours(
    http: aiohttp.ClientSession, shop: dict[str, str]
) -> None:
    form = {"accessKey": "AKIDEXAMPLE0000000", "secretKey": "secret", "bucketName": "media", "region": "eu-west-1"}
    for path in (CONNECTOR, f"{CONNECTOR}/test"):
        method = http.post if path.endswith("/test") else http.put
        async with method(path, json=form, headers=shop) as answer:
            error = (await answer.json())["error"]

        assert (400, "accessKey") == (answer.status, error["field"])
        assert "expected `access_key`" in error["message"]
