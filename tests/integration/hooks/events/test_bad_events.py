"""Events that nobody can read or that are out of bounds, beside good ones, by both doors."""

import asyncio
import gzip
import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from shared.contracts import streams, subjects
from shared.contracts.messages import DeadLetter, decode
from shared.messaging.bus import Bus
from shared.messaging.provisioning.making import ensure
from shared.profiles.store import Profiles
from shared.runtime.settings import Settings
from shared.service import RunningService
from support.clients.hooks import HooksClient, holds, open_client
from support.loop_watch import HELD_S, LoopWatch
from support.servers.kinesis import FaultyKinesis
from support.stored_messages import messages
from support.waiting import until

SCHEMA = json.loads((Path(__file__).parents[4] / "docs/schemas/hook.event.v1.json").read_text())
GOOD: dict[str, Any] = {"code": "purchase", "user_id": "u"}


@pytest.fixture
async def client(client: HooksClient, kinesis: FaultyKinesis) -> HooksClient:
    """Tenant `shop` with a hook for everything."""
    await client.connect(kinesis)
    await client.hook("all")
    return client


def stored_event(name: str, **more: Any) -> bytes:
    """An event as a publisher on NATS sends it."""
    event = {"id": name, "app_key": "shop", "occurred_at": 1763780000123, **GOOD, **more}
    return json.dumps(event, separators=(",", ":")).encode()


async def publish(bus: Bus, *events: bytes) -> None:
    """Store one message of these events on their user's partition."""
    await bus.publish(subjects.events("shop", subjects.partition_of("u")), b"[" + b",".join(events) + b"]")


async def dead_letters(bus: Bus, number: int) -> list[DeadLetter]:
    """Wait for so many dead letters."""
    found: list[DeadLetter] = []

    async def stored() -> bool:
        found[:] = [decode(message.data, DeadLetter) for message in await messages(bus, streams.DLQ, "dlq.>")]
        return len(found) >= number

    await until(stored)
    return found


async def test_an_external_id_that_no_key_holds_stops_nobody(
    client: HooksClient, hooks: RunningService, kinesis: FaultyKinesis, bus: Bus
) -> None:
    status, told = await client.ask("POST", "/events", [GOOD | {"ext_id": "e" * 2600}])
    await publish(bus, stored_event("long", ext_id="e" * 2600), stored_event("longest", ext_id="ğ" * 1024))
    await client.post([GOOD | {"id": "after", "ext_id": "x"}])

    records = await kinesis.wait_records("orders", holds(2))

    assert (400, "ext_id") == (status, told["errors"][0]["field"])
    assert ["longest", "after"] == [record.value["id"] for record in records]
    (letter,) = await dead_letters(bus, 1)
    assert ("entrance", "invalid", "EVENTS:1:0") == (letter.owner_id, letter.reason, letter.source)
    assert "ext_id" in letter.message
    assert hooks.mesh.bus.connected


BAD: list[tuple[bytes, str | None]] = [
    (b'{"code":"c","user_id":"u","attributes":{"ok":1,"n":NaN}}', "attributes.n"),
    (b'{"code":"c","user_id":"u","attributes":{"a":"\\ud800"}}', "attributes.a"),
    (b'{"code":"c","user_id":"u","attributes":{"n":' + b"[" * 5000 + b"]" * 5000 + b"}}", "attributes.n"),
    (b'{"code":"c","user_id":"u","attributes":{"cart":' + b"[" * 33 + b"]" * 33 + b"}}", "attributes.cart"),
    (b'{"code":"c","user_id":7}', "user_id"),
    (b'{"code":"c","user_id":"u","app_key":"rival"}', "app_key"),
    (b'{"code":"c","user_id":"u","identities":{"Email":"a@b.c","phone":"1"},"user":{"name":"y"}}', "identities.Email"),
    (b"tru", None),
]


