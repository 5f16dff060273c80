"""Splitting of arrays and lines into the text of their items."""

import contextlib
import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.errors import InvalidError, TooLargeError
from shared.events.splitting import PART_BYTES, array_items, line_items, object_members, split_array, split_lines
from support.loop_watch import HELD_S, LoopWatch

GOOD = b'{"code":"a","user_id":"u"}'
SPACES = b" \t\r\n"
BAD = [
    b'{"code":"a","n":NaN}',
    b'"\\ud800"',
    b'{"n":' + b"[" * 5000 + b"]" * 5000 + b"}",
    b'{"a":"\xff"}',
    b"tru",
    b"",
    b'{"a" 1}',
    b'"a\nb"',
    b'"%b"' % (b"\\\\" * 900),
    b'{"a":"%b]"}' % (b'\\"[' * 900),
]

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner, max_size=4),
    max_leaves=20,
)


def items_of(data: bytes) -> list[bytes]:
    return [item for item in array_items(data) if item is not None]


def array(items: list[bytes], comma: bytes = b",") -> bytes:
    return b"[" + comma.join(items) + b"]"


@given(st.lists(values, max_size=8), st.sampled_from([None, 1]), st.booleans())
def test_any_array_comes_apart_into_its_items(items: list[Any], indent: int | None, ascii_only: bool) -> None:
    data = json.dumps(items, indent=indent, ensure_ascii=ascii_only).encode(errors="surrogatepass")

    found = items_of(b" \n" + data + b"\r\n")

    assert [json.dumps(item) for item in items] == [json.dumps(json.loads(item)) for item in found]


@pytest.mark.parametrize("bad", BAD, ids=range(len(BAD)))
@pytest.mark.parametrize("number", [0, 1, 5000])
def test_an_item_that_is_no_json_leaves_its_neighbours_whole(bad: bytes, number: int) -> None:
    items = [GOOD] * number + [bad] + [GOOD] * (number + 1)

    assert items == items_of(array(items))
    assert items == items_of(array(items, b" ,\n "))


@pytest.mark.parametrize("comma", [b",", b" , \n"])
def test_a_large_array_of_items_that_hold_the_like_comes_apart(comma: bytes) -> None:
    nested = b'{"code":"a","products":[%b]}' % b",".join([GOOD] * 3000)
    items = [GOOD, nested, b'{"code":"a","text":",{\\"code\\":"}', *[GOOD] * 3000, nested, nested]

    assert items == items_of(array(items, comma))


@settings(max_examples=30, deadline=None)
@given(
    st.lists(
        st.sampled_from([GOOD, b"1", b'"],["', b'{"code":[[],{"code":1}]}', BAD[0], BAD[1]]), min_size=1, max_size=20
    )
)
def test_large_arrays_of_any_mixture_come_apart(items: list[bytes]) -> None:
    items *= 5 * PART_BYTES // sum(map(len, items))

    assert items == items_of(array(items))


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"", "found nothing"),
        (b" \n", "found nothing"),
        (b"{}", "found '{'"),
        (b"[", "no ]"),
        (b"]", "found ']'"),
        (b"[1", "no ]"),
        (b"[1] 2", "no ]"),
        (b'[{"a":]', "brackets open"),
        (b'["a]', "string open"),
        (b'["a\\"]', "string open"),
        (b"[1],[2]", "closing bracket too many"),
        (b"[" * 100_000, "no ]"),
        (b"[" * 100_000 + b"]", "brackets open"),
        (b" " * (1 << 20) + b"[]", "found ' '"),
    ],
)
def test_what_is_no_array_is_refused_as_a_whole(data: bytes, told: str) -> None:
    with pytest.raises(InvalidError) as caught:
        items_of(data)

    assert told in caught.value.message


@given(st.lists(st.binary(max_size=6) | st.sampled_from([b"[", b"]", b'"', b"\\", b",", b"{", GOOD]), max_size=30))
def test_any_bytes_come_apart_or_are_refused(pieces: list[bytes]) -> None:
    data = b"[" + b"".join(pieces) + b"]"
    try:
        found = items_of(data)
    except InvalidError:
        return

    places = [0]
    for item in found:
        places.append(data.index(item, places[-1]) + len(item))
    assert all(before <= after for before, after in pairwise(places))
    # Nothing but commas and white space lies between the items.
    rest = len(data) - 2 - sum(map(len, found))
    assert rest >= max(0, len(found) - 1)


