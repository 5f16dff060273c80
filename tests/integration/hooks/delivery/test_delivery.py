"""Events that are posted arrive at Kinesis as hooks define: once and in order, for any failure between."""

import io
import json
from hashlib import sha256
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import pytest

from hooks.app import SERVICE
from hooks.handlers import ProbeConnector
from shared.contracts import streams, subjects
from shared.contracts.connection_report import ConnectionReport
from shared.contracts.messages import Alert, DeadLetter, Event, decode, encode
from shared.errors import NotFoundError
from shared.messaging.bus import Bus
from shared.messaging.consumers import open_scan
from shared.messaging.provisioning.making import ensure
from shared.profiles.store import Profiles
from shared.runtime import logs
from shared.runtime.settings import Settings
from shared.service import RunningService
from support.clients.hooks import (
    SECRET,
    HooksClient,
    by_user,
    connector,
    events,
    first_successes,
    holds,
    open_client,
    pending,
    wait_acknowledged,
)
from support.run_service import RunService, running
from support.servers.kinesis import FaultyKinesis
from support.servers.moto import MotoServer

NEW_SECRET = "not-a-real-secret-key-9876543210"
SCHEMA = json.loads((Path(__file__).parents[4] / "docs/schemas/hook.event.v1.json").read_text())


@pytest.fixture
async def client(client: HooksClient, kinesis: FaultyKinesis) -> HooksClient:
    """Tenant `shop` with a connector and a hook for everything."""
    await client.connect(kinesis)
    await client.hook("all")
    return client


async def read_all(bus: Bus, stream: streams.Stream, subject: str, number: int) -> list[Any]:
    """The first messages of a subject."""
    found: list[Any] = []
    async with open_scan(bus, stream, subject=subject) as scan:
        while len(found) < number:
            found += await scan.next(number)
    return found


async def test_matching_events_arrive_once_and_in_order(client: HooksClient, kinesis: FaultyKinesis, bus: Bus) -> None:
    posted = events(3000, users=37)
    await client.post(posted)

    records = await kinesis.wait_records("orders", holds(3000))

    assert by_user(posted) == first_successes(records)
    assert 3000 == len(records)
    for record in records[:50]:
        assert record.key == record.value["user"]["userId"]
        jsonschema.validate(record.value, SCHEMA, cls=jsonschema.Draft202012Validator)
    await wait_acknowledged(bus)
    status = await client.status("all")
    assert (3000, 3000, 0) == (status["matched"], status["sent"], status["failed"])


async def test_each_user_keeps_the_order_while_a_tenth_of_the_records_fails(
    client: HooksClient, kinesis: FaultyKinesis, hooks: RunningService, bus: Bus
) -> None:
    kinesis.record_failure_rate = 0.1
    kinesis.call_faults.extend(["throttled", "internal", "none", "closed", "short", "none", "unavailable", "long"])
    posted = events(1200, users=23)
    await client.post(posted)

    records = await kinesis.wait_records("orders", holds(1200))

    assert by_user(posted) == first_successes(records)
    assert kinesis.failed_records > 60
    await wait_acknowledged(bus)
    assert b"millrace_hooks_order_inversions_total 0.0" in hooks.mesh.metrics.render()
    assert (await client.status("all"))["last_error"] is not None


async def test_nothing_is_acknowledged_before_kinesis_has_it(
    client: HooksClient, kinesis: FaultyKinesis, bus: Bus
) -> None:
    kinesis.fails_record = lambda key, data: b'"id":"e000003"' in data
    await client.post(events(10, users=1))

    await kinesis.wait_records("orders", holds(3))
    assert ["e000000", "e000001", "e000002"] == [record.value["id"] for record in kinesis.records("orders")]
    assert 1 == await pending(bus)
    kinesis.fails_record = None
    await kinesis.wait_records("orders", holds(10))
    await wait_acknowledged(bus)


async def test_hooks_fire_for_their_trigger_and_code_alone(client: HooksClient, kinesis: FaultyKinesis) -> None:
    kinesis.create_stream("logs")
    await client.hook("all", event_code=["login", "search"])
    await client.hook("delivered", trigger_type="MESSAGE_LOG", event_code="delivered", stream_name="logs")
    await client.post(
        [
            {"id": f"{kind}-{code}", "type": kind, "code": code, "user_id": "u"}
            for kind in ("event", "message_log", "click")
            for code in ("login", "delivered", "purchase")
        ]
    )

    (order,) = await kinesis.wait_records("orders", holds(1))
    (log,) = await kinesis.wait_records("logs", holds(1))

    assert ("event-login", "EVENT", "all") == (order.value["id"], order.value["triggerType"], order.value["hookId"])
    assert ("message_log-delivered", "MESSAGE_LOG") == (log.value["id"], log.value["triggerType"])