async def test_a_bad_event_costs_itself_by_http(client: HooksClient, kinesis: FaultyKinesis) -> None:
    body = b"[" + b",".join(
        part for number, (bad, _) in enumerate(BAD) for part in (json.dumps(GOOD | {"id": f"e{number}"}).encode(), bad)
    )

    status, told = await client.ask("POST", "/events", raw=body + b"]", headers={"Content-Type": "application/json"})

    assert (202, len(BAD), len(BAD)) == (status, told["accepted"], told["rejected"])
    assert [(2 * n + 1, field) for n, (_, field) in enumerate(BAD)] == [
        (error["index"], error.get("field")) for error in told["errors"]
    ]
    records = await kinesis.wait_records("orders", holds(len(BAD)))
    assert {f"e{n}" for n in range(len(BAD))} == {record.value["id"] for record in records}


async def test_a_bad_event_costs_itself_by_nats(client: HooksClient, kinesis: FaultyKinesis, bus: Bus) -> None:
    base = stored_event("bad")
    bad = [
        base.replace(b'"u"', b'"u","attributes":{"n":NaN}'),
        base.replace(b'"u"', b'"u","attributes":{"a":"\\ud800"}'),
        base.replace(b'"u"', b'"u","attributes":{"n":' + b"[" * 5000 + b"]" * 5000 + b"}"),
        base.replace(b'"u"', b'"u","attributes":{"cart":' + b"[" * 33 + b"]" * 33 + b"}"),
        base.replace(b'"u"', b"7"),
        base.replace(b"shop", b"rival"),
        base.replace(b"1763780000123", b"1" + b"0" * 30),
    ]

    await publish(bus, *[part for n, one in enumerate(bad) for part in (stored_event(f"e{n}"), one)])

    records = await kinesis.wait_records("orders", holds(len(bad)))
    assert [f"e{n}" for n in range(len(bad))] == [record.value["id"] for record in records]
    letters = await dead_letters(bus, len(bad))
    assert {f"EVENTS:1:{2 * n + 1}" for n in range(len(bad))} == {letter.source for letter in letters}
    assert {("entrance", "invalid")} == {(letter.owner_id, letter.reason) for letter in letters}
    by_source = {letter.source: letter.message for letter in letters}
    assert all("(attributes." in by_source[f"EVENTS:1:{place}"] for place in (1, 3, 5, 7))


@pytest.mark.parametrize("app_key", ["*", ">", "a" * 3000, "\N{EURO SIGN}"], ids=["star", "arrow", "long", "euro"])
async def test_a_message_of_an_app_that_cannot_be_stops_no_partition(
    client: HooksClient, kinesis: FaultyKinesis, bus: Bus, app_key: str
) -> None:
    # The server takes what our own clients refuse to publish.
    subject = subjects.events(app_key, subjects.partition_of("u"))
    await bus.client.request(subject, b"[no event]")
    await client.post([GOOD | {"id": "after"}])

    (record,) = await kinesis.wait_records("orders", holds(1))

    assert "after" == record.value["id"]
    (letter,) = await messages(bus, streams.DLQ, "dlq.>")
    assert "dlq.hooks.-.entrance.invalid" == letter.subject


async def test_unknown_fields_by_nats_are_passed_over_and_counted(
    client: HooksClient, hooks: RunningService, kinesis: FaultyKinesis, bus: Bus
) -> None:
    await publish(bus, stored_event("e", colour="red"), stored_event("f", identities={"Email": "x", "msisdn": "9"}))

    records = await kinesis.wait_records("orders", holds(2))

    assert ["e", "f"] == [record.value["id"] for record in records]
    assert {"msisdn": "9"} == records[1].value["identities"]
    assert b'millrace_hooks_events_total{outcome="unknown_field"} 2.0' in hooks.mesh.metrics.render()


