"""
Decoding of the messages of `EVENTS` for exports. Pure. Runs in a thread, so it need not go in slices.

A bad event, or one of another app, drops itself alone, as hooks puts it aside as a dead letter.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple, TypeAlias

import msgspec
from msgspec import Raw, Struct

from shared.contracts.messages import (
    NO_ATTRIBUTES,
    NO_IDENTITIES,
    NO_USER,
    Attributes,
    Code,
    Event,
    EventId,
    EventType,
    ExtId,
    Identities,
    OccurredAt,
    User,
    UserId,
    decode,
)
from shared.errors import InvalidError
from shared.events.attributes import are_shallow, check_steps
from shared.events.splitting import MAX_ITEMS, array_items

Value = str | int | bool | None | Raw
"""Value of an attribute. `Raw` is JSON text: a number with a point or an exponent, a list or an object."""

_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
_SCALARS: Final = frozenset({str, int, bool, type(None), Raw})

_values = msgspec.json.Decoder(dict[str, object], float_hook=lambda text: Raw(text.encode()))
_members = msgspec.json.Decoder(dict[str, Raw])


class ExportedEvent(Struct, frozen=True):
    """The part of an event that selections and layouts see. A `FlatEvent` has it too."""

    id: str
    user_id: str
    occurred_at: int
    attributes: Mapping[str, Value]


class StoredEvent(Struct, frozen=True, kw_only=True, gc=False):
    """An `Event`, in half of its time: `app_key` has no pattern, since it is compared instead."""

    id: EventId
    app_key: str
    type: EventType = "event"
    code: Code
    user_id: UserId
    ext_id: ExtId | None = None
    occurred_at: OccurredAt
    attributes: Attributes = NO_ATTRIBUTES
    user: User = NO_USER
    identities: Identities = NO_IDENTITIES


class FlatEvent(Struct, frozen=True, kw_only=True, gc=False):
    """
    An `Event` whose attributes are decoded together with it. Only `read_flat` makes it, of events whose attributes do
    not nest. `app_key` has no pattern: it is compared instead.
    """

    id: EventId
    app_key: str
    type: EventType = "event"
    code: Code
    user_id: UserId
    ext_id: ExtId | None = None
    occurred_at: OccurredAt
    attributes: dict[str, Any] = {}
    user: User = NO_USER
    identities: Identities = NO_IDENTITIES


_items = msgspec.json.Decoder(list[Raw])
_events = msgspec.json.Decoder(list[StoredEvent])
_flat_events = msgspec.json.Decoder(list[FlatEvent], float_hook=lambda text: Raw(text.encode()))

RowEvent: TypeAlias = ExportedEvent | FlatEvent
AnyEvent: TypeAlias = Event | StoredEvent


class DecodedEvents(NamedTuple):
    """The events of a message, the number of its items that are dropped, and the reason of the first."""

    events: Sequence[AnyEvent]
    dropped: int = 0
    reason: str = ""


def read_message(data: bytes, app_key: str) -> DecodedEvents:
    """Decode a message on `events.<app_key>.<partition>`."""
    try:
        if not data.isascii():
            # msgspec does not check the UTF-8 of values that it skips.
            data.decode()
        events = _events.decode(data)
    except _UNREADABLE:
        return _read_each(data, app_key)
    for event in events:
        if event.app_key != app_key or not are_shallow(bytes(event.attributes)):
            return _read_each(data, app_key)
        if event.user is not NO_USER and not are_shallow(bytes(event.user.attributes)):
            return _read_each(data, app_key)
    return DecodedEvents(events)


def count_events(messages: Iterable[bytes]) -> int:
    """The items of messages, whatever they are; a message that is no array counts as one."""
    return sum(map(_items_in, messages))


def _items_in(data: bytes) -> int:
    try:
        return len(_items.decode(data))
    except _UNREADABLE:
        pass
    try:
        return sum(item is not None for item in array_items(data))
    except InvalidError:
        return 1


class NestsError(Exception):
    """An attribute nests. Its text is lost in a `FlatEvent`, so the message has to be read by `read_message`."""


def read_flat(data: bytes, app_key: str, event_type: EventType | None) -> list[FlatEvent] | None:
    """
    Decode a usual message in half of the time of `read_message`. None for one that has to be read by that: one with a
    bad event, or with an attribute that nests. The caller looks for nested ones in events of `event_type`.
    """
    try:
        if not data.isascii():
            data.decode()
        events = _flat_events.decode(data)
    except (*_UNREADABLE, ValueError):
        return None
    for event in events:
        if event.app_key != app_key:
            return None
        if event.type != event_type and not _SCALARS.issuperset(map(type, event.attributes.values())):
            return None
        if event.user is not NO_USER and not are_shallow(bytes(event.user.attributes)):
            return None
    return events


def exported(event: AnyEvent) -> ExportedEvent:
    """An event with its attributes by name."""
    return ExportedEvent(event.id, event.user_id, event.occurred_at, _attributes(event.attributes))


def _attributes(attributes: Raw) -> Mapping[str, Value]:
    try:
        values = _values.decode(attributes)
    except (*_UNREADABLE, ValueError):
        # Python reads no number of thousands of digits.
        return {name: _value(value) for name, value in _members.decode(attributes).items()}
    if not _SCALARS.issuperset(map(type, values.values())):
        for name, value in _members.decode(attributes).items():
            if type(values[name]) not in _SCALARS:
                values[name] = value
    return values  # type: ignore[return-value]


def _value(value: Raw) -> Value:
    text = bytes(value)
    is_small = len(text) < 19 and text.lstrip(b"-").isdigit()
    return msgspec.json.decode(text, type=str | int | bool | None) if is_small or text[:1] in b'"tfn' else value


def _read_each(data: bytes, app_key: str) -> DecodedEvents:
    good: list[AnyEvent] = []
    dropped, reason = 0, ""
    try:
        items = [item for item in array_items(data) if item is not None]
        if len(items) > MAX_ITEMS:
            raise InvalidError(f"expected at most {MAX_ITEMS} events, found {len(items)}")
    except InvalidError as error:
        return DecodedEvents((), 1, error.message)
    for item in items:
        try:
            good.append(_read_item(item, app_key))
        except InvalidError as error:
            dropped += 1
            reason = reason or error.message
    return DecodedEvents(good, dropped, reason)


def _read_item(item: bytes, app_key: str) -> Event:
    try:
        item.decode()
    except UnicodeDecodeError as error:
        raise InvalidError(f"expected JSON: {error}") from None
    event = decode(item, Event)
    if event.app_key != app_key:
        raise InvalidError(f"expected {app_key}, the app of the subject", field="app_key")
    for field, attributes in (("attributes", event.attributes), ("user.attributes", event.user.attributes)):
        for _ in check_steps(bytes(attributes), field):
            pass
    return event
