"""Decoding of the messages of `EVENTS`: a part that is no event, and what stands beside it."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hooks.events.decoding import REFUSED_ALONE, read_message, read_whole, routed
from hooks.matching.rendering import render
from shared.contracts.messages import Event, encode
from shared.contracts.subjects import partition_of
from support.fakes.rules import make_rule
from support.loop_watch import HELD_S, LoopWatch

GOOD_BYTES = b'{"id":"e1","app_key":"shop","code":"c","user_id":"u1","occurred_at":1}'
PLACE = ("shop", partition_of("u1"))


def make_event(user_id: str = "u1", event_id: str = "e1", app_key: str = "shop") -> Event:
    return Event(id=event_id, app_key=app_key, code="c", user_id=user_id, occurred_at=1)


def with_attributes(attributes: bytes) -> bytes:
    """The JSON of an event that has them."""
    return GOOD_BYTES.replace(b"}", b',"attributes":%b}' % attributes)


def message(*events: bytes) -> bytes:
    return b"[" + b",".join(events) + b"]"


async def test_a_message_is_decoded_into_its_events_with_their_index() -> None:
    events = [make_event(event_id="a"), make_event(event_id="b")]

    found = await read_message(encode(events), *PLACE)
    none = await read_message(b"[]", "shop", 0)

    assert [(0, routed(events[0])), (1, routed(events[1]))] == list(found.events)
    assert [0, 0, []] == [len(found.refused), len(none.refused), list(none.events)]


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
        b"[" + b",".join([b"1"] * 500_000) + b"]",
    ],
    ids=range(9),
)
async def test_a_message_that_is_no_array_is_refused_as_a_whole(poison: bytes) -> None:
    decoded = await read_message(poison, "shop", 0)

    (refused,) = decoded.refused
    assert [] == list(decoded.events)
    assert (None, "invalid", poison) == (refused.index, refused.reason, refused.body)


@pytest.mark.parametrize(
    ("poison", "told"),
    [
        (b"7", "object"),
        (b"", "found nothing"),
        (b'{"id":"e2"}', "app_key"),
        (encode(make_event(user_id="u2")), "partition"),
        (encode(make_event(app_key="rival")), "shop"),
        (encode(make_event()).replace(b'"u1"', b'""'), "user_id"),
        (encode(make_event()).replace(b'"c"', b'"\xff"'), "(code)"),
        (encode(make_event()).replace(b'"c"', b'"\\ud800"'), "(code)"),
        (encode(make_event()).replace(b'"c"', b"NaN"), "(code)"),
        (encode(make_event()).replace(b'"c"', b"1e999"), "(code)"),
        (encode(make_event()).replace(b":1}", b":%d}" % 10**30), "(occurred_at)"),
        (encode(make_event()).replace(b"}", b',"ext_id":"%b"}' % (b"e" * 2600)), "ext_id"),
        (with_attributes(b'{"n":' + b"[" * 5000 + b"]" * 5000 + b"}"), "(attributes.n)"),
        (
            with_attributes(b'{"ok":1,"n":' + b"[" * 33 + b"]" * 33 + b"}"),
            "32 levels of objects and lists (attributes.n)",
        ),
        (with_attributes(b'{"ok":1,"n":NaN}'), "(attributes.n)"),
        (with_attributes(b"[1]"), "(attributes)"),
        (with_attributes(b"null"), "(attributes)"),
    ],
)
@pytest.mark.parametrize("number", [1, 3000])
async def test_a_bad_event_in_a_message_is_refused_and_the_others_are_not(
    poison: bytes, told: str, number: int
) -> None:
    good = [encode(make_event())] * number

    decoded = await read_message(message(*good, poison, *good), *PLACE)

    (refused,) = decoded.refused
    assert [*range(number), *range(number + 1, 2 * number + 1)] == [index for index, _ in decoded.events]
    assert (number, poison) == (refused.index, refused.body)
    assert told in refused.message


@pytest.mark.parametrize("more", [b"", b',"colour":"red"'])
async def test_identities_of_null_are_refused_whatever_is_beside_them(more: bytes) -> None:
    decoded = await read_message(message(GOOD_BYTES.replace(b"}", b',"identities":null' + more + b"}")), *PLACE)

    assert [] == list(decoded.events)
    assert ["Expected `object`, got `null` (identities)"] == [refused.message for refused in decoded.refused]


async def test_many_bad_events_are_told_together_beyond_some() -> None:
    decoded = await read_message(message(*[b"1"] * 3000, GOOD_BYTES, *[b"2"] * 2000), *PLACE)

    assert [3000] == [index for index, _ in decoded.events]
    assert [*range(REFUSED_ALONE + 1)] == [refused.index for refused in decoded.refused]
    rest = json.loads(decoded.refused[-1].body)
    assert [1] * (3000 - REFUSED_ALONE) + [2] * 2000 == rest
    assert f"{len(rest)} more events, from index {REFUSED_ALONE} to 5000" in decoded.refused[-1].message


@pytest.mark.parametrize(
    ("more", "field"),
    [
        (b',"colour":"red"', "colour"),
        (b',"identities":{"Email":"a@b.c","msisdn":"9"}', "identities.Email"),
        (b',"user":{"name":"y","attributes":{"city":"Izmir"}}', "user.name"),
    ],
)
async def test_an_unknown_field_is_passed_over_and_told(more: bytes, field: str) -> None:
    event = GOOD_BYTES.replace(b"}", more + b',"attributes":{"price":1.10}}')

    decoded = await read_message(message(GOOD_BYTES, event, GOOD_BYTES), *PLACE)

    found = dict(decoded.events)
    assert [0, 1, 2] == list(found)
    assert ([], [field]) == (decoded.refused, decoded.unknown)
    assert b'{"price":1.10}' == bytes(found[1].attributes)


@pytest.mark.parametrize(
    "attributes",
    [
        b'{"price":1.10,"huge":1e400,"digits":12345678901234567890123,"a":"\\u0131\\/","a":[ ]}',
        b'{"products":[' + b",".join([b'{"sku":"x","price":1.50}'] * 100) + b"]}",
        b'{"n":' + b"[" * 32 + b"]" * 32 + b"}",
        b'{"text":"' + b"[{" * 99 + b'"}',
    ],
    ids=["numbers", "products", "levels", "brackets in a text"],
)
async def test_attributes_reach_the_record_as_they_are(attributes: bytes) -> None:
    decoded = await read_message(message(GOOD_BYTES, with_attributes(attributes)), *PLACE)

    records = [render(make_rule("h1"), event, "EVENTS:1:0") for _, event in decoded.events]
    assert attributes in records[1]


async def test_a_record_has_one_line_whatever_the_event_has() -> None:
    event = with_attributes(b'{\n"price" : 1.10,\r\n "text":"a\\nb"}')

    decoded = await read_message(b"[\n" + event + b"\n]", *PLACE)

    ((_, found),) = decoded.events
    assert b'{"price":1.10,"text":"a\\nb"}' == bytes(found.attributes)


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner, max_size=4),
    max_leaves=30,
)


@given(st.lists(st.dictionaries(st.text(max_size=9), values, max_size=5), max_size=5), st.booleans())
async def test_any_attributes_come_through_byte_for_byte(attributes: list[Any], ascii_only: bool) -> None:
    def dumped(value: Any) -> bytes:
        return json.dumps(value, ensure_ascii=ascii_only).encode(errors="replace")

    data = message(*(with_attributes(dumped(one)) for one in attributes))

    decoded = await read_message(data, *PLACE)

    assert [] == list(decoded.refused)
    assert [dumped(one) for one in attributes] == [bytes(event.attributes) for _, event in decoded.events]


scraps = st.binary(max_size=9) | st.sampled_from(
    [b"[", b"]", b",", b"{", b"}", b'"', b"7", b"NaN", b"\\ud800", b"\x00", b"\xff", GOOD_BYTES]
)


@given(st.lists(scraps, max_size=8).map(b"".join))
async def test_no_bytes_upset_the_decoding(data: bytes) -> None:
    for body in (data, b"[" + data + b"]", b"[" + GOOD_BYTES + b"," + data + b"]"):
        decoded = await read_message(body, *PLACE)

        assert all(event.app_key == "shop" for _, event in decoded.events)
        assert all(part.message and part.reason == "invalid" for part in decoded.refused)


@given(st.lists(st.lists(scraps, max_size=8).map(b"".join), min_size=1, max_size=6))
async def test_what_is_read_at_once_is_what_is_read_one_by_one(parts: list[bytes]) -> None:
    data = message(*parts)
    whole = read_whole(data, *PLACE)
    # A line break alone makes the message be read event by event.
    each = await read_message(data[:-1] + b"\n]", *PLACE)

    if whole is not None:
        assert list(enumerate(whole)) == list(each.events)
        assert [] == list(each.refused)


@pytest.mark.parametrize(
    "data",
    [
        message(*[GOOD_BYTES] * 14_000),
        message(*[b"1"] * 49_000),
        message(*[GOOD_BYTES] * 7000, b"1", *[GOOD_BYTES] * 7000),
        message(with_attributes(b'{"a":[' + b",".join([b'[{"x":""}]'] * 90_000) + b"]}")),
        message(with_attributes(b'{"a":' + b"[" * 500_000 + b"]" * 500_000 + b"}")),
        message(with_attributes(b'{"a":"' + b"\\n" * 500_000 + b'"}')),
    ],
    ids=["good", "bad", "mixed", "rich", "deep", "escapes"],
)
async def test_no_message_of_the_largest_size_holds_the_loop(data: bytes) -> None:
    async with LoopWatch() as watch:
        await read_message(data, *PLACE)

    assert watch.held_s < HELD_S, watch.holder