async def test_a_real_purchase_reaches_its_record_as_it_was_sent(
    client: HooksClient, kinesis: FaultyKinesis, bus: Bus, settings: Settings
) -> None:
    await ensure(bus, streams.PROFILES, settings)
    await Profiles(bus).merge("shop", "x1", attributes={"cart": {"lines": [{"sku": "y", "n": 1}]}, "city": "Izmir"})
    products = b'[{"sku":"x","price":1.10,"tags":["a",{"b":[]}]}]'
    attributes = b'{"products":%b,"total":35.0,"digits":12345678901234567890123}' % products
    body = b'[{"id":"e","code":"purchase","user_id":"u","ext_id":"x1","attributes":%b}]' % attributes

    status, told = await client.ask("POST", "/events", raw=body, headers={"Content-Type": "application/json"})
    (record,) = await kinesis.wait_records("orders", holds(1))
    _, shown = await client.ask("POST", "/hooks/all/preview", raw=b'{"event":%b}' % body[1:-1])

    assert (202, 1) == (status, told["accepted"])
    assert b'"attributes":' + attributes in record.data
    assert {"lines": [{"sku": "y", "n": 1}]} == record.value["user"]["attributes"]["cart"]
    assert "x" == shown["records"][0]["record"]["event"]["attributes"]["products"][0]["sku"]
    jsonschema.validate(record.value, SCHEMA, cls=jsonschema.Draft202012Validator)


async def test_an_odd_time_is_accepted_with_a_warning(client: HooksClient) -> None:
    status, told = await client.ask("POST", "/events", [GOOD | {"id": "a"}, GOOD | {"occurred_at": 1_763_780_000}])

    assert (202, 2, []) == (status, told["accepted"], told["errors"])
    assert [(1, "occurred_at")] == [(one["index"], one["field"]) for one in told["warnings"]]


MANY = [
    b"[" + b",".join([b"1"] * 3_000_000) + b"]",
    b"[" + b",".join([b'{"code":"a","user_id":"u"}'] * 500_000) + b"]",
    b"\n".join([b'{"code":"a","user_id":"u"}'] * 500_000),
]


@pytest.mark.parametrize("body", MANY, ids=["ones", "events", "lines"])
async def test_too_many_events_are_refused_and_hold_up_nobody(
    client: HooksClient, hooks: RunningService, rival: dict[str, str], body: bytes
) -> None:
    packed = gzip.compress(body)
    content_type = "application/json" if body.startswith(b"[") else "application/x-ndjson"
    async with open_client(hooks.url, rival, "rival") as other, LoopWatch() as watch:
        headers = {"Content-Type": content_type, "Content-Encoding": "gzip"}
        sent = asyncio.create_task(client.ask("POST", "/events", raw=packed, headers=headers))
        answers = [await other.ask("POST", "/events", [GOOD])]
        while not sent.done():
            answers.append(await other.ask("POST", "/events", [GOOD]))
        status, told = await sent

    assert (413, "too_large") == (status, told["error"]["code"])
    assert "50000" in told["error"]["message"]
    assert {202} == {status for status, _ in answers}
    assert watch.held_s < HELD_S, watch.holder


async def test_the_leases_are_kept_while_the_largest_requests_are_admitted(
    client: HooksClient, hooks: RunningService
) -> None:
    small = b"[" + b",".join([b'{"code":"a","user_id":"%d"}' % n for n in range(50_000)]) + b"]"
    junk = b"[" + b",".join([b'{"code":"a","attributes":{"a":NaN}}'] * 50_000) + b"]"
    packed = [gzip.compress(body) for body in (small, junk, MANY[0])]
    headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
    # Delivery, and the Kinesis that shares the loop, are not what is asked here.
    await client.hook("all", active=False)
    async with LoopWatch() as watch:
        found = await asyncio.gather(*(client.ask("POST", "/events", raw=body, headers=headers) for body in packed))

    assert [202, 400, 413] == [status for status, _ in found]
    assert watch.held_s < HELD_S, watch.holder
    assert b"millrace_hooks_partitions_owned 16.0" in hooks.mesh.metrics.render()