async def test_what_a_stop_left_comes_again_in_order(
    settings: Settings, shop: dict[str, str], kinesis: FaultyKinesis, bus: Bus
) -> None:
    posted = events(400, users=7)
    kinesis.fails_record = lambda _, data: data.split(b'"id":"e')[1][:6] > b"000150"
    impatient = msgspec.structs.replace(settings, stop_deadline_s=0.2)
    async with running(SERVICE, impatient) as service, open_client(service.url, shop) as client:
        await client.connect(kinesis)
        await client.hook("all")
        for place in range(0, 400, 10):
            await client.post(posted[place : place + 10])
        await kinesis.wait_records("orders", lambda records: len(records) > 100)
    kinesis.fails_record = None
    assert await pending(bus) > 0
    async with running(SERVICE, settings):
        records = await kinesis.wait_records("orders", holds(400))

        assert by_user(posted) == first_successes(records)
        await wait_acknowledged(bus)


async def test_a_stop_finishes_what_was_pulled_and_repeats_nothing(
    run_service: RunService, shop: dict[str, str], kinesis: FaultyKinesis, bus: Bus
) -> None:
    posted = events(3000, users=100)
    kinesis.delay_s = 0.01
    kinesis.record_failure_rate = 0.05
    async with run_service(SERVICE) as service, open_client(service.url, shop) as client:
        await client.connect(kinesis)
        await client.hook("all")
        for place in range(0, 3000, 100):
            await client.post(posted[place : place + 100])
        await kinesis.wait_records("orders", holds(200))
    async with run_service(SERVICE):
        records = await kinesis.wait_records("orders", holds(3000))
        await wait_acknowledged(bus)

    assert 3000 == len(records)
    assert by_user(posted) == first_successes(records)


async def test_a_missing_stream_keeps_its_events_and_says_so_once(
    hooks: RunningService, client: HooksClient, kinesis: FaultyKinesis, bus: Bus
) -> None:
    await client.hook("all", stream_name="later")
    posted = events(20, users=3)
    await client.post(posted)
    (told,) = await read_all(bus, streams.ALERTS, "alerts.hooks.shop.target-paused", 1)

    assert 20 == (await client.status("all"))["matched"]
    assert "ResourceNotFoundException" in (await client.status("all"))["waits_because"]
    assert await pending(bus) > 0
    assert "later" == decode(told.data, Alert).subject
    assert b'millrace_hook_lag_events{app_key="shop",hook_id="all"} 20.0' in hooks.mesh.metrics.render()
    kinesis.create_stream("later")
    await client.hook("all", stream_name="later", name="mended")
    records = await kinesis.wait_records("later", holds(20))
    assert by_user(posted) == first_successes(records)
    await wait_acknowledged(bus)
    numbers = hooks.mesh.metrics.render()
    assert b'millrace_hook_sent_total{app_key="shop",hook_id="all"} 20.0' in numbers
    assert b'millrace_hook_lag_events{app_key="shop",hook_id="all"} 0.0' in numbers
    assert 1 == len(await read_all(bus, streams.ALERTS, "alerts.hooks.shop.target-resumed", 1))


async def test_events_follow_a_hook_whose_stream_name_is_mended(
    client: HooksClient, kinesis: FaultyKinesis, bus: Bus
) -> None:
    await client.hook("all", stream_name="oders")
    posted = events(20, users=3)
    await client.post(posted)
    await read_all(bus, streams.ALERTS, "alerts.hooks.shop.target-paused", 1)

    await client.hook("all", stream_name="orders")

    assert by_user(posted) == first_successes(await kinesis.wait_records("orders", holds(20)))
    await wait_acknowledged(bus)


