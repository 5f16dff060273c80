"""
Decoding of the messages of `EVENTS`, with a check of each event. Pure.

Not every publisher comes by HTTP, so the stream may hold events that `hooks.events.admission` refuses. Two things are
read all the same, because a message may be older or newer than this release: unknown fields are passed over and told,
and the limit on the items of a message holds only where it has a fault.
"""

from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple
from zlib import crc32

import msgspec
from msgspec import Raw, Struct

from hooks.matching.routed_event import RoutedEvent, RoutedUser
from shared.contracts.messages import NO_ATTRIBUTES, Event, decode, encode, invalid_error
from shared.contracts.subjects import PARTITIONS, partition_of
from shared.errors import InvalidError, MillraceError
from shared.events.attributes import (
    CARRIAGE_RETURN,
    FEW_BRACKETS,
    LINE_FEED,
    OBJECT,
    are_shallow,
    check_steps,
    describe_fault,
    faulty_field,
)
from shared.events.splitting import split_array
from shared.runtime.slices import Slices

WHOLE_BYTES: Final = 256 << 10
"""The largest message that is decoded at once, in some 3 ms: that of `admission.CHUNK_BYTES`."""
REFUSED_ALONE: Final = 100
"""Refused parts of one message that are told one by one. The others are told together, or they would fill `DLQ`."""

_routed = msgspec.json.Decoder(list[RoutedEvent])
_single = msgspec.json.Decoder(RoutedEvent)
_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""Errors of msgspec for arbitrary bytes; the last one for arrays nested too deep."""


class RefusedEvent(Struct, frozen=True, kw_only=True, gc=False):
    """A part of a message that is no event. `index` is None when it is the message as a whole."""

    index: int | None
    reason: str
    message: str
    body: bytes


class DecodedMessage(NamedTuple):
    """The events of a message with their index, the refused parts, and the unknown fields that were passed over."""

    events: Iterable[tuple[int, RoutedEvent]]
    refused: Sequence[RefusedEvent] = ()
    unknown: Sequence[str] = ()


def routed(event: Event) -> RoutedEvent:
    """Convert a checked event to the form that delivery uses."""
    return _routed.decode(encode([event]))[0]


def read_whole(data: bytes, app_key: str, partition: int) -> list[RoutedEvent] | None:
    """
    The events of a message on `events.<app_key>.<partition>`, decoded at once.

    Returns:
        None where the message has to be read by `read_each`: it has a fault, an unknown field, an event with many
        brackets or a line break, or is very large.
    """
    if len(data) > WHOLE_BYTES:
        return None
    try:
        if not data.isascii():
            # msgspec does not check the UTF-8 of values that it skips.
            data.decode()
        events = _routed.decode(data)
    except _UNREADABLE:
        return None
    if LINE_FEED in data or CARRIAGE_RETURN in data:
        return None
    # Most messages have no list but themselves, and counting costs as much as decoding.
    lists = data.find(b"[", 1) >= 0
    for event in events:
        attributes, more = bytes(event.attributes), event.user.attributes
        if attributes[0] != OBJECT or attributes.count(b"{") + (lists and attributes.count(b"[")) > FEW_BRACKETS:
            return None
        if more is not NO_ATTRIBUTES and not are_shallow(bytes(more)):
            return None
        if event.app_key != app_key or crc32(event.user_id.encode()) % PARTITIONS != partition:
            return None
    return events


async def read_message(data: bytes, app_key: str, partition: int) -> DecodedMessage:
    """Decode a message on `events.<app_key>.<partition>`."""
    events = read_whole(data, app_key, partition)
    return DecodedMessage(enumerate(events)) if events is not None else await read_each(data, app_key, partition)


async def read_each(data: bytes, app_key: str, partition: int) -> DecodedMessage:
    """Decode event by event, a few milliseconds at a time, for a message with a fault."""
    try:
        items = await split_array(data)
    except MillraceError as error:
        return DecodedMessage((), [RefusedEvent(index=None, reason="invalid", message=error.message, body=data)])
    good: list[tuple[int, RoutedEvent]] = []
    refused: list[RefusedEvent] = []
    unknown: list[str] = []
    slices = Slices()
    for index, item in enumerate(items):
        try:
            event = _read_item(item, unknown)
            _check_place(event, app_key, partition)
            for field, attributes in (("attributes", event.attributes), ("user.attributes", event.user.attributes)):
                for _ in check_steps(bytes(attributes), field):
                    await slices.turn()
        except InvalidError as error:
            where = f" ({error.field})" if error.field else ""
            refused.append(RefusedEvent(index=index, reason="invalid", message=f"{error.message}{where}", body=item))
        else:
            good.append((index, _on_one_line(event) if LINE_FEED in item or CARRIAGE_RETURN in item else event))
        await slices.turn()
    return DecodedMessage(good, _gathered(refused), unknown)


def _read_item(item: bytes, unknown: list[str]) -> RoutedEvent:
    try:
        if not item.isascii():
            item.decode()
        return _single.decode(item)
    except msgspec.ValidationError as error:
        event = routed(decode(item, Event))
        unknown.append(invalid_error(error, Event).field or "")
        return event
    except _UNREADABLE as error:
        raise InvalidError(describe_fault(item, error), field=faulty_field(item)) from None


def _check_place(event: RoutedEvent, app_key: str, partition: int) -> None:
    """Refuse an event on another app's or partition's subject: it would cross tenants, or break the order."""
    if event.app_key != app_key:
        raise InvalidError(f"expected {app_key}, the app of the subject", field="app_key")
    if (right := partition_of(event.user_id)) != partition:
        raise InvalidError(f"expected partition {right} for this user, got {partition}", field="user_id")


def _on_one_line(event: RoutedEvent) -> RoutedEvent:
    """The event without white space in its attributes: a line break would end a record among lines."""
    return msgspec.structs.replace(
        event,
        attributes=Raw(msgspec.json.format(bytes(event.attributes), indent=-1)),
        user=RoutedUser(Raw(msgspec.json.format(bytes(event.user.attributes), indent=-1))),
    )


def _gathered(refused: Sequence[RefusedEvent]) -> Sequence[RefusedEvent]:
    alone, together = refused[:REFUSED_ALONE], refused[REFUSED_ALONE:]
    if not together:
        return alone
    first, last = together[0], together[-1]
    message = f"{len(together)} more events, from index {first.index} to {last.index}; the first: {first.message}"
    body = b"[" + b",".join(part.body for part in together) + b"]"
    return [*alone, RefusedEvent(index=first.index, reason="invalid", message=message, body=body)]
