"""Admission of posted events."""

import json
from collections.abc import Sequence
from itertools import count
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hooks.events.admission import CHUNK_BYTES, Admission, admit
from shared.contracts.subjects import partition_of
from shared.events.splitting import split_lines
from shared.ids import make_ulid
from support.loop_watch import HELD_S, LoopWatch

NOW_MS = 1763780000123
GOOD: dict[str, Any] = {"code": "purchase", "user_id": "u1", "occurred_at": 5, "id": "e1"}


GOOD_BYTES = b'{"id":"e1","app_key":"shop","code":"c","user_id":"u1","occurred_at":1}'


def dump(*events: dict[str, Any]) -> list[bytes]:
    return [json.dumps(event).encode() for event in events]


async def let_in(*events: dict[str, Any], max_payload: int = 1 << 20) -> tuple[Any, Any]:
    admission = await admit_raw(dump(*events), max_payload)
    return admission.chunks, admission.refused


async def admit_raw(events: list[bytes], max_payload: int = 1 << 20) -> Admission:
    numbers = count(1)
    return await admit("shop", events, max_payload=max_payload, now_ms=NOW_MS, new_id=lambda _: f"made-{next(numbers)}")


def nested(levels: int) -> Any:
    """Lists and objects in each other."""
    value: Any = 1
    for level in range(levels):
        value = [value] if level % 2 else {"a": value}
    return value


def events_of(chunks: Sequence[Any]) -> list[dict[str, Any]]:
    return [event for chunk in chunks for event in json.loads(chunk.data)]


async def test_app_id_and_time_are_filled_in() -> None:
    chunks, refused = await let_in({"code": "purchase", "user_id": "u1"})

    assert [] == refused
    assert [
        {"id": "made-1", "app_key": "shop", "occurred_at": NOW_MS, "code": "purchase", "user_id": "u1"}
    ] == events_of(chunks)


async def test_posted_values_stay() -> None:
    event = GOOD | {"type": "message_log", "ext_id": "x", "attributes": {"a": [1, "b", None, True]}, "app_key": "shop"}
    event |= {"user": {"attributes": {"city": "Izmir"}}, "identities": {"device_tokens": ["t"]}}

    chunks, _ = await let_in(event)

    assert [event] == events_of(chunks)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"app_key": "rival"}, "app_key"),
        ({"user_id": ""}, "user_id"),
        ({"user_id": 5}, "user_id"),
        ({"code": ""}, "code"),
        ({"type": "geofence"}, "type"),
        ({"occurred_at": -1}, "occurred_at"),
        ({"user_id": "u" * 1025}, "user_id"),
        ({"code": "c" * 129}, "code"),
        ({"id": "i" * 129}, "id"),
        ({"ext_id": "e" * 2600}, "ext_id"),
        ({"identities": {"msisdn": "9" * 1025}}, "identities.msisdn"),
        ({"identities": {"device_tokens": ["t"] * 1001}}, "identities.device_tokens"),
        ({"attributes": {"ok": 1, "cart": nested(33)}}, "attributes.cart"),
        ({"attributes": [1]}, "attributes"),
        ({"user": {"attributes": {"tags": [nested(32)]}}}, "user.attributes.tags"),
        ({"user": {"name": "y"}}, "user.name"),
        ({"identities": {"Email": "a@b.c"}}, "identities.Email"),
        ({"occurred_at": 1 << 63}, "occurred_at"),
        ({"userId": "u1"}, "userId"),
        ({"id": ""}, "id"),
    ],
)
async def test_a_bad_event_is_reported_with_index_and_field_and_the_good_go_through(
    change: dict[str, Any], field: str
) -> None:
    chunks, refused = await let_in(GOOD | {"id": "a"}, GOOD | change, GOOD | {"id": "c"})

    assert ["a", "c"] == [event["id"] for event in events_of(chunks)]
    assert [(1, field)] == [(error.index, error.field) for error in refused]


async def test_an_empty_external_id_is_none() -> None:
    chunks, _ = await let_in(GOOD | {"ext_id": ""})

    assert [None] == [event.get("ext_id") for event in events_of(chunks)]


async def test_an_event_that_no_message_can_hold_is_refused() -> None:
    chunks, refused = await let_in(GOOD | {"attributes": {"a": "x" * 9000}}, GOOD, max_payload=8192)

    assert ["e1"] == [event["id"] for event in events_of(chunks)]
    assert [0] == [error.index for error in refused]


@pytest.mark.parametrize(
    "poison", [b"nonsense", b'{"a":', b'"\xff"', b'{"x":' + b"[" * 5000 + b"]" * 5000 + b"}", b"\x00"]
)
async def test_poison_lines_are_refused_one_by_one(poison: bytes) -> None:
    lines = await split_lines(b"\n".join([*dump(GOOD), poison, b"", *dump(GOOD)]))

    admission = await admit_raw(lines)
    chunks, refused = admission.chunks, admission.refused

    assert 2 == len(events_of(chunks))
    assert [1] == [error.index for error in refused]