async def test_revoked_keys_hold_the_events_until_new_ones_are_saved(
    client: HooksClient, kinesis: FaultyKinesis, bus: Bus
) -> None:
    kinesis.known_keys = {"AKIANEWNEWNEWEXAMPLE"}
    posted = events(20, users=3)
    await client.post(posted)
    (told,) = await read_all(bus, streams.ALERTS, "alerts.hooks.shop.target-paused", 1)

    assert SECRET not in told.data.decode()
    await client.connect(kinesis, api_key="AKIANEWNEWNEWEXAMPLE")
    assert by_user(posted) == first_successes(await kinesis.wait_records("orders", holds(20)))
    await wait_acknowledged(bus)


async def test_keys_revoked_and_restored_under_load_lose_nothing_and_are_reported_once_without_a_secret(
    client: HooksClient,
    kinesis: FaultyKinesis,
    hooks: RunningService,
    bus: Bus,
    shop: dict[str, str],
) -> None:
    logged = io.StringIO()
    logs.configure(service="hooks", level="debug", format="json", stream=logged)
    kinesis.record_failure_rate, kinesis.delay_s = 0.05, 0.005
    posted = events(3000, users=50)
    for place in range(0, 3000, 100):
        await client.post(posted[place : place + 100])
        if place == 1000:
            kinesis.known_keys = {"AKIANEWNEWNEWEXAMPLE"}
    await read_all(bus, streams.ALERTS, "alerts.hooks.shop.target-paused", 1)
    paused = await client.ask("GET", "/hooks/all/status")
    await client.connect(kinesis, api_key="AKIANEWNEWNEWEXAMPLE", secret_key=NEW_SECRET)
    records = await kinesis.wait_records("orders", holds(3000))

    assert by_user(posted) == first_successes(records)
    await wait_acknowledged(bus)
    assert b"millrace_hooks_order_inversions_total 0.0" in hooks.mesh.metrics.render()
    told = await read_all(bus, streams.ALERTS, "alerts.hooks.shop.*", 2)
    assert ["target-paused", "target-resumed"] == [decode(message.data, Alert).kind for message in told]
    places = {
        "logs": logged.getvalue(),
        "alerts": "".join(message.data.decode() for message in told),
        "metrics": hooks.mesh.metrics.render().decode(),
        "status": json.dumps([paused, await client.ask("GET", "/hooks/all/status")]),
    }
    signs = {
        "logs": '"action":"target_call_failed"',
        "alerts": "UnrecognizedClientException",
        "metrics": 'outcome="credentials"',
        "status": "UnrecognizedClientException",
    }
    assert signs == {place: sign for place, sign in signs.items() if sign in places[place]}, "nothing was looked at"
    token = shop["Authorization"].split()[1]
    for secret in (SECRET, NEW_SECRET, "AKIAIOSFODNN7EXAMPLE", "AKIANEWNEWNEWEXAMPLE", token):
        assert [] == [place for place, text in places.items() if secret in text]


async def test_an_inactive_connector_sends_nothing_and_holds_nothing(
    client: HooksClient, kinesis: FaultyKinesis, bus: Bus
) -> None:
    await client.connect(kinesis, active=False)
    await client.post(events(10, users=3))
    await wait_acknowledged(bus)
    why = (await client.status("all"))["advice"]
    await client.connect(kinesis)
    await client.post([{"id": "after", "code": "c", "user_id": "u"}])

    assert ["after"] == [record.value["id"] for record in await kinesis.wait_records("orders", holds(1))]
    status = await client.status("all")
    assert ("nothing is sent, because the Kinesis connector is inactive", None) == (why, status["advice"])
    assert 10 == status["skipped_inactive"]


async def test_bad_messages_are_dead_lettered_and_stop_nothing(
    client: HooksClient, kinesis: FaultyKinesis, bus: Bus
) -> None:
    partition = subjects.partition_of("u1")
    subject = subjects.events("shop", partition)
    good = Event(id="good", app_key="shop", code="c", user_id="u1", occurred_at=1)
    foreign = Event(id="foreign", app_key="rival", code="c", user_id="u1", occurred_at=1)
    for data in (b"not JSON", b'{"not": "an array"}', b"[" * 5000, b"\x00\xff"):
        await bus.publish(subject, data)
    await bus.publish(subject, b'[{"id":"bad"},' + encode(good) + b"," + encode(foreign) + b"]")

    (record,) = await kinesis.wait_records("orders", holds(1))
    letters = [
        decode(message.data, DeadLetter)
        for message in await read_all(bus, streams.DLQ, "dlq.hooks.shop.entrance.invalid", 6)
    ]

    assert "good" == record.value["id"]
    assert ["not JSON", '{"not": "an array"}'] == [letter.body for letter in letters[:2]]
    assert ["EVENTS:5:0", "EVENTS:5:2"] == [letter.source for letter in letters[4:]]
    assert "EVENTS:5:1" == record.value["source"]
    await wait_acknowledged(bus)


