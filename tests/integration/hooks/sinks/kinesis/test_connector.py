"""The Kinesis connector of a tenant: keys that sign, the record of Test Connection, and the size limit of a record."""

import json
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from hooks.app import SERVICE
from hooks.handlers import ProbeConnector
from shared.aws import clients
from shared.contracts import streams, subjects
from shared.contracts.connection_report import ConnectionReport
from shared.contracts.messages import DeadLetter, Event, decode, encode, make_attributes
from shared.messaging.bus import Bus
from shared.messaging.consumers import open_scan
from shared.runtime.settings import Settings
from support.clients.hooks import HooksClient, connector, events, holds, open_client, wait_acknowledged
from support.run_service import running
from support.servers.kinesis import FaultyKinesis
from support.servers.moto import MotoServer


@pytest.fixture
async def client(client: HooksClient, kinesis: FaultyKinesis) -> HooksClient:
    """Tenant `shop` with a connector."""
    await client.connect(kinesis)
    return client


def statuses(report: dict[str, Any]) -> list[str]:
    return [step["status"] for step in report["steps"]]


async def test_a_test_record_says_what_it_is_and_where_it_went(client: HooksClient, kinesis: FaultyKinesis) -> None:
    kinesis.denied_operations = {"DescribeStreamSummary", "GetCallerIdentity"}

    _, told = await client.ask("POST", "/connectors/kinesis/test", {"stream_name": "orders", "test_record": True})

    (stored,) = kinesis.records("orders")
    assert "millrace.test.v1" == stored.value["schema"]
    assert ("ok", ["unknown", "unknown", "ok"]) == (told["status"], statuses(told))
    message = told["steps"][2]["message"]
    assert f"{stored.value['id']} is in {stored.shard} as number {stored.sequence}" == message


async def test_a_test_record_that_is_denied_or_throttled_is_reported(
    client: HooksClient, kinesis: FaultyKinesis
) -> None:
    asked = {"stream_name": "orders", "test_record": True}
    kinesis.denied_operations = {"PutRecords", "PutRecord"}
    _, denied = await client.ask("POST", "/connectors/kinesis/test", asked)
    kinesis.denied_operations = set()
    kinesis.record_failure_rate = 1.0
    _, throttled = await client.ask("POST", "/connectors/kinesis/test", asked)

    assert ("failed", "AccessDeniedException") == (denied["status"], denied["steps"][2]["code"])
    assert "PutRecords with" in denied["steps"][2]["message"]
    assert ["ok", "ok", "failed"] == statuses(throttled)
    assert "ProvisionedThroughputExceededException" == throttled["steps"][2]["code"]


async def test_a_test_record_needs_a_stream(client: HooksClient, kinesis: FaultyKinesis) -> None:
    status, told = await client.ask("POST", "/connectors/kinesis/test", {"test_record": True})

    assert (400, "stream_name") == (status, told["error"]["field"])


async def test_a_test_record_can_be_requested_by_nats(client: HooksClient, kinesis: FaultyKinesis, bus: Bus) -> None:
    asked = ProbeConnector(app_key="shop", stream_name="orders", test_record=True)

    told = await bus.request(subjects.connector_test("hooks"), asked, ConnectionReport, timeout_s=10)

    assert ["ok", "ok", "ok"] == [step.status for step in told.steps]
    assert 1 == len(kinesis.records("orders"))


@pytest.fixture
async def of_role(settings: Settings, shop: dict[str, str], moto: MotoServer, bus: Bus) -> AsyncIterator[HooksClient]:
    """Tenant `shop` at a service that assumes roles at moto, where there is the stream `orders`."""
    await moto.create_stream("orders", shards=1)
    there = msgspec.structs.replace(settings, sts_endpoint_url=moto.url)
    async with running(SERVICE, there) as service, open_client(service.url, shop) as client:
        yield client


async def role_connector(moto: MotoServer, **changes: Any) -> dict[str, Any]:
    """The form of a connector with a role."""
    condition = {"StringEquals": {"sts:ExternalId": "shop:streams"}}
    statement = {"Effect": "Allow", "Principal": {"AWS": "*"}, "Action": "sts:AssumeRole", "Condition": condition}
    policy = msgspec.json.encode({"Version": "2012-10-17", "Statement": [statement]}).decode()
    async with moto.client("iam") as iam:
        made = await iam.create_role(RoleName="streams", AssumeRolePolicyDocument=policy)
    role = {"role_arn": made["Role"]["Arn"], "external_id": "shop:streams"}
    return {"region": moto.region, "endpoint_url": moto.url} | role | changes


