"""
Decoding of the messages of `EVENTS`, with a check of each event. Pure.

Not every publisher comes by HTTP, so the stream may hold events that `hooks.events.admission` refuses.
"""

import json
from collections.abc import Iterable, Sequence
from typing import Final
from zlib import crc32

import msgspec
from msgspec import Raw, Struct

from hooks.matching.routed_event import EMPTY, RoutedEvent
from shared.contracts.messages import Attributes, Event, decode, encode
from shared.contracts.subjects import PARTITIONS, partition_of
from shared.errors import InvalidError


class RefusedEvent(Struct, frozen=True, kw_only=True):
    """A part of a message that is no event. `index` is None when it is the message as a whole."""

    index: int | None
    reason: str
    message: str
    body: bytes


_routed = msgspec.json.Decoder(list[RoutedEvent])
_attributes = msgspec.json.Decoder(Attributes)
_raws = msgspec.json.Decoder(list[Raw])
OBJECT: Final = ord("{")
_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""Errors of msgspec for arbitrary bytes; the last one for arrays nested too deep."""

DecodedMessage = tuple[Iterable[tuple[int, RoutedEvent]], Sequence[RefusedEvent]]


def routed(event: Event) -> RoutedEvent:
    """Convert a checked event to the form that delivery uses."""
    return _routed.decode(encode([event]))[0]


def read_message(data: bytes, app_key: str, partition: int) -> DecodedMessage:
    """Decode a message on `events.<app_key>.<partition>` into its events with their index, and the refused parts."""
    try:
        if not data.isascii():
            # msgspec does not check the UTF-8 of values that it skips.
            data.decode()
        events = _routed.decode(data)
        # Without another array or an escape, an object that holds no object holds names and scalars alone. The search
        # for two bytes costs more than all the rest, and few messages have a backslash.
        plain = data.find(b"[", 1) < 0 and (b"\\" not in data or b"\\u" not in data)
        for event in events:
            attributes, more = bytes(event.attributes), event.user.attributes
            if not plain or attributes[0] != OBJECT or attributes.find(b"{", 1) > 0:
                _attributes.decode(attributes)
            if more is not EMPTY:
                _attributes.decode(more)
            if event.app_key != app_key or crc32(event.user_id.encode()) % PARTITIONS != partition:
                return _read_each(data, app_key, partition)
    except _UNREADABLE:
        return _read_each(data, app_key, partition)
    return enumerate(events), ()


def _read_each(data: bytes, app_key: str, partition: int) -> DecodedMessage:
    """Decode event by event, for a message with a fault."""
    try:
        found = _split(data)
    except (InvalidError, ValueError, RecursionError) as error:
        return [], [RefusedEvent(index=None, reason="invalid", message=f"expected a JSON array: {error}", body=data)]
    good: list[tuple[int, RoutedEvent]] = []
    refused: list[RefusedEvent] = []
    for index, item in enumerate(found):
        try:
            event = decode(item, Event)
            _check_partition(event, app_key, partition)
        except InvalidError as error:
            where = f" ({error.field})" if error.field else ""
            refused.append(RefusedEvent(index=index, reason="invalid", message=f"{error.message}{where}", body=item))
        else:
            good.append((index, routed(event)))
    return good, refused


def _split(data: bytes) -> list[bytes]:
    try:
        return [bytes(raw) for raw in _raws.decode(data)]
    except msgspec.ValidationError:
        raise
    except _UNREADABLE:
        # msgspec stops at a lone surrogate or a NaN anywhere; the slower `json` saves the events beside it.
        found = json.loads(data)
        if not isinstance(found, list):
            raise InvalidError("found something else") from None
        return [json.dumps(item).encode() for item in found]


def _check_partition(event: Event, app_key: str, partition: int) -> None:
    """Refuse an event on another app's or partition's subject: it would cross tenants, or break the order."""
    if event.app_key != app_key:
        raise InvalidError(f"expected {app_key}, the app of the subject", field="app_key")
    if (right := partition_of(event.user_id)) != partition:
        raise InvalidError(f"expected partition {right} for this user, got {partition}", field="user_id")