async def test_poison_events_are_dead_lettered_with_a_reason_and_stop_nothing(
    client: HooksClient, kinesis: FaultyKinesis, bus: Bus
) -> None:
    def place(user_id: str) -> str:
        return subjects.events("shop", subjects.partition_of(user_id))

    good: dict[str, Any] = {"id": "good", "app_key": "shop", "code": "c", "user_id": "u1", "occurred_at": 1}
    long = good | {"id": "long", "user_id": "x" * 300}
    nul = good | {"id": "nul", "user_id": "u\0"}
    poison = [
        good | {"user_id": ""},
        good | {"user_id": 7},
        good | {"user_id": None},
        good | {"user_id": "x" * 1025},
        good | {"occurred_at": "now"},
        good | {"attributes": [1]},
        good | {"attributes": {"a": "\ud800"}},
        good | {"user_id": "\udfff"},
        {},
        None,
    ]
    # NATS takes any bytes for a subject, and nobody's app has this key.
    nobodys = place("u1").encode().replace(b"shop", b"\xff")
    body = json.dumps([good]).encode()
    await bus.client._send_command(b"PUB %b %d\r\n%b\r\n" % (nobodys, len(body), body))
    for event in poison:
        await bus.publish(place("u1"), json.dumps([event]).encode())
    await bus.publish(place("u1"), json.dumps([*poison, good]).encode())
    await bus.publish(place(long["user_id"]), json.dumps([long]).encode())
    await bus.publish(place(nul["user_id"]), json.dumps([nul]).encode())

    records = await kinesis.wait_records("orders", holds(3))
    letters = [
        decode(message.data, DeadLetter)
        for message in await read_all(bus, streams.DLQ, "dlq.hooks.shop.entrance.invalid", 2 * len(poison))
    ]

    assert {"good": "u1", "nul": "u\0", "long": sha256(b"x" * 300).hexdigest()} == {
        record.value["id"]: record.key for record in records
    }
    assert 2 * len(poison) == len(letters)
    assert all(letter.message and letter.source.startswith("EVENTS:") for letter in letters)
    await wait_acknowledged(bus)


async def test_an_event_of_2_mb_is_dead_lettered_and_the_others_go_through(
    client: HooksClient, kinesis: FaultyKinesis, bus: Bus
) -> None:
    large = {"id": "large", "code": "c", "user_id": "u", "attributes": {"a": "x" * (2 << 20)}}

    await client.post([large, {"id": "small", "code": "c", "user_id": "u"}])

    assert ["small"] == [record.value["id"] for record in await kinesis.wait_records("orders", holds(1))]
    (letter,) = await read_all(bus, streams.DLQ, "dlq.hooks.shop.all.oversize", 1)
    assert decode(letter.data, DeadLetter).message.startswith("expected at most 1048576 bytes with the key")
    await wait_acknowledged(bus)


async def test_events_of_a_user_are_packed_where_the_hook_says_so(
    client: HooksClient, kinesis: FaultyKinesis, bus: Bus
) -> None:
    kinesis.create_stream("packed")
    await client.hook("packed", stream_name="packed", batch={"format": "ndjson", "linger_ms": 50})
    posted = events(500, users=5)
    await client.post(posted)

    await wait_acknowledged(bus)

    records = kinesis.records("packed")
    found: dict[str, list[str]] = {}
    for record in records:
        found.setdefault(record.key, []).extend(json.loads(line)["id"] for line in record.data.splitlines())
    assert by_user(posted) == found
    assert len(records) < 100
    assert 500 == (await client.status("packed"))["sent"]