async def test_chunks_hold_one_partition_in_order_and_fit_into_a_message() -> None:
    posted = [
        {"id": str(number), "code": "c", "user_id": f"u{number % 40}", "attributes": {"a": "x" * 500}}
        for number in range(2000)
    ]

    chunks, _ = await let_in(*posted, max_payload=16384)

    assert 2000 == sum(len(chunk.indexes) for chunk in chunks)
    assert all(len(chunk.data) <= 16384 - 1024 for chunk in chunks)
    for chunk in chunks:
        assert {chunk.partition} == {partition_of(event["user_id"]) for event in json.loads(chunk.data)}
    for partition in range(16):
        ids = [int(event["id"]) for event in events_of([c for c in chunks if c.partition == partition])]
        assert sorted(ids) == ids


async def test_chunks_stay_small_although_a_message_could_hold_more() -> None:
    posted = [{"code": "c", "user_id": "u1", "attributes": {"a": "x" * 1000}} for _ in range(1000)]

    chunks, _ = await let_in(*posted, max_payload=8 << 20)

    assert all(len(chunk.data) <= CHUNK_BYTES for chunk in chunks)


async def test_the_same_events_make_the_same_message_ids_and_neither_tenants_nor_users_share_them() -> None:
    single, several = dump(GOOD), dump(GOOD, GOOD | {"id": "e2"})
    of_another = dump(GOOD | {"user_id": "another"})

    async def ids(app_key: str, posted: list[bytes]) -> list[str]:
        admission = await admit(app_key, posted, max_payload=9999, now_ms=0, new_id=make_ulid)
        return [chunk.message_id for chunk in admission.chunks]

    assert await ids("shop", single) == await ids("shop", single) != await ids("shop", of_another)
    assert await ids("shop", single) != await ids("rival", single)
    assert await ids("shop", several) == await ids("shop", several) != await ids("shop", several[::-1])
    assert await ids("shop", several) != await ids("rival", several)


@given(
    st.lists(
        st.tuples(st.text(min_size=1, max_size=5), st.text(min_size=1, max_size=5)), min_size=1, max_size=3, unique=True
    )
)
async def test_message_ids_are_one_line_and_differ_where_users_or_ids_do(named: list[tuple[str, str]]) -> None:
    async def ids(posted: list[bytes]) -> list[str]:
        admission = await admit("shop", posted, max_payload=9999, now_ms=0, new_id=make_ulid)
        return [chunk.message_id for chunk in admission.chunks]

    found = [one for user, event in named for one in await ids(dump(GOOD | {"user_id": user, "id": event}))]

    assert len(named) == len(set(found))
    assert all(one.isprintable() and one.startswith("shop:") and len(one) < 100 for one in found)


async def test_chunks_know_the_places_of_their_events() -> None:
    posted = dump(*(GOOD | {"id": f"e{n}", "user_id": f"u{n % 40}"} for n in range(200)), {"code": "c"}, GOOD)

    admission = await admit("shop", posted, max_payload=9999, now_ms=0, new_id=make_ulid)
    chunks, refused = admission.chunks, admission.refused

    assert [200] == [error.index for error in refused]
    assert [*range(200), 201] == sorted(place for chunk in chunks for place in chunk.indexes)
    for chunk in chunks:
        ids = [event["id"] for event in json.loads(chunk.data)]
        assert ids == [json.loads(posted[place])["id"] for place in chunk.indexes]


async def test_attributes_keep_their_text() -> None:
    attributes = b'{"price":1.10, "huge":1e400,"digits":12345678901234567890123,"z":-0.0,"a":"\\u0131\\/","a":[ ]}'
    raw = b'{"code":"c","user_id":"u","attributes":%b,"user":{"attributes":%b}}' % (attributes, attributes)

    (chunk,) = (await admit_raw([raw])).chunks

    assert 2 == chunk.data.count(attributes)


async def test_attributes_nest_to_32_levels() -> None:
    event = GOOD | {"attributes": {"products": [{"sku": "x", "price": 1.5}], "deep": nested(32), "text": "[{" * 99}}

    chunks, refused = await let_in(event, GOOD | {"user": {"attributes": {"deep": nested(32)}}})

    assert [] == refused
    assert event | {"app_key": "shop"} == events_of(chunks)[0]


