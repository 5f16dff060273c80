"""Admission of events by HTTP: accepted and refused events, and the content of `EVENTS` afterwards."""

import asyncio
import gzip
import json
import re
from typing import Any

import msgspec
import pytest

from hooks.app import SERVICE
from hooks.events.publisher import BODIES_BYTES
from hooks.routes.events import BODY_BYTES
from shared.contracts import streams, subjects
from shared.contracts.messages import Alert, decode
from shared.messaging.bus import Bus
from shared.messaging.consumers import open_scan
from shared.runtime.settings import Settings
from shared.service import RunningService
from support.clients.hooks import HooksClient, by_user, events, open_client
from support.run_service import running
from support.stored_messages import messages

NDJSON = {"Content-Type": "application/x-ndjson"}
JSON = {"Content-Type": "application/json"}


async def stored(bus: Bus) -> list[dict[str, Any]]:
    """Every event in `EVENTS`, in the order of the stream; each lies on the subject of its app and partition."""
    found: list[dict[str, Any]] = []
    for message in await messages(bus, streams.EVENTS, "events.>"):
        part = json.loads(message.data)
        for event in part:
            partition = subjects.partition_of(event["user_id"])
            assert message.subject == subjects.events(event["app_key"], partition)
        found += part
    return found


async def test_an_array_is_stored_before_it_is_answered(client: HooksClient, bus: Bus) -> None:
    posted = events(5000, users=300, occurred_at=1763780000123, attributes={"a": "x" * 300})

    status, told = await client.ask("POST", "/events", posted)

    none = {"duplicates": 0, "duplicate_indexes": [], "rejected": 0, "errors": []}
    assert (202, {"accepted": 5000, **none}) == (status, told)
    assert by_user(posted) == by_user(await stored(bus))


async def test_an_app_with_too_many_bytes_in_flight_is_refused_and_no_other_is(
    hooks: RunningService, client: HooksClient
) -> None:
    bodies, posted = hooks.state.publisher.bodies, events(1, users=1)
    with bodies.counting("rival") as count:
        count(BODIES_BYTES)
        assert 202 == (await client.ask("POST", "/events", posted))[0]
    with bodies.counting("shop") as count:
        count(BODIES_BYTES)
        status, told = await client.ask("POST", "/events", posted)
        assert (429, "busy") == (status, told["error"]["code"])
    assert 202 == (await client.ask("POST", "/events", posted))[0]


async def test_ndjson_is_accepted_line_by_line(client: HooksClient, bus: Bus) -> None:
    body = b'{"id":"a","code":"c","user_id":"u"}\n\nnot JSON\r\n{"id":"b","code":"c","user_id":"u"}'

    status, told = await client.ask("POST", "/events", raw=body, headers=NDJSON)

    assert (202, 2, 1) == (status, told["accepted"], told["rejected"])
    assert 1 == told["errors"][0]["index"]
    assert ["a", "b"] == [event["id"] for event in await stored(bus)]


async def test_a_packed_body_is_unpacked(client: HooksClient, bus: Bus) -> None:
    body = gzip.compress(json.dumps(events(100, users=3)).encode())

    status, told = await client.ask("POST", "/events", raw=body, headers=JSON | {"Content-Encoding": "gzip"})

    assert (202, 100) == (status, told["accepted"])
    assert 100 == len(await stored(bus))