async def test_a_record_over_the_limit_is_dead_lettered(
    client: HooksClient, kinesis: FaultyKinesis, bus: Bus, settings: Settings
) -> None:
    # The event fits into a message of NATS, and no longer into a record once the profile is added.
    await ensure(bus, streams.PROFILES, settings)
    await Profiles(bus).merge("shop", "x1", attributes={f"a{number}": "y" * 1000 for number in range(200)})
    large = {"id": "large", "code": "c", "user_id": "u", "ext_id": "x1", "attributes": {"a": "x" * 900_000}}
    await client.post([large, {"id": "small", "code": "c", "user_id": "u"}])

    (record,) = await kinesis.wait_records("orders", holds(1))
    (letter,) = await read_all(bus, streams.DLQ, "dlq.hooks.shop.all.oversize", 1)

    assert "small" == record.value["id"]
    assert decode(letter.data, DeadLetter).message.startswith("expected at most 1048576 bytes with the key")
    await wait_acknowledged(bus)
    assert 1 == (await client.status("all"))["dead_lettered"]


async def test_the_profile_completes_the_event(
    client: HooksClient, kinesis: FaultyKinesis, bus: Bus, settings: Settings
) -> None:
    await ensure(bus, streams.PROFILES, settings)
    await Profiles(bus).merge("shop", "x1", attributes={"city": "Ankara", "age": 25})
    await client.post(
        [{"id": "e1", "code": "c", "user_id": "u", "ext_id": "x1", "user": {"attributes": {"city": "Izmir"}}}]
    )

    (record,) = await kinesis.wait_records("orders", holds(1))

    assert {"city": "Izmir", "age": 25} == record.value["user"]["attributes"]


async def test_moto_accepts_what_the_faulty_kinesis_accepts(
    hooks: RunningService, shop: dict[str, str], moto: MotoServer, bus: Bus
) -> None:
    await moto.create_stream("orders", shards=2)
    keys = {"api_key": "testing", "secret_key": "testing-secret", "endpoint_url": moto.url, "region": moto.region}
    posted = events(600, users=9)
    async with open_client(hooks.url, shop) as client, moto.client("kinesis") as kinesis:
        assert (await client.ask("PUT", "/connectors/kinesis", keys))[0] == 200
        _, tested = await client.ask("POST", "/connectors/kinesis/test", {"stream_name": "orders"})
        await client.hook("all")
        await client.post(posted)
        await wait_acknowledged(bus)
        shards = (await kinesis.list_shards(StreamName="orders"))["Shards"]
        found: dict[str, list[str]] = {}
        for shard in shards:
            where = {"StreamName": "orders", "ShardId": shard["ShardId"], "ShardIteratorType": "TRIM_HORIZON"}
            iterator = (await kinesis.get_shard_iterator(**where))["ShardIterator"]
            for record in (await kinesis.get_records(ShardIterator=iterator))["Records"]:
                found.setdefault(record["PartitionKey"], []).append(json.loads(record["Data"])["id"])

    assert ["ok", "ok", "skipped"] == [step["status"] for step in tested["steps"]]
    assert by_user(posted) == found


async def test_a_tenants_hooks_see_its_own_events_alone(
    client: HooksClient, kinesis: FaultyKinesis, hooks: RunningService, rival: dict[str, str]
) -> None:
    kinesis.create_stream("rivals")
    async with open_client(hooks.url, rival, "rival") as other:
        await other.connect(kinesis)
        await other.hook("all", stream_name="rivals")
        await other.post([{"id": "same", "code": "c", "user_id": "u"}])
        await client.post([{"id": "same", "code": "c", "user_id": "u"}])

    (ours,) = await kinesis.wait_records("orders", holds(1))
    (theirs,) = await kinesis.wait_records("rivals", holds(1))

    assert ("shop", "rival") == (ours.value["appKey"], theirs.value["appKey"])


async def test_test_connection_works_with_a_key_that_may_only_write(
    client: HooksClient, kinesis: FaultyKinesis
) -> None:
    kinesis.denied_operations = {"DescribeStreamSummary"}

    status, told = await client.ask("POST", "/connectors/kinesis/test", {"stream_name": "orders"})

    assert (200, "ok") == (status, told["status"])
    assert [("identity", "ok"), ("stream", "unknown"), ("record", "skipped")] == [
        (step["name"], step["status"]) for step in told["steps"]
    ]
    assert "AccessDeniedException" == told["steps"][1]["code"]


