"""Exports by a role: a real NATS server, moto for the bucket, and an STS that checks the external id."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest
from aiohttp import ClientSession

from exporter.app import SERVICE
from exporter.destinations import patience
from exporter.destinations.platform import Platform
from exporter.destinations.s3 import S3Config
from shared.contracts import subjects
from shared.contracts.messages import Event, encode, make_attributes
from shared.contracts.subjects import partition_of
from shared.errors import DeniedError
from shared.messaging.bus import Bus
from shared.objects import store as object_store
from shared.runtime.settings import Settings
from support.outgoing import aws_clients, open_outgoing
from support.run_service import running
from support.servers.moto import MotoServer
from support.servers.stub_store import Fault, StubStore
from support.servers.stub_sts import ACCOUNT, StubSts

BUCKET = "raw-data"


@pytest.fixture(autouse=True)
def own_identity(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "of-the-service")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "of-the-service")


@pytest.fixture
async def sts() -> AsyncIterator[StubSts]:
    async with StubSts() as sts:
        yield sts


class Tenant:
    """A caller of the service."""

    def __init__(self, url: str, http: ClientSession) -> None:
        self._url = url
        self._http = http

    async def ask(
        self, method: str, path: str, body: Any = None, *, status: int = 200, headers: dict[str, str] | None = None
    ) -> Any:
        async with self._http.request(method, f"{self._url}/v1/apps/shop{path}", json=body, headers=headers) as answer:
            text = await answer.text()
            assert status == answer.status, text
            return msgspec.json.decode(text) if text else None


@pytest.fixture
async def tenant(
    settings: Settings, shop: dict[str, str], moto: MotoServer, bus: Bus, sts: StubSts
) -> AsyncIterator[Tenant]:
    await moto.create_bucket(BUCKET)
    there = msgspec.structs.replace(settings, sts_endpoint_url=sts.url)
    async with running(SERVICE, there) as service, ClientSession(headers=shop) as http:
        yield Tenant(service.url, http)


def form(moto: MotoServer, role_arn: str, **changes: Any) -> dict[str, Any]:
    destination = {
        "type": "s3",
        "bucket": BUCKET,
        "region": moto.region,
        "role_arn": role_arn,
        "directory": "clicks",
        "endpoint_url": moto.url,
    }
    return {"data": "clicks", "destination": destination | changes}


async def test_external_id_is_shown_before_there_is_an_export(tenant: Tenant) -> None:
    shown = [await tenant.ask("GET", "/external-id") for _ in range(2)]

    assert shown[0] == shown[1]
    assert ACCOUNT == shown[0]["aws_account"]
    [statement] = shown[0]["trust_policy"]["Statement"]
    assert {"AWS": f"arn:aws:iam::{ACCOUNT}:root"} == statement["Principal"]
    assert {"StringEquals": {"sts:ExternalId": shown[0]["external_id"]}} == statement["Condition"]
    china = await tenant.ask("GET", "/external-id?region=cn-north-1")
    assert {"AWS": f"arn:aws-cn:iam::{ACCOUNT}:root"} == china["trust_policy"]["Statement"][0]["Principal"]


async def test_trust_policy_is_absent_without_an_identity_of_our_own(
    tenant: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")

    shown = await tenant.ask("GET", "/external-id")

    assert shown["external_id"].startswith("shop:")
    assert (None, None) == (shown["aws_account"], shown["trust_policy"])


async def test_export_writes_by_a_role_that_demands_the_external_id(
    tenant: Tenant, moto: MotoServer, bus: Bus, sts: StubSts
) -> None:
    external_id = (await tenant.ask("GET", "/external-id"))["external_id"]
    role_arn = sts.add("exports", external_id=external_id)
    await tenant.ask("PUT", "/exports/clicks", form(moto, role_arn))
    event = Event(
        id="a",
        app_key="shop",
        type="click",
        code="click",
        user_id="a",
        occurred_at=1_795_314_667_123,
        attributes=make_attributes({}),
    )
    await bus.publish(subjects.events("shop", partition_of("a")), encode([event]))

    run = await tenant.ask("POST", "/exports/clicks/flush")

    assert ("completed", 1) == (run["state"], run["rows_out"])
    shown = await tenant.ask("GET", "/exports/clicks")
    assert (role_arn, "", "") == tuple(shown["destination"][name] for name in ("role_arn", "access_key", "secret_key"))
    assert external_id == (await tenant.ask("GET", "/external-id"))["external_id"]


async def test_role_that_demands_another_external_id_is_not_taken_but_by_force(
    tenant: Tenant, moto: MotoServer, sts: StubSts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patience, "PATIENCE_S", 0.1)
    role_arn = sts.add("exports", external_id="rival:0123")

    refused = await tenant.ask("PUT", "/exports/clicks", form(moto, role_arn), status=422)

    assert "destination" == refused["error"]["field"]
    [failed] = [step for step in refused["error"]["report"]["steps"] if step["status"] == "failed"]
    assert ("role", "AccessDenied") == (failed["name"], failed["code"])
    assert "rival" not in str(refused)
    await tenant.ask("GET", "/exports/clicks", status=404)
    await tenant.ask("PUT", "/exports/clicks?force=true", form(moto, role_arn))
    await tenant.ask("GET", "/exports/clicks")


async def test_role_that_aws_does_not_know_yet_is_tried_again(
    tenant: Tenant, moto: MotoServer, sts: StubSts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patience, "FIRST_DELAY_S", 0.01)
    external_id = (await tenant.ask("GET", "/external-id"))["external_id"]
    role_arn = sts.add("exports", external_id=external_id, fresh=3)

    tested = await tenant.ask("POST", "/exports/clicks/test", form(moto, role_arn))
    change = await tenant.ask("PUT", "/exports/clicks", form(moto, role_arn))

    # Test Connection tells at once; only the export that is to be stored waits.
    assert "failed" == tested["status"]
    assert "AWS may need a minute" in str(tested)
    assert "created" == change["change"]
    assert 0 == sts.roles[role_arn].fresh


async def test_bucket_that_locks_objects_is_refused_with_the_report(
    tenant: Tenant, moto: MotoServer, sts: StubSts
) -> None:
    async with StubStore("s3") as store:
        store.retention = "<Mode>GOVERNANCE</Mode><Days>1</Days>"
        keys = {"access_key": "testing", "secret_key": "testing-secret", "endpoint_url": store.url}

        refused = await tenant.ask("PUT", "/exports/clicks", form(moto, "", **keys), status=422)

    assert {"object_lock": "failed", "list": "ok", "put": "skipped"}.items() <= {
        step["name"]: step["status"] for step in refused["error"]["report"]["steps"]
    }.items()
    await tenant.ask("GET", "/exports/clicks", status=404)


async def test_export_of_events_leaves_at_most_one_object(tenant: Tenant, moto: MotoServer, sts: StubSts) -> None:
    async with StubStore("s3") as store:
        store.fault = Fault(status=403, code="AccessDenied", methods=frozenset({"DELETE"}))
        keys = {"access_key": "testing", "secret_key": "testing-secret", "endpoint_url": store.url}
        value = form(moto, "", **keys)
        events = [await tenant.ask("POST", "/exports/events/test", value | {"data": "events"}) for _ in range(2)]
        [left] = store.objects
        clicks = await tenant.ask("POST", "/exports/clicks/test", value)

    assert ["ok", "ok", "warning"] == [report["status"] for report in (*events, clicks)]
    assert left.startswith("/raw-data/clicks/.millrace-probe-")


async def test_external_id_goes_with_the_app_alone(
    tenant: Tenant, moto: MotoServer, sts: StubSts, admin: dict[str, str]
) -> None:
    before = (await tenant.ask("GET", "/external-id"))["external_id"]
    role_arn = sts.add("exports", external_id=before)
    await tenant.ask("PUT", "/exports/clicks", form(moto, role_arn))

    await tenant.ask("DELETE", "/external-id", status=403)
    await tenant.ask("DELETE", "/external-id", headers=admin, status=409)
    await tenant.ask("DELETE", "/exports/clicks", status=204)
    assert before == (await tenant.ask("GET", "/external-id"))["external_id"]
    await tenant.ask("DELETE", "/external-id", headers=admin, status=204)
    await tenant.ask("DELETE", "/external-id", headers=admin, status=404)

    assert before != (await tenant.ask("GET", "/external-id"))["external_id"]


async def test_policies_are_shown_before_and_after_there_is_an_export(
    tenant: Tenant, moto: MotoServer, sts: StubSts
) -> None:
    place = {"type": "s3", "bucket": BUCKET, "region": moto.region}
    before = await tenant.ask("POST", "/exports/events/policy", {"data": "events", "destination": place})
    external_id = (await tenant.ask("GET", "/external-id"))["external_id"]
    role_arn = sts.add("exports", external_id=external_id)
    others_role = sts.add("others", external_id=external_id)
    await tenant.ask("PUT", "/exports/clicks", form(moto, role_arn))
    await tenant.ask("PUT", "/exports/events", form(moto, role_arn, directory="") | {"data": "events"})
    await tenant.ask("PUT", "/exports/beside", form(moto, others_role, directory="beside"))

    after = await tenant.ask("GET", "/exports/events/policy")
    key = {"sse": "aws:kms", "sse_kms_key_id": "0aa0"}
    moved = await tenant.ask("POST", "/exports/events/policy", {"destination": place | key | {"directory": "moved"}})

    assert [["events"]] == [policy["exports"] for policy in before["policies"]]
    assert [("currents", ["events"]), ("dashboard", ["clicks"])] == [
        (policy["kind"], policy["exports"]) for policy in after["policies"]
    ]
    assert before["policies"][0] == after["policies"][0]
    assert external_id == after["external_id"]
    assert (await tenant.ask("GET", "/external-id"))["trust_policy"] == before["trust_policy"] == after["trust_policy"]
    objects, key_use = moved["policies"][0]["policy"]["Statement"][2:]
    assert [f"arn:aws:s3:::{BUCKET}/moved/*"] == objects["Resource"]
    assert f"arn:aws:kms:{moto.region}:*:key/0aa0" == key_use["Resource"]


async def test_policy_is_for_a_bucket_of_s3(tenant: Tenant, moto: MotoServer) -> None:
    gateway = {"data": "clicks", "destination": {"type": "gateway", "directory": "clicks"}}

    refused = await tenant.ask("POST", "/exports/clicks/policy", gateway, status=400)

    assert "destination.type" == refused["error"]["field"]
    await tenant.ask("GET", "/exports/clicks/policy", status=404)


@asynccontextmanager
async def role_platform(sts: StubSts) -> AsyncIterator[Platform]:
    async def external_id(app_key: str) -> str:
        return f"{app_key}:0123"

    def no_reports(_: Any) -> Any:
        raise AssertionError("no export here writes there")

    async with open_outgoing() as outgoing, aws_clients(sts_endpoint_url=sts.url) as aws:
        yield Platform(outgoing=outgoing, allow_private=True, open_reports=no_reports, aws=aws, external_id=external_id)


def role_config(sts: StubSts, store: StubStore) -> S3Config:
    role_arn = sts.add("exports", external_id="shop:0123")
    return S3Config(bucket="media", region="eu-west-1", role_arn=role_arn, endpoint_url=store.url)


async def test_keys_of_a_role_that_end_early_are_replaced_in_the_same_call(sts: StubSts) -> None:
    async with StubStore("s3") as store, role_platform(sts) as platform:
        store.tokens = sts.tokens
        async with role_config(sts, store).open("shop", platform) as destination:
            await destination.put("a", b"one", "text/plain")
            sts.tokens.clear()
            await destination.put("b", b"two", "text/plain")
            sts.tokens.clear()
            await destination.delete("b")

    assert ["/media/a"] == list(store.objects)
    assert 3 == sts.assumed()


async def test_revoked_session_is_replaced_once_and_a_denial_stays_one(
    sts: StubSts, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with StubStore("s3") as store, role_platform(sts) as platform:
        store.fault = Fault(status=403, code="AccessDenied")
        async with role_config(sts, store).open("shop", platform) as destination:
            with pytest.raises(DeniedError):
                await destination.put("a", b"one", "text/plain")
            fresh = len(store.requests)
            monkeypatch.setattr(object_store, "REVOKED_AFTER_S", -1)
            with pytest.raises(DeniedError):
                await destination.put("a", b"one", "text/plain")

    assert (1, 2) == (fresh, len(store.requests) - fresh)
    assert 2 == sts.assumed()