def test_lines_come_apart() -> None:
    data = b"\n \n" + GOOD + b"\r\n\n" + b"7" + b"  \n" + b" " * (1 << 17) + b"\n{}"

    assert [GOOD, b"7", b"{}"] == [line for line in line_items(data) if line is not None]


@given(st.lists(st.binary(max_size=9)))
def test_any_lines_are_those_that_are_not_blank(lines: list[bytes]) -> None:
    data = b"\n".join(lines)

    expected = [line.strip(SPACES) for line in data.split(b"\n") if line.strip(SPACES)]

    assert expected == [line for line in line_items(data) if line is not None]


@pytest.mark.parametrize(
    "body",
    [
        array([b"1"] * 3_000_000),
        array([b"{}"] * 2_000_000),
        array([b'{"code":{}}'] * 700_000),
        array([b'""'] * 1_000_000),
        array([b"[[[]]]"] * 100_000),
        array([b""] * 3_000_000),
    ],
    ids=["ones", "objects", "nested", "strings", "lists", "nothing"],
)
async def test_many_small_items_are_refused_before_they_are_made(body: bytes) -> None:
    async with LoopWatch() as watch:
        with pytest.raises(TooLargeError, match="at most 50000 events"):
            await split_array(body)

    assert watch.held_s < HELD_S, watch.holder


@pytest.mark.parametrize(
    "body",
    [
        array([b'"%b"' % (b"\\n" * 4_000_000)]),
        array([b'{"code":[%b]}' % b",".join([b'{"code":1}'] * 800_000)]),
        array([b"[" * 4_000_000 + b"]" * 4_000_000]),
        array([GOOD] * 49_999 + [b"{]"]),
        b"[" + b" " * (1 << 23) + b"]",
    ],
    ids=["escapes", "one large", "deep", "mismatched", "space"],
)
async def test_no_body_holds_the_loop(body: bytes) -> None:
    async with LoopWatch() as watch:
        with contextlib.suppress(InvalidError):
            assert await split_array(body)

    assert watch.held_s < HELD_S, watch.holder


async def test_many_lines_are_refused_before_they_are_made() -> None:
    blank, full = b"\n" * (1 << 24), b"1\n" * 3_000_000
    async with LoopWatch() as watch:
        assert [] == await split_lines(blank)
        with pytest.raises(TooLargeError, match="at most 50000 events"):
            await split_lines(full)

    assert watch.held_s < HELD_S, watch.holder


@pytest.mark.parametrize("space", [b" ", b"\x0b", b"\x0c", b"\t"], ids=["blanks", "VT", "FF", "tabs"])
@pytest.mark.parametrize("line", [b"", GOOD], ids=["alone", "after an event"])
async def test_white_space_is_passed_once(line: bytes, space: bytes) -> None:
    body = line + space * (1 << 24)
    async with LoopWatch() as watch:
        found = await split_lines(body)

    # JSON knows four kinds of white space; others make a line that is no event.
    expected = [line] if line else []
    assert [one.strip(SPACES) for one in found] == (expected if space in SPACES else [line + space * (1 << 24)])
    assert watch.held_s < HELD_S


async def test_a_byte_order_mark_is_passed_over() -> None:
    marked = b"\xef\xbb\xbf"

    assert [GOOD] == await split_array(marked + array([GOOD])) == await split_lines(marked + GOOD)
    with pytest.raises(InvalidError, match="ufeff"):
        await split_array(marked * 2 + array([GOOD]))


def test_a_part_is_smaller_than_what_holds_the_loop() -> None:
    assert PART_BYTES <= 64 << 10


def test_members_of_an_object_are_found_where_one_is_no_json() -> None:
    data = b'{"a" : 1, "b\\"": {"x":NaN,"y":[1,2]} , "\\ud800":2, 7, "a":[]}'

    assert [("a", b"1"), ('b"', b'{"x":NaN,"y":[1,2]}'), ("\\ud800", b"2"), ("", b"7"), ("a", b"[]")] == list(
        object_members(data)
    )
    assert [] == list(object_members(b"[1]"))
    assert [("a", b"1")] == list(object_members(b'{"a":1,"b":[}'))