@pytest.mark.parametrize(
    ("bad", "field"),
    [
        (b'{"code":"c","user_id":"u","attributes":{"ok":1,"n":NaN}}', "attributes.n"),
        (b'{"code":"c","user_id":"u","attributes":{"ok":1,"a\\"b":"\\ud800"}}', 'attributes.a"b'),
        (b'{"code":"c","user_id":"u","user":{"attributes":{"n":[{"x":Infinity}]}}}', "user.attributes.n"),
        (b'{"code":"c","user_id":"u","attributes":{"n":"\xff"}}', "attributes.n"),
        (b'{"code":"c","user_id":"u","attributes":{"n":' + b"[" * 5000 + b"]" * 5000 + b"}}", "attributes.n"),
        (b'{"code":"\xff","user_id":"u"}', "code"),
        (b'{"code":"c","user_id":"u","attributes":{"n":1,}}', "attributes"),
        (b'{"code":"c","user_id":"u",}', None),
        (b"", None),
    ],
)
async def test_malformed_json_names_the_attribute(bad: bytes, field: str | None) -> None:
    admission = await admit_raw([*dump(GOOD), bad, *dump(GOOD)])

    assert [(1, field)] == [(error.index, error.field) for error in admission.refused]
    assert 2 == len(events_of(list(admission.chunks)))


@pytest.mark.parametrize(
    ("bad", "told"),
    [
        (b'{"code":"c","user_id":"u","attributes":{"n":' + b"[" * 5000 + b"]" * 5000 + b"}}", "at most 32 levels"),
        (b'{"code":"c","user_id":"u","attributes":{"n":"\\ud800"}}', "hex escape"),
        (b'{"code":"c","user_id":"u","attributes":{"n":"\xff"}}', "expected UTF-8, found 0xff (byte 45)"),
        (b'{"code":"c","user_id":"u"', "truncated"),
        (b"", "found nothing"),
    ],
    ids=["levels", "surrogate", "UTF-8", "cut", "nothing"],
)
async def test_the_fault_of_an_event_is_named_as_what_it_is(bad: bytes, told: str) -> None:
    (error,) = (await admit_raw([bad])).refused

    assert told in error.message


async def test_a_line_break_among_the_attributes_becomes_none() -> None:
    (chunk,) = (await admit_raw([json.dumps(GOOD | {"attributes": {"a": ["b\n", 1.5]}}, indent=1).encode()])).chunks

    assert b"\n" not in chunk.data
    assert b'{"a":["b\\n",1.5]}' in chunk.data


@pytest.mark.parametrize(
    ("occurred_at", "told"),
    [(1_763_780_000, "1970-01-21"), (95_617_584_000_000, "5000-01-01"), (1 << 62, "after the year 9999"), (0, "1970")],
)
async def test_a_time_that_cannot_be_meant_is_accepted_with_a_warning(occurred_at: int, told: str) -> None:
    events = dump(*(GOOD | {"id": str(number), "occurred_at": NOW_MS} for number in range(2)))

    admission = await admit_raw([*events, *dump(GOOD | {"occurred_at": occurred_at})])

    ((index, field, message),) = [(one.index, one.field, one.message) for one in admission.warnings]
    assert (2, "occurred_at") == (index, field)
    assert str(occurred_at) in message
    assert told in message
    assert 3 == len(events_of(list(admission.chunks)))


async def test_usual_times_have_no_warning() -> None:
    hour_ms = 3_600_000
    events = [{"code": "c", "user_id": "u"} | changes for changes in ({}, {"occurred_at": NOW_MS + hour_ms})]

    assert [] == (await admit_raw(dump(*events, GOOD | {"occurred_at": 631_152_000_000}))).warnings


scraps = st.binary(max_size=9) | st.sampled_from(
    [b"[", b"]", b",", b"{", b"}", b'"', b"7", b"NaN", b"\\ud800", b"\x00", b"\xff", b'"attributes":{', GOOD_BYTES]
)


@given(st.lists(st.lists(scraps, max_size=8).map(b"".join), max_size=6))
async def test_no_bytes_upset_admission_or_their_neighbours(bad: list[bytes]) -> None:
    posted = [one for pair in zip(bad, dump(*[GOOD] * len(bad)), strict=True) for one in pair]

    admission = await admit_raw(posted)

    assert len(posted) == len(admission.refused) + sum(len(chunk.indexes) for chunk in admission.chunks)
    assert all(not error.index % 2 or error.message for error in admission.refused)
    assert not [error for error in admission.refused if error.index % 2]


async def test_the_largest_request_does_not_hold_the_loop() -> None:
    small = [b'{"code":"a","user_id":"%d"}' % number for number in range(20_000)]
    rich = b'{"code":"a","user_id":"u","attributes":{"a":[%b]}}' % b",".join([b'[{"x":""}]'] * 20_000)
    deep = b'{"code":"a","user_id":"u","attributes":{"a":%b%b}}' % (b"[" * 400_000, b"]" * 400_000)
    async with LoopWatch() as watch:
        admission = await admit_raw([*small, rich, deep, *[b"1"] * 20_000])

    assert 20_001 == len(admission.refused)
    assert watch.held_s < HELD_S, watch.holder
