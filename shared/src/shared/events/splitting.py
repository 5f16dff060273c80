"""
Splitting of a JSON array, or of lines, into the text of their items. No item is decoded, and none is changed.

A fault in one item leaves the others whole: brackets and strings alone decide where an item ends. So an item may hold
`NaN`, a lone surrogate or thousands of levels. Only an array whose brackets or strings do not end is refused whole.

msgspec splits a small array whole. A larger one is cut where an item begins like the first one, some 32 KiB after the
cut before, and msgspec splits the part. A part that msgspec reads to its end as items has been cut between two items:
no text that is whole JSON up to there could be read otherwise. What it does not read is scanned bracket by bracket.
"""

import re
from codecs import BOM_UTF8
from collections.abc import Generator, Iterator
from typing import Final

import msgspec
from msgspec import Raw

from shared.errors import InvalidError, TooLargeError
from shared.runtime.slices import Slices

MAX_ITEMS: Final = 50_000
"""Most events of a request, and most items of a message that is read item by item. Admission of them takes 0.5 s."""
PART_BYTES: Final = 32 << 10
SPACE_BYTES: Final = 64 << 10
"""The longest white space before an array or after it."""
CUTS_TRIED: Final = 8
ITEMS_BETWEEN_TURNS: Final = 16

_SPACE = re.compile(rb"[ \t\r\n]{0,%d}+" % SPACE_BYTES)
_FIRST_NAME = re.compile(rb'\{[ \t\r\n]{0,64}"[A-Za-z_]{1,64}"')
# Bounded, so that one call takes some 0.1 ms at most. A longer string is passed in steps.
_INSIDE = re.compile(rb'(?:[^"\[\]{}]{1,200}+|"[^"\\]{0,200}+"){0,500}+([\[{]{1,999}+|[\]}]{1,999}+|)')
_BETWEEN = re.compile(rb'(?:[^",\[\]{}]{1,200}+|"[^"\\]{0,200}+"){0,500}+([\[{]{1,999}+|[\]}]{1,999}+|)')
_STRING = re.compile(rb'(?:[^"\\]{1,200}+|\\.){0,500}+()', re.DOTALL)
_NAME = re.compile(rb'("(?:[^"\\]|\\.)*+")[ \t\r\n]*+:[ \t\r\n]*+', re.DOTALL)
_QUOTE, _COMMA, _OPENING, _SPACES = ord('"'), ord(","), frozenset(b"[{"), frozenset(b" \t\r\n")
_STEPS: Final = 4
"""Steps of a scan between two chances of a pause."""

_raws = msgspec.json.Decoder(list[Raw])

Items = Iterator[bytes | None]
"""The text of each item, in order; None is a chance of a pause where no item has been found for a while."""


def array_items(data: bytes) -> Items:
    """
    Split a JSON array. Its items are texts, which may be no JSON.

    Raises:
        InvalidError: It is no array, or its brackets or strings do not end.
    """
    if len(data) <= 2 * PART_BYTES and (whole := _decode_items(data)) is not None:
        yield from map(bytes, whole)
        return
    at, end = _inside_of_array(data)
    if _SPACE.fullmatch(data, at, end):
        return
    first = _FIRST_NAME.match(data, _after_space(data, at))
    while at <= end:
        cut = _find_cut(data, at, end, first.group() if first else b"")
        items = _decode_items(b"[%b]" % data[at:cut]) if cut else None
        if items:
            assert cut is not None
            for item in items:
                yield bytes(item)
            at = cut + 1
        else:
            at = yield from _scan(data, at, cut or at + PART_BYTES, end)
        yield None


def line_items(data: bytes) -> Items:
    """Split NDJSON: one value a line; lines of white space do not count."""
    at = 0
    while (at := _after_space(data, at)) < len(data):
        if data[at] in _SPACES:
            yield None  # Of a longer white space than one match passes.
            continue
        end = data.find(b"\n", at)
        end = end if end >= 0 else len(data)
        # `_trim` is bounded, and takes 1 us longer.
        yield data[at:end].rstrip(b" \t\r\n") if end - at <= SPACE_BYTES else _trim(data, at, end)
        at = end + 1


def object_members(data: bytes) -> Iterator[tuple[str, bytes]]:
    """The names and values of a JSON object, as far as its brackets and strings allow. The values may be no JSON."""
    if data[:1] != b"{" or data[-1:] != b"}":
        return
    try:
        for member in _scan(data, 1, len(data), len(data) - 1):
            if member:
                yield _member(member)
    except InvalidError:
        return


