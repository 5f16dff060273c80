"""Admission of events, by HTTP and by NATS."""

import json
from itertools import count
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hooks.events.admission import CHUNK_BYTES, admit, split_array, split_lines
from hooks.events.decoding import read_message, routed
from shared.contracts.messages import Event, encode
from shared.contracts.subjects import partition_of
from shared.errors import InvalidError
from shared.ids import make_ulid

NOW_MS = 1763780000123
GOOD: dict[str, Any] = {"code": "purchase", "user_id": "u1", "occurred_at": 5, "id": "e1"}


GOOD_BYTES = b'{"id":"e1","app_key":"shop","code":"c","user_id":"u1","occurred_at":1}'


def dump(*events: dict[str, Any]) -> list[bytes]:
    return [json.dumps(event).encode() for event in events]


def let_in(*events: dict[str, Any], max_payload: int = 1 << 20) -> tuple[Any, Any]:
    numbers = count(1)
    return admit(
        "shop", dump(*events), max_payload=max_payload, now_ms=NOW_MS, new_id=lambda _: f"made-{next(numbers)}"
    )


def events_of(chunks: list[Any]) -> list[dict[str, Any]]:
    return [event for chunk in chunks for event in json.loads(chunk.data)]


def test_app_id_and_time_are_filled_in() -> None:
    chunks, refused = let_in({"code": "purchase", "user_id": "u1"})

    assert [] == refused
    assert [
        {"id": "made-1", "app_key": "shop", "occurred_at": NOW_MS, "user": {}, "identities": {}}
        | {"code": "purchase", "user_id": "u1"}
    ] == events_of(chunks)


def test_posted_values_stay() -> None:
    event = GOOD | {"type": "message_log", "ext_id": "x", "attributes": {"a": [1, "b", None, True]}, "app_key": "shop"}
    event |= {"user": {"attributes": {"city": "Izmir"}}, "identities": {"device_tokens": ["t"]}}

    chunks, _ = let_in(event)

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
        ({"attributes": {"a": {"b": 1}}}, "attributes[...]"),
        ({"userId": "u1"}, "userId"),
        ({"id": ""}, "id"),
    ],
)
def test_a_bad_event_is_reported_with_index_and_field_and_the_good_go_through(
    change: dict[str, Any], field: str
) -> None:
    chunks, refused = let_in(GOOD | {"id": "a"}, GOOD | change, GOOD | {"id": "c"})

    assert ["a", "c"] == [event["id"] for event in events_of(chunks)]
    assert [(1, field)] == [(error.index, error.field) for error in refused]


def test_an_empty_external_id_is_none() -> None:
    chunks, _ = let_in(GOOD | {"ext_id": ""})

    assert [None] == [event.get("ext_id") for event in events_of(chunks)]


def test_an_event_that_no_message_can_hold_is_refused() -> None:
    chunks, refused = let_in(GOOD | {"attributes": {"a": "x" * 9000}}, GOOD, max_payload=8192)

    assert ["e1"] == [event["id"] for event in events_of(chunks)]
    assert [0] == [error.index for error in refused]


@pytest.mark.parametrize(
    "poison", [b"nonsense", b'{"a":', b'"\xff"', b'{"x":' + b"[" * 5000 + b"]" * 5000 + b"}", b"\x00"]
)
def test_poison_lines_are_refused_one_by_one(poison: bytes) -> None:
    lines = split_lines(b"\n".join([*dump(GOOD), poison, b"", *dump(GOOD)]))

    chunks, refused = admit("shop", lines, max_payload=1 << 20, now_ms=NOW_MS, new_id=make_ulid)

    assert 2 == len(events_of(chunks))
    assert [1] == [error.index for error in refused]


def test_an_array_is_split_without_reading_its_events() -> None:
    assert [b'{"a": 1}', b"2"] == split_array(b'[{"a": 1}, 2]')
    with pytest.raises(InvalidError, match="array"):
        split_array(b'{"a": 1}')
    with pytest.raises(InvalidError):
        split_array(b"[" * 100_000)


def test_chunks_hold_one_partition_in_order_and_fit_into_a_message() -> None:
    posted = [
        {"id": str(number), "code": "c", "user_id": f"u{number % 40}", "attributes": {"a": "x" * 500}}
        for number in range(2000)
    ]

    chunks, _ = let_in(*posted, max_payload=16384)

    assert 2000 == sum(len(chunk.indexes) for chunk in chunks)
    assert all(len(chunk.data) <= 16384 - 1024 for chunk in chunks)
    for chunk in chunks:
        assert {chunk.partition} == {partition_of(event["user_id"]) for event in json.loads(chunk.data)}
    for partition in range(16):
        ids = [int(event["id"]) for event in events_of([c for c in chunks if c.partition == partition])]
        assert sorted(ids) == ids


def test_chunks_stay_small_although_a_message_could_hold_more() -> None:
    posted = [{"code": "c", "user_id": "u1", "attributes": {"a": "x" * 1000}} for _ in range(1000)]

    chunks, _ = let_in(*posted, max_payload=8 << 20)

    assert all(len(chunk.data) <= CHUNK_BYTES for chunk in chunks)