async def ids_at(moto: MotoServer) -> list[str]:
    async with moto.client("kinesis") as kinesis:
        (shard,) = (await kinesis.list_shards(StreamName="orders"))["Shards"]
        where = {"StreamName": "orders", "ShardId": shard["ShardId"], "ShardIteratorType": "TRIM_HORIZON"}
        iterator = (await kinesis.get_shard_iterator(**where))["ShardIterator"]
        records = (await kinesis.get_records(ShardIterator=iterator))["Records"]
        return [json.loads(record["Data"])["id"] for record in records]


async def test_a_role_that_the_keys_assume_sends(of_role: HooksClient, moto: MotoServer, bus: Bus) -> None:
    form = await role_connector(moto, api_key="testing", secret_key="testing-secret")
    assert 200 == (await of_role.ask("PUT", "/connectors/kinesis", form))[0]
    _, tested = await of_role.ask("POST", "/connectors/kinesis/test", {"stream_name": "orders"})
    await of_role.hook("all")
    await of_role.post(events(5, users=1))
    await wait_acknowledged(bus)

    assert ["ok", "ok", "skipped"] == statuses(tested)
    assert "assumed-role/streams/millrace" in tested["steps"][0]["message"]
    assert [event["id"] for event in events(5, users=1)] == await ids_at(moto)


async def test_a_role_that_this_service_assumes_by_itself_sends(
    of_role: HooksClient, moto: MotoServer, bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "of-the-service")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "of-the-service")
    form = await role_connector(moto)
    with_keys = form | {"api_key": "testing", "secret_key": "testing-secret"}
    assert 200 == (await of_role.ask("PUT", "/connectors/kinesis", with_keys))[0]
    # The keys are left out; the secret that was saved with them goes too.
    assert 200 == (await of_role.ask("PUT", "/connectors/kinesis", form))[0]
    _, shown = await of_role.ask("GET", "/connectors/kinesis")
    await of_role.hook("all")
    await of_role.post(events(5, users=1))
    await wait_acknowledged(bus)

    assert ("", "", form["role_arn"]) == (shown["api_key"], shown["secret_key"], shown["role_arn"])
    assert [event["id"] for event in events(5, users=1)] == await ids_at(moto)


@pytest.mark.parametrize("ended_as", ["expired", "denied"])
async def test_a_role_whose_keys_end_early_is_assumed_anew_once(
    of_role: HooksClient,
    moto: MotoServer,
    kinesis: FaultyKinesis,
    bus: Bus,
    monkeypatch: pytest.MonkeyPatch,
    ended_as: str,
) -> None:
    monkeypatch.setattr(clients, "REVOKED_AFTER_S", -1)
    kinesis.ended_as = ended_as
    form = await role_connector(moto, api_key="testing", secret_key="testing-secret", endpoint_url=kinesis.url)
    assert 200 == (await of_role.ask("PUT", "/connectors/kinesis", form))[0]
    await of_role.hook("all")
    await of_role.post(events(5, users=1))
    await kinesis.wait_records("orders", holds(5))
    (first,) = set(kinesis.keys_seen)
    kinesis.ended_keys = {first}

    await of_role.post(events(40, users=20, code="later"))
    await wait_acknowledged(bus)

    first_again, second = sorted(set(kinesis.keys_seen), key=kinesis.keys_seen.index)
    assert (first, True) == (first_again, second.startswith("ASIA"))
    assert None is (await of_role.status("all"))["waits_because"]