async def test_packed_body_that_is_cut_at_half_is_refused_as_a_whole(client: HooksClient, bus: Bus) -> None:
    packed = gzip.compress(b"\n".join(json.dumps(event).encode() for event in events(1000, users=3)))

    status, told = await client.ask(
        "POST", "/events", raw=packed[: len(packed) // 2], headers=NDJSON | {"Content-Encoding": "gzip"}
    )

    assert (400, "the gzip body ends too early") == (status, told["error"]["message"])
    assert [] == await stored(bus)


async def test_bad_events_are_reported_and_good_ones_go_through(client: HooksClient, bus: Bus) -> None:
    good = {"code": "c", "user_id": "u"}

    status, told = await client.ask(
        "POST", "/events", [good, good | {"user_id": ""}, good | {"app_key": "rival"}, 7, good]
    )

    assert (202, 2, 3) == (status, told["accepted"], told["rejected"])
    assert [(1, "user_id"), (2, "app_key"), (3, None)] == [(e["index"], e.get("field")) for e in told["errors"]]
    found = await stored(bus)
    assert ["shop", "shop"] == [event["app_key"] for event in found]
    assert 2 == len({event["id"] for event in found})


async def test_a_request_without_a_good_event_is_a_bad_one(client: HooksClient, bus: Bus) -> None:
    status, told = await client.ask("POST", "/events", [{"code": "c"}, {"user_id": "u"}])

    assert (400, 0, 2) == (status, told["accepted"], told["rejected"])
    assert [] == await stored(bus)


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        (b"[]", JSON, 400),
        (b'{"code":"c"}', JSON, 400),
        (b"nonsense", JSON, 400),
        (b"\n\n", NDJSON, 400),
        (b"[]", {"Content-Type": "text/csv"}, 400),
        (b"not packed", JSON | {"Content-Encoding": "gzip"}, 400),
        (b"[" * 100_000, JSON, 400),
        (b" " * (BODY_BYTES + 1), JSON, 413),
        (gzip.compress(b" " * (BODY_BYTES + 1)), JSON | {"Content-Encoding": "gzip"}, 413),
        (b"xx", JSON | {"Content-Encoding": "br"}, 415),
    ],
    ids=["empty", "no array", "no JSON", "no line", "CSV", "not gzip", "deep", "too large", "too large unpacked", "br"],
)
async def test_a_body_that_cannot_be_read_is_refused(
    client: HooksClient, body: bytes, headers: dict[str, str], status: int
) -> None:
    found, told = await client.ask("POST", "/events", raw=body, headers=headers)

    assert (status, True) == (found, bool(told["error"]["message"]))


async def test_a_repeated_request_is_stored_once(client: HooksClient, bus: Bus) -> None:
    posted = events(50, users=5)

    await client.post(posted)
    status, told = await client.ask("POST", "/events", posted)

    assert 50 == len(await stored(bus))
    assert (202, 0, 50) == (status, told["accepted"], told["duplicates"])
    assert [*range(50)] == told["duplicate_indexes"]


async def test_users_may_have_the_same_ids(client: HooksClient, bus: Bus) -> None:
    posted = [{"id": "1", "code": "c", "user_id": user} for user in ("u", "v7", "v8")]

    status, told = await client.ask("POST", "/events", posted)

    assert (202, 3, 0) == (status, told["accepted"], told["duplicates"])
    assert {"u", "v7", "v8"} == {event["user_id"] for event in await stored(bus)}


async def test_an_id_is_no_header(client: HooksClient, bus: Bus) -> None:
    [status, told] = await client.ask(
        "POST", "/events", [{"id": "1\r\nNats-Expected-Last-Sequence: 7", "code": "c", "user_id": "u"}]
    )

    assert (202, 1) == (status, told["accepted"])
    [message] = await messages(bus, streams.EVENTS, "events.>")
    assert ["Nats-Msg-Id"] == list(message.headers)


async def test_tenants_may_use_the_same_ids(
    client: HooksClient, hooks: RunningService, rival: dict[str, str], bus: Bus
) -> None:
    event = [{"id": "1", "code": "c", "user_id": "u"}]
    async with open_client(hooks.url, rival, "rival") as theirs:
        await client.post(event)
        await theirs.post(event)

    assert ["shop", "rival"] == [event["app_key"] for event in await stored(bus)]


async def test_a_full_stream_refuses_events_as_busy(settings: Settings, shop: dict[str, str], bus: Bus) -> None:
    small = msgspec.structs.replace(settings, events_max_bytes=1 << 20)
    large = [{"code": "c", "user_id": f"u{number}", "attributes": {"a": "x" * 50_000}} for number in range(30)]
    async with running(SERVICE, small) as service, open_client(service.url, shop) as client:
        refused = [await client.ask("POST", "/events", large) for _ in range(3)]

        assert [429] * 3 == [status for status, _ in refused]
        assert {"busy"} == {told["error"]["code"] for _, told in refused}
        [message] = {told["error"]["message"] for _, told in refused}
        assert re.match(r"EVENTS takes no more: \d+% of 1048576 bytes are used, by \d+ messages; ", message)
        assert "MILLRACE_EVENTS_MAX_BYTES sets the limit" in message
        async with asyncio.timeout(10), open_scan(bus, streams.ALERTS, subject="alerts.hooks.-.events-full") as scan:
            alerts = await scan.next(10)
    assert [("events-full", "EVENTS")] == [
        (alert.kind, alert.subject) for alert in (decode(message.data, Alert) for message in alerts)
    ]