def test_the_same_events_make_the_same_message_ids_and_neither_tenants_nor_users_share_them() -> None:
    single, several = dump(GOOD), dump(GOOD, GOOD | {"id": "e2"})
    of_another = dump(GOOD | {"user_id": "another"})

    def ids(app_key: str, posted: list[bytes]) -> list[str]:
        return [c.message_id for c in admit(app_key, posted, max_payload=9999, now_ms=0, new_id=make_ulid)[0]]

    assert ids("shop", single) == ids("shop", single) != ids("shop", of_another)
    assert ids("shop", single) != ids("rival", single)
    assert ids("shop", several) == ids("shop", several) != ids("shop", several[::-1])
    assert ids("shop", several) != ids("rival", several)


@given(
    st.lists(
        st.tuples(st.text(min_size=1, max_size=5), st.text(min_size=1, max_size=5)), min_size=1, max_size=3, unique=True
    )
)
def test_message_ids_are_one_line_and_differ_where_users_or_ids_do(named: list[tuple[str, str]]) -> None:
    def ids(posted: list[bytes]) -> list[str]:
        return [c.message_id for c in admit("shop", posted, max_payload=9999, now_ms=0, new_id=make_ulid)[0]]

    found = [one for user, event in named for one in ids(dump(GOOD | {"user_id": user, "id": event}))]

    assert len(named) == len(set(found))
    assert all(one.isprintable() and one.startswith("shop:") and len(one) < 100 for one in found)


def test_chunks_know_the_places_of_their_events() -> None:
    posted = dump(*(GOOD | {"id": f"e{n}", "user_id": f"u{n % 40}"} for n in range(200)), {"code": "c"}, GOOD)

    chunks, refused = admit("shop", posted, max_payload=9999, now_ms=0, new_id=make_ulid)

    assert [200] == [error.index for error in refused]
    assert [*range(200), 201] == sorted(place for chunk in chunks for place in chunk.indexes)
    for chunk in chunks:
        ids = [event["id"] for event in json.loads(chunk.data)]
        assert ids == [json.loads(posted[place])["id"] for place in chunk.indexes]


def make_event(user_id: str = "u1", event_id: str = "e1", app_key: str = "shop") -> Event:
    return Event(id=event_id, app_key=app_key, code="c", user_id=user_id, occurred_at=1)


def test_a_message_is_decoded_into_its_events_with_their_index() -> None:
    events = [make_event(event_id="a"), make_event(event_id="b")]

    found, refused = read_message(encode(events), "shop", partition_of("u1"))
    none, none_refused = read_message(b"[]", "shop", 0)

    assert [(0, routed(events[0])), (1, routed(events[1]))] == list(found)
    assert [0, 0, []] == [len(refused), len(none_refused), list(none)]


@pytest.mark.parametrize(
    "poison",
    [
        b"nonsense",
        b"",
        b"\x00",
        b"\xff\xfe",
        encode(make_event()),
        b"[" * 100_000,
        b'[{"x":' + b"[" * 100_000,
        b'[{"id":"\\ud800"',
    ],
)
def test_a_message_that_is_no_array_is_refused_as_a_whole(poison: bytes) -> None:
    events, (refused,) = read_message(poison, "shop", 0)

    assert [] == list(events)
    assert (None, "invalid", poison) == (refused.index, refused.reason, refused.body)


@pytest.mark.parametrize(
    ("poison", "told"),
    [
        (b"7", "object"),
        (b'{"id":"e2"}', "app_key"),
        (encode(make_event(user_id="u2")), "partition"),
        (encode(make_event(app_key="rival")), "shop"),
        (encode(make_event()).replace(b'"code"', b'"ext_id":"%b","code"' % (b"e" * 2600)), "ext_id"),
        (encode(make_event()).replace(b'"u1"', b'""'), "user_id"),
        (encode(make_event()).replace(b'"c"', b'"\xff"'), "JSON"),
        (encode(make_event()).replace(b'"c"', b'"\\ud800"'), "JSON"),
        (encode(make_event()).replace(b'"c"', b"NaN"), "JSON"),
        (encode(make_event()).replace(b'"c"', b"1e999"), "range"),
    ],
)
def test_a_bad_event_in_a_message_is_refused_and_the_others_are_not(poison: bytes, told: str) -> None:
    good = encode(make_event())

    events, (refused,) = read_message(b"[" + b",".join([good, poison, good]) + b"]", "shop", partition_of("u1"))

    assert [0, 2] == [index for index, _ in events]
    assert 1 == refused.index
    assert told in refused.message


scraps = st.binary() | st.sampled_from(
    [b"[", b"]", b",", b"{", b"}", b'"', b"7", b"NaN", b"\\ud800", b"\x00", b"\xff", GOOD_BYTES]
)


@given(st.lists(scraps, max_size=8).map(b"".join))
def test_no_bytes_at_all_upset_the_decoding(data: bytes) -> None:
    for body in (data, b"[" + data + b"]"):
        events, refused = read_message(body, "shop", partition_of("u1"))

        assert all(event.app_key == "shop" for _, event in events)
        assert all(part.message and part.reason == "invalid" for part in refused)
