"""Test Connection of a bucket of S3, step by step: moto, and stubs of a store and of STS for what moto does not say."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from msgspec import structs

from exporter.destinations.connection_test import probe_store
from exporter.destinations.platform import Platform
from exporter.destinations.s3 import S3Config
from exporter.destinations.s3_checks import S3Inspection
from shared.aws.roles import AwsCredentials
from shared.config.secret import Secret
from shared.contracts.connection_report import ConnectionReport, run_checks
from support.outgoing import aws_clients, open_outgoing
from support.servers.moto import MotoServer
from support.servers.stub_store import Fault, StubStore
from support.servers.stub_sts import StubSts

KEYS_STEPS = ["open", "region", "object_lock", "list", "put", "get", "delete"]
ROLE_STEPS = ["open", "role", "external_id", *KEYS_STEPS[1:]]


@pytest.fixture
async def sts() -> AsyncIterator[StubSts]:
    async with StubSts() as sts:
        yield sts


@pytest.fixture
async def store() -> AsyncIterator[StubStore]:
    async with StubStore("s3") as store:
        yield store


@pytest.fixture
async def platform(sts: StubSts, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Platform]:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "of-the-service")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "of-the-service")

    async def external_id(app_key: str) -> str:
        return f"{app_key}:0123"

    def no_reports(_: Any) -> Any:
        raise AssertionError("no export here writes there")

    async with open_outgoing() as outgoing, aws_clients(sts_endpoint_url=sts.url) as aws:
        yield Platform(outgoing=outgoing, allow_private=True, open_reports=no_reports, aws=aws, external_id=external_id)


def with_keys(endpoint_url: str, **changes: Any) -> S3Config:
    config = S3Config(
        bucket="media",
        region="eu-west-1",
        access_key="testing",
        secret_key=Secret("testing-secret"),
        directory="raw",
        endpoint_url=endpoint_url,
    )
    return structs.replace(config, **changes)


async def probed(config: S3Config, platform: Platform, **options: Any) -> ConnectionReport:
    return await probe_store(
        lambda: config.open("shop", platform), "raw/.probe", before=await config.checks("shop", platform), **options
    )


def told(report: ConnectionReport) -> dict[str, tuple[str, str | None]]:
    """The status and the code of each step."""
    return {step.name: (step.status, step.code) for step in report.steps}


async def test_every_step_passes_in_its_order(moto: MotoServer, platform: Platform) -> None:
    await moto.create_bucket("media")

    report = await probed(with_keys(moto.url), platform)

    assert dict.fromkeys(KEYS_STEPS, ("ok", None)) == told(report)
    assert KEYS_STEPS == [step.name for step in report.steps]
    assert "the bucket is in eu-west-1" == report.steps[1].message


async def test_role_is_assumed_and_has_to_demand_the_external_id(
    store: StubStore, sts: StubSts, platform: Platform
) -> None:
    config = with_keys(store.url, access_key="", role_arn=sts.add("exports", external_id="shop:0123"))

    report = await probed(config, platform)

    assert dict.fromkeys(ROLE_STEPS, ("ok", None)) == told(report)
    assert ROLE_STEPS == [step.name for step in report.steps]
    assumed = [call.get("ExternalId") for call in sts.calls]
    assert None in assumed
    assert {"shop:0123", None} == set(assumed)


async def test_role_that_trusts_without_the_external_id_is_a_warning(
    store: StubStore, sts: StubSts, platform: Platform
) -> None:
    config = with_keys(store.url, access_key="", role_arn=sts.add("exports"))

    report = await probed(config, platform)

    assert "warning" == report.status
    assert ("warning", "confused_deputy") == told(report)["external_id"]
    assert ("ok", None) == told(report)["put"]
    assert "trust policy" in str(next(step.hint for step in report.steps if step.name == "external_id"))


async def test_role_that_is_not_given_stops_the_test_and_writes_nothing(
    store: StubStore, sts: StubSts, platform: Platform
) -> None:
    config = with_keys(store.url, access_key="", role_arn=sts.add("exports", external_id="rival:4567"))

    report = await probed(config, platform)

    assert ("failed", "AccessDenied") == told(report)["role"]
    assert {"skipped"} == {told(report)[name][0] for name in ROLE_STEPS[2:]}
    assert [] == store.requests
    assert "rival:4567" not in str(report)
    assert "shop:0123" not in str(report)


@pytest.mark.parametrize(("bucket", "status"), [("eu-west-1", "ok"), ("us-east-2", "failed"), ("", "failed")])
async def test_wrong_region_is_a_failure_at_aws(platform: Platform, bucket: str, status: str) -> None:
    async with StubStore("s3", region=bucket) as store:
        inspection = S3Inspection(
            clients=platform.aws,
            credentials=AwsCredentials(access_key_id="testing", secret_access_key=Secret("testing")),
            bucket="media",
            region="eu-west-1",
            folder="raw",
            endpoint_url=store.url,
            at_aws=True,
        )
        report = await run_checks(inspection.checks())

    assert status == told(report)["region"][0]
    if status == "failed":
        assert "the bucket is in us-east-" in report.steps[0].message
        assert "skipped" == told(report)["object_lock"][0]


async def test_region_of_another_store_is_a_warning(platform: Platform) -> None:
    async with StubStore("s3", region="garage") as store:
        report = await probed(with_keys(store.url), platform)

    assert ("warning", None) == told(report)["region"]
    assert ("ok", None) == told(report)["put"]


async def test_region_that_a_refusal_names_is_a_failure(store: StubStore, platform: Platform) -> None:
    store.fault = Fault(status=301, code="PermanentRedirect", region="us-east-2")

    report = await probed(with_keys(store.url), platform)

    assert ("failed", "wrong_region") == told(report)["region"]
    assert ("skipped", None) == told(report)["put"]
    assert "Enter us-east-2 as the region." == next(step.hint for step in report.steps if step.name == "region")


async def test_bucket_that_locks_objects_is_refused_before_anything_is_written(
    store: StubStore, platform: Platform
) -> None:
    store.retention = "<Mode>COMPLIANCE</Mode><Days>30</Days>"

    report = await probed(with_keys(store.url), platform)

    assert "failed" == report.status
    assert ("failed", "object_lock") == told(report)["object_lock"]
    assert "30 days (COMPLIANCE)" in str(report)
    assert {} == store.objects


async def test_default_retention_is_found_at_moto_and_object_lock_without_it_is_not(
    moto: MotoServer, platform: Platform
) -> None:
    place = {"CreateBucketConfiguration": {"LocationConstraint": moto.region}}
    async with moto.client("s3") as s3:
        for bucket in ("media", "archive"):
            await s3.create_bucket(Bucket=bucket, ObjectLockEnabledForBucket=True, **place)
        rule = {"DefaultRetention": {"Mode": "GOVERNANCE", "Years": 1}}
        lock = {"ObjectLockEnabled": "Enabled", "Rule": rule}
        await s3.put_object_lock_configuration(Bucket="archive", ObjectLockConfiguration=lock)
    enabled = await probed(with_keys(moto.url), platform)
    locked = await probed(with_keys(moto.url, bucket="archive"), platform)

    assert ("ok", None) == told(enabled)["object_lock"]
    assert ("failed", "object_lock") == told(locked)["object_lock"]


async def test_keys_that_may_only_write_and_read_pass_with_warnings(moto: MotoServer, platform: Platform) -> None:
    await moto.create_bucket("media")
    keys = await moto.create_user("writer", actions=("s3:PutObject", "s3:GetObject"))
    await moto.demand_real_keys()
    config = with_keys(moto.url, access_key=keys.access_key_id, secret_key=keys.secret_access_key)

    report = await probed(config, platform)

    found = told(report)
    assert "warning" == report.status
    assert ("unknown", "AccessDenied") == found["object_lock"]
    assert [("warning", "AccessDenied")] * 2 == [found["list"], found["delete"]]
    assert [("ok", None)] * 2 == [found["put"], found["get"]]


async def test_store_that_knows_none_of_the_questions_passes(store: StubStore, platform: Platform) -> None:
    store._tell_of_bucket = lambda request, about: store._error(501, "NotImplemented")  # type: ignore[method-assign]

    report = await probed(with_keys(store.url), platform)

    found = told(report)
    assert [("unknown", "NotImplemented")] * 2 == [found["region"], found["object_lock"]]
    assert ("warning", "NotImplemented") == found["list"]
    assert ("ok", None) == found["put"]


@pytest.mark.parametrize("deletes", [True, False])
async def test_object_is_removed_where_that_is_allowed(store: StubStore, platform: Platform, deletes: bool) -> None:
    report = await probed(with_keys(store.url), platform, deletes=deletes)

    assert "ok" == report.status
    assert deletes == ("delete" in told(report))
    assert {} == store.objects


async def test_object_stays_for_the_next_test_where_the_right_to_delete_is_not_needed(
    store: StubStore, platform: Platform
) -> None:
    store.fault = Fault(status=403, code="AccessDenied", methods=frozenset({"DELETE"}))

    reports = [await probed(with_keys(store.url), platform, deletes=False) for _ in range(2)]

    assert ["ok", "ok"] == [report.status for report in reports]
    assert ["/media/raw/.probe"] == list(store.objects)
    assert "raw/.probe stays" in reports[1].steps[-1].message


async def test_object_that_is_not_ours_fails_the_test(store: StubStore, platform: Platform) -> None:
    store.objects["/media/raw/.probe"] = (b"another's", {})

    assert ("failed", "conflict") == told(await probed(with_keys(store.url), platform, deletes=False))["get"]
    assert ("failed", "conflict") == told(await probed(with_keys(store.url), platform))["put"]


async def test_report_comes_in_time_when_the_store_is_silent(store: StubStore, platform: Platform) -> None:
    store.fault = Fault(deed="hang")

    async with asyncio.timeout(30):
        report = await probed(with_keys(store.url), platform, deadline_s=1)

    assert ("failed", "timeout") == told(report)["region"]
    assert KEYS_STEPS == [step.name for step in report.steps]