async def split_array(data: bytes, most: int = MAX_ITEMS) -> list[bytes]:
    """
    Split a JSON array, which a byte order mark may precede (RFC 8259, 8.1), a few milliseconds at a time.

    Raises:
        InvalidError: It is no array, or its brackets or strings do not end.
        TooLargeError: It has more than `most` items.
    """
    return await _gather(array_items(data.removeprefix(BOM_UTF8)), most, len(data))


async def split_lines(data: bytes, most: int = MAX_ITEMS) -> list[bytes]:
    """As `split_array`, for NDJSON. Raises `TooLargeError` for more than `most` lines."""
    return await _gather(line_items(data.removeprefix(BOM_UTF8)), most, len(data))


async def _gather(items: Items, most: int, size_bytes: int) -> list[bytes]:
    found: list[bytes] = []
    slices = Slices()
    for item in items:
        if item is not None:
            if len(found) == most:
                message = f"expected at most {most} events, found more than {most} in {size_bytes} bytes"
                raise TooLargeError(message)
            found.append(item)
        if item is None or not len(found) % ITEMS_BETWEEN_TURNS:
            await slices.turn()
    return found


def _inside_of_array(data: bytes) -> tuple[int, int]:
    start = _after_space(data, 0)
    end = _before_space(data, 0, len(data))
    if start >= end or data[start] != ord("["):
        found = repr(data[start : start + 4].decode(errors="replace")[:1]) if start < end else "nothing"
        raise InvalidError(f"expected a JSON array, found {found}")
    if end - start < 2 or data[end - 1] != ord("]"):
        raise InvalidError("expected a JSON array, found no ] at its end")
    return start + 1, end - 1


def _after_space(data: bytes, at: int) -> int:
    found = _SPACE.match(data, at)
    assert found is not None
    return found.end()


def _before_space(data: bytes, start: int, end: int) -> int:
    rest = data[max(start, end - SPACE_BYTES) : end]
    return end - len(rest) + len(rest.rstrip(b" \t\r\n"))


def _trim(data: bytes, start: int, end: int) -> bytes:
    start = min(end, _after_space(data, start))
    return data[start : _before_space(data, start, end)]


def _find_cut(data: bytes, at: int, end: int, first_name: bytes) -> int | None:
    """The place of a comma before an item that begins like the first, or the end; None where there is none near."""
    if end - at <= 2 * PART_BYTES:
        return end
    place = at + PART_BYTES
    for _ in range(CUTS_TRIED if first_name else 0):
        place = data.find(first_name, place + 1, at + 4 * PART_BYTES)
        if place < 0:
            return None
        before = data[place - 64 : place].rstrip(b" \t\r\n")
        if before.endswith(b","):
            return place - 64 + len(before) - 1
    return None


def _decode_items(data: bytes) -> list[Raw] | None:
    try:
        return _raws.decode(data)
    except (msgspec.DecodeError, RecursionError):
        return None


def _scan(data: bytes, at: int, until: int, end: int) -> Generator[bytes | None, None, int]:
    """
    Yield the items from `at` on, up to the first one that ends at `until` or later.

    Returns:
        The place after its comma, or one beyond `end` after the last item.
    """
    start, depth, in_string, steps = at, 0, False, 0
    while True:
        steps += 1
        if steps % _STEPS == 0:
            yield None
        before = at
        found = (_STRING if in_string else _INSIDE if depth else _BETWEEN).match(data, at, end)
        assert found is not None
        at, brackets = found.end(), found.end() - found.start(1)
        if brackets and data[at - 1] in _OPENING:
            depth += brackets
        elif brackets:
            if not depth:
                raise InvalidError(f"expected JSON, found a closing bracket too many at byte {at}")
            # What follows the end of an item is read anew.
            at -= max(0, brackets - depth)
            depth = max(0, depth - brackets)
        if at >= end:
            if depth or in_string:
                raise InvalidError(
                    f"expected JSON that is complete, found {'a string' if in_string else 'brackets'} open"
                )
            yield _trim(data, start, end)
            return end + 1
        byte = data[at]
        if in_string:
            in_string = byte != _QUOTE
            if in_string and at == before:
                raise InvalidError("expected JSON that is complete, found a string open")
            at += not in_string
        elif byte == _QUOTE:
            in_string = True
            at += 1
        elif byte == _COMMA and not depth:
            yield _trim(data, start, at)
            start = at = at + 1
            if at > until:
                return at


def _member(member: bytes) -> tuple[str, bytes]:
    found = _NAME.match(member)
    if found is None:
        return "", member
    try:
        name = msgspec.json.decode(found[1], type=str)
    except (msgspec.DecodeError, UnicodeDecodeError):
        name = found[1].decode(errors="replace").strip('"')
    return name, member[found.end() :]