@pytest.mark.parametrize(
    ("form", "wanted"),
    [
        ({}, ["ok", "skipped", "skipped"]),
        ({"stream_name": "orders", "secret_key": "***"}, ["ok", "ok", "skipped"]),
        ({"stream_name": "orders", "test_record": True}, ["ok", "ok", "ok"]),
        ({"stream_name": "missing", "test_record": True}, ["ok", "failed", "skipped"]),
        ({"api_key": "AKIAREVOKED0EXAMPLE0", "stream_name": "orders"}, ["failed", "skipped", "skipped"]),
    ],
)
async def test_test_connection_reports_each_step(
    client: HooksClient, kinesis: FaultyKinesis, form: dict[str, Any], wanted: list[str]
) -> None:
    kinesis.known_keys = {"AKIAIOSFODNN7EXAMPLE"}

    status, told = await client.ask("POST", "/connectors/kinesis/test", form)

    assert 200 == status
    assert ["identity", "stream", "record"] == [step["name"] for step in told["steps"]]
    assert wanted == [step["status"] for step in told["steps"]]
    assert SECRET not in json.dumps(told)
    failed = [step for step in told["steps"] if step["status"] == "failed"]
    assert all(step["hint"] and step["code"] and step["http_status"] for step in failed)


async def test_test_connection_answers_by_nats_too(client: HooksClient, kinesis: FaultyKinesis, bus: Bus) -> None:
    asked = ProbeConnector(app_key="shop", stream_name="orders")

    told = await bus.request(subjects.connector_test("hooks"), asked, ConnectionReport, timeout_s=10)

    assert ["ok", "ok", "skipped"] == [step.status for step in told.steps]
    with pytest.raises(NotFoundError):
        await bus.request(
            subjects.connector_test("hooks"), ProbeConnector(app_key="nobody"), ConnectionReport, timeout_s=10
        )


async def test_a_form_of_test_connection_that_is_wrong_names_its_field(client: HooksClient) -> None:
    for form, field in (({"stream_name": "a b"}, "stream_name"), ({"region": "here"}, "region"), ({"x": 1}, "x")):
        status, told = await client.ask("POST", "/connectors/kinesis/test", form)

        assert (400, field) == (status, told["error"].get("field"))


async def test_test_connection_needs_nothing_saved(
    hooks: RunningService, rival: dict[str, str], kinesis: FaultyKinesis
) -> None:
    async with open_client(hooks.url, rival, "rival") as other:
        unsaved = await other.ask("POST", "/connectors/kinesis/test", connector(kinesis))
        empty = await other.ask("POST", "/connectors/kinesis/test")

    assert (200, "ok") == (unsaved[0], unsaved[1]["status"])
    assert 404 == empty[0]


async def test_a_secret_goes_in_and_never_comes_out(client: HooksClient, kinesis: FaultyKinesis) -> None:
    _, shown = await client.ask("GET", "/connectors/kinesis")
    without = {name: value for name, value in connector(kinesis).items() if name != "secret_key"}

    _, changed = await client.ask("PUT", "/connectors/kinesis", without)

    assert "***" == shown["secret_key"]
    assert ("unchanged", []) == (changed["change"], changed["fields"])


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("/hooks/h", {"stream_name": "a b"}, "stream_name"),
        ("/hooks/h", {"event_code": []}, "event_code"),
        ("/hooks/h", {"region": "eu-west-1"}, "region"),
        ("/connectors/kinesis", {"region": "here"}, "region"),
        ("/connectors/kinesis", {"api_key": "with space"}, "api_key"),
        ("/connectors/kinesis", {"secret_key": "with space"}, "secret_key"),
        ("/connectors/kinesis", {"endpoint_url": "ftp://x"}, "endpoint_url"),
    ],
)
async def test_a_bad_configuration_is_refused_and_the_field_named(
    client: HooksClient, kinesis: FaultyKinesis, path: str, body: dict[str, Any], field: str
) -> None:
    hook = {"name": "h", "stream_name": "orders", "trigger_type": "EVENT", "event_code": "*"}
    good = connector(kinesis) if path.startswith("/connectors") else hook

    status, told = await client.ask("PUT", path, good | body)

    assert (400, field) == (status, told["error"].get("field"))


async def test_a_hook_beyond_the_limit_of_its_app_is_refused(
    client: HooksClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hooks.matching.hook.HOOKS_PER_APP", 1)
    hook = {"name": "second", "stream_name": "orders", "trigger_type": "EVENT", "event_code": "*"}

    status, told = await client.ask("PUT", "/hooks/second", hook)

    assert (400, "id") == (status, told["error"]["field"])
    # One that is there may change.
    await client.hook("all", event_code="login")
