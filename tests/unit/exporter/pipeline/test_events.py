"""Events of a message for an export: bad ones, those of other apps, and their attributes by name."""

import json
from collections.abc import Mapping
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from exporter.pipeline.events import exported, read_flat, read_message
from shared.contracts.messages import Event, make_attributes

GOOD = b'{"id":"good","app_key":"shop","type":"click","code":"c","user_id":"u","occurred_at":1}'


def message(*events: bytes) -> bytes:
    return b"[" + b",".join(events) + b"]"


@pytest.mark.parametrize(
    ("bad", "told"),
    [
        (GOOD.replace(b"click", b"clik"), "got 'clik'"),
        (GOOD.replace(b":1}", b":-1}"), ">= 0"),
        (GOOD.replace(b"shop", b"rival"), "the app of the subject"),
        (GOOD.replace(b'"u"', b"NaN"), "JSON"),
        (GOOD.replace(b'"u"', b'"\\ud800"'), "JSON"),
        (GOOD.replace(b'"u"', b'"\xff"'), "JSON"),
        (GOOD.replace(b"}", b',"attributes":{"a":%b%b}}' % (b"[" * 5000, b"]" * 5000)), "JSON"),
        (GOOD.replace(b"}", b',"attributes":{"a":%b%b}}' % (b"[" * 33, b"]" * 33)), "32 levels"),
        (GOOD.replace(b"}", b',"attributes":[1]}'), "an object"),
        (b"7", "object"),
    ],
)
def test_a_bad_event_drops_itself_alone(bad: bytes, told: str) -> None:
    decoded = read_message(message(GOOD, bad, GOOD), "shop")

    assert ["good", "good"] == [event.id for event in decoded.events]
    assert 1 == decoded.dropped
    assert told in decoded.reason


@pytest.mark.parametrize("data", [b"\xff", b'{"id":1}', b"[", b"", message(*[b"1"] * 60_000)])
def test_a_message_that_is_no_array_counts_as_one(data: bytes) -> None:
    decoded = read_message(data, "shop")

    assert ([], 1) == (list(decoded.events), decoded.dropped)


def test_an_event_with_unknown_fields_is_exported_as_hooks_delivers_it() -> None:
    decoded = read_message(message(GOOD.replace(b"}", b',"colour":"red","identities":{"Email":"x"}}')), "shop")

    assert ["good"] == [event.id for event in decoded.events]
    assert 0 == decoded.dropped


def values_of(attributes: Raw) -> dict[str, Any]:
    event = Event(id="e", app_key="shop", code="c", user_id="u", occurred_at=1, attributes=attributes)
    values = exported(event).attributes
    return {name: bytes(value) if isinstance(value, Raw) else value for name, value in values.items()}


def test_attributes_are_scalars_or_the_text_that_was_sent() -> None:
    attributes = Raw(
        b'{"t":"x","n":4,"b":true,"z":null,"price":1.10,"huge":1e400,"list":[ 1.50],"o":{"a":1,"a":2},"d":'
        + b"7" * 30
        + b"}"
    )

    assert {
        "t": "x",
        "n": 4,
        "b": True,
        "z": None,
        "price": b"1.10",
        "huge": b"1e400",
        "list": b"[ 1.50]",
        "o": b'{"a":1,"a":2}',
        "d": int("7" * 30),
    } == values_of(attributes)


def test_a_number_of_thousands_of_digits_leaves_the_other_attributes_as_they_are() -> None:
    attributes = Raw(b'{"t":"x","n":-4,"b":false,"d":%b,"f":2.50}' % (b"7" * 5000))

    assert {"t": "x", "n": -4, "b": False, "d": b"7" * 5000, "f": b"2.50"} == values_of(attributes)


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner, max_size=4),
    max_leaves=20,
)


@given(st.dictionaries(st.text(max_size=9), values, max_size=5))
def test_any_attributes_are_read(attributes: dict[str, Any]) -> None:
    data = json.dumps(attributes).encode()
    if b"\\ud" in data:
        data = msgspec.json.encode(attributes)

    found = values_of(Raw(data))

    read = {name: json.loads(value) if isinstance(value, bytes) else value for name, value in found.items()}
    assert json.loads(data) == read


scraps = st.binary(max_size=9) | st.sampled_from([b"[", b"]", b",", b"{", b"}", b'"', b"NaN", b"\\ud800", GOOD])


@given(st.lists(scraps, max_size=8).map(b"".join))
def test_no_bytes_upset_the_reading(data: bytes) -> None:
    for body in (data, b"[" + data + b"]", message(GOOD, data)):
        decoded = read_message(body, "shop")

        assert all(event.app_key == "shop" for event in decoded.events)
        assert bool(decoded.dropped) == bool(decoded.reason)


def test_attributes_of_a_publisher_are_read_back() -> None:
    assert {"a": 1, "b": b"0.5"} == values_of(make_attributes({"a": 1, "b": 0.5}))


@given(st.lists(st.dictionaries(st.text(max_size=9), values, max_size=5), max_size=3))
def test_flat_events_are_those_of_the_ordinary_reading(attributes: list[dict[str, Any]]) -> None:
    events = [GOOD.replace(b"}", b',"attributes":%b}' % msgspec.json.encode(one)) for one in attributes]

    flat = read_flat(message(*events), "shop", None)

    nests = any(isinstance(value, list | dict) for one in attributes for value in one.values())
    if flat is None:
        # An integer beyond what Python reads is none of these.
        assert nests
    else:
        assert not nests
        ordinary = [exported(event) for event in read_message(message(*events), "shop").events]
        assert [plain(one.attributes) for one in ordinary] == [plain(one.attributes) for one in flat]
        assert [(one.id, one.user_id, one.occurred_at) for one in ordinary] == [
            (one.id, one.user_id, one.occurred_at) for one in flat
        ]


@pytest.mark.parametrize(
    "other",
    [
        GOOD.replace(b"shop", b"rival"),
        GOOD.replace(b":1}", b":-1}"),
        GOOD.replace(b'"u"', b'"\xff"'),
        GOOD.replace(b"}", b',"attributes":{"a":[1]}}'),
        GOOD.replace(b"}", b',"attributes":{"a":%b}}' % (b"7" * 5000)),
        GOOD.replace(b"}", b',"user":{"attributes":{"a":%b%b}}}' % (b"[" * 33, b"]" * 33)),
    ],
)
def test_a_message_with_anything_unusual_is_not_read_flat(other: bytes) -> None:
    assert read_flat(message(GOOD, other), "shop", None) is None


def plain(attributes: Mapping[str, Any]) -> dict[str, Any]:
    return {name: bytes(value) if isinstance(value, Raw) else value for name, value in attributes.items()}