async def test_a_stream_is_named_by_its_arn(client: HooksClient, kinesis: FaultyKinesis, bus: Bus) -> None:
    arn = "arn:aws:kinesis:eu-west-1:123456789012:stream/orders"
    await client.hook("all", stream_name=arn)
    _, tested = await client.ask("POST", "/connectors/kinesis/test", {"stream_name": arn, "test_record": True})
    await client.post(events(3, users=3))
    await wait_acknowledged(bus)
    refused, told = await client.ask("PUT", "/hooks/bad", {"stream_name": "arn:aws:s3:::orders"})

    assert (["ok", "ok", "ok"], {arn}) == (statuses(tested), kinesis.arns_seen)
    assert 4 == len(kinesis.records("orders"))
    assert (400, "stream_name") == (refused, told["error"]["field"])


async def test_a_role_without_credentials_to_assume_it_is_reported(
    of_role: HooksClient, moto: MotoServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")

    _, tested = await of_role.ask(
        "POST", "/connectors/kinesis/test", await role_connector(moto) | {"stream_name": "orders"}
    )

    assert ["failed", "skipped", "skipped"] == statuses(tested)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"external_id": "rival:streams"}, "external_id"),
        ({"role_arn": "arn:aws:iam::123456789012:user/streams"}, "role_arn"),
        ({"role_arn": "", "external_id": "", "api_key": ""}, "api_key"),
    ],
)
async def test_a_bad_role_is_refused_and_the_field_named(
    client: HooksClient, kinesis: FaultyKinesis, changes: dict[str, Any], field: str
) -> None:
    role = {"role_arn": "arn:aws:iam::123456789012:role/streams", "external_id": "shop:streams"}

    status, told = await client.ask("PUT", "/connectors/kinesis", connector(kinesis, **role) | changes)

    assert (400, field) == (status, told["error"]["field"])


async def publish(bus: Bus, *found: Event) -> None:
    """Events as a publisher on NATS sends them."""
    for event in found:
        await bus.publish(subjects.events("shop", subjects.partition_of(event.user_id)), encode([event]))


def large(name: str, attributes: int, tokens: int = 0) -> Event:
    """An event with so many bytes in its attributes, and in its device tokens."""
    event = Event(
        id=name,
        app_key="shop",
        code="c",
        user_id="u",
        occurred_at=1,
        attributes=make_attributes({"a": "x" * attributes}),
    )
    identities = msgspec.structs.replace(event.identities, device_tokens=("t" * tokens,) if tokens else ())
    return msgspec.structs.replace(event, identities=identities)


async def letters(bus: Bus, subject: str, number: int) -> list[DeadLetter]:
    found: list[DeadLetter] = []
    async with open_scan(bus, streams.DLQ, subject=subject) as scan:
        while len(found) < number:
            found += [decode(message.data, DeadLetter) for message in await scan.next(number)]
    return found


async def test_each_hook_has_its_own_limit(client: HooksClient, kinesis: FaultyKinesis, bus: Bus) -> None:
    kinesis.create_stream("small")
    await client.hook("all")
    await client.hook("small", stream_name="small", max_record_bytes=1024)
    await publish(bus, large("fits", 10), large("large", 2000), large("last", 10))
    await wait_acknowledged(bus)

    assert ["fits", "large", "last"] == [record.value["id"] for record in kinesis.records("orders")]
    assert ["fits", "last"] == [record.value["id"] for record in kinesis.records("small")]
    (letter,) = await letters(bus, "dlq.hooks.shop.small.oversize", 1)
    assert letter.message.startswith("expected at most 1024 bytes with the key, got 2")


async def test_what_is_too_large_goes_without_attributes_where_the_hook_says_so(
    client: HooksClient, kinesis: FaultyKinesis, bus: Bus
) -> None:
    await client.hook("all", max_record_bytes=1024, oversize="strip")
    await publish(bus, large("fits", 10), large("large", 2000), large("hopeless", 10, tokens=2000), large("last", 10))
    await wait_acknowledged(bus)

    records = await kinesis.wait_records("orders", holds(3))
    told = [
        (record.value["id"], record.value.get("stripped"), record.value["event"]["attributes"]) for record in records
    ]
    assert [("fits", None, {"a": "x" * 10}), ("large", True, {}), ("last", None, {"a": "x" * 10})] == told
    (letter,) = await letters(bus, "dlq.hooks.shop.all.oversize", 1)
    assert "hopeless" == json.loads(letter.body)["id"]
    status = await client.status("all")
    assert (4, 3, 1) == (status["matched"], status["sent"], status["dead_lettered"])
