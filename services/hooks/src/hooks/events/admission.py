"""
Checks of posted events, one by one, and their gathering into chunks for `EVENTS`. `hooks.events.publisher` publishes
the chunks.

A bad event refuses itself alone. The chunks keep the order in which the events came. The work goes in slices of a few
milliseconds. What is kept of each event has `gc=False`: 50,000 more objects start a full collection, which takes 50 ms.
"""

from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Final

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
    encode,
    invalid_error,
)
from shared.contracts.subjects import partition_of
from shared.errors import InvalidError
from shared.events.attributes import CARRIAGE_RETURN, LINE_FEED, are_shallow, check_steps, describe_fault, faulty_field
from shared.runtime.slices import Slices

CHUNK_BYTES = 256 << 10
"""Size of the events that travel as one message. Larger ones would fill the ack window of a partition at once."""
HEADER_BYTES = 1024
"""Room for headers within the server's `max_payload`."""
EARLIEST_MS: Final = 100_000_000_000
"""3 March 1973: a smaller time is one in seconds."""
LATEST_MS: Final = 24 * 3600 * 1000
"""The most that a sender's clock may be ahead of ours."""
EVENTS_BETWEEN_TURNS: Final = 16
LARGE_BYTES: Final = 16 << 10
"""An event after which others may have their turn by itself."""
LOCATED: Final = 1000
"""Refused events whose attribute with the fault is looked for, and warnings that are written. No answer lists more."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def _no_attributes() -> Raw:
    # A schema cannot show a default that is JSON text.
    return NO_ATTRIBUTES


class PostedUser(User, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """Attributes of the user at the time of the event."""

    attributes: Attributes = msgspec.field(default_factory=_no_attributes)


class PostedIdentities(Identities, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """Addresses of the user."""


_NO_POSTED_IDENTITIES: Final = PostedIdentities()


class PostedEvent(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An event as it is posted. The path names the app; a missing id or time is set here."""

    id: EventId | None = None
    app_key: str | None = None
    type: EventType = "event"
    code: Code
    user_id: UserId
    ext_id: ExtId | None = None
    occurred_at: OccurredAt | None = None
    attributes: Attributes = msgspec.field(default_factory=_no_attributes)
    user: PostedUser = msgspec.field(default_factory=PostedUser)
    identities: PostedIdentities = _NO_POSTED_IDENTITIES


class EventError(Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """
    Error of a refused event, or a warning of an accepted one. `index` counts from 0 in the array, or in the lines that
    are not empty.
    """

    index: int
    field: str | None = None
    message: str


class EventChunk(Struct, frozen=True, kw_only=True):
    """
    One message for `EVENTS`: a JSON array of events. `indexes` are their places in the request.

    Events of the same app, users and ids make the same `message_id`.
    """

    partition: int
    data: bytes
    indexes: tuple[int, ...]
    message_id: str


class _PackedEvent(Struct, gc=False):
    user_id: str
    id: str
    place: int
    data: bytes


class Admission(Struct, frozen=True, kw_only=True):
    """The events of a request: those of a partition are in chunks, in the order in which they came."""

    chunks: Sequence[EventChunk]
    refused: Sequence[EventError]
    warnings: Sequence[EventError]


_posted = msgspec.json.Decoder(PostedEvent)
_names = msgspec.json.Encoder()


async def admit(
    app_key: str, posted: Sequence[bytes], *, max_payload: int, now_ms: int, new_id: Callable[[int], str]
) -> Admission:
    """Check the events of a request, and gather the good ones into chunks."""
    most = max_payload - HEADER_BYTES - 2
    refused: list[EventError] = []
    warnings: list[EventError] = []
    packers: dict[int, list[_PackedEvent]] = {}
    slices = Slices()
    for index, raw in enumerate(posted):
        try:
            if len(raw) > 2 * most:
                # White space and escapes are not half of it; nothing as large is decoded.
                raise InvalidError(f"expected at most {most} bytes, got {len(raw)}")
            event = _complete(app_key, _decode(raw, locate=len(refused) < LOCATED), now_ms, new_id)
            more = event.user.attributes
            if not are_shallow(bytes(event.attributes)) or (more is not NO_ATTRIBUTES and not are_shallow(bytes(more))):
                for field, attributes in (("attributes", event.attributes), ("user.attributes", more)):
                    for _ in check_steps(bytes(attributes), field):
                        await slices.turn()
            if LINE_FEED in raw or CARRIAGE_RETURN in raw:
                event = _on_one_line(event)
            data = encode(event)
            if len(data) > most:
                raise InvalidError(f"expected at most {most} bytes, got {len(data)}")
        except InvalidError as error:
            refused.append(EventError(index=index, field=error.field, message=error.message))
        else:
            packers.setdefault(partition_of(event.user_id), []).append(
                _PackedEvent(event.user_id, event.id, index, data)
            )
            if len(warnings) < LOCATED and not EARLIEST_MS <= event.occurred_at <= now_ms + LATEST_MS:
                warnings.append(EventError(index=index, field="occurred_at", message=_odd_time(event.occurred_at)))
        if index % EVENTS_BETWEEN_TURNS == EVENTS_BETWEEN_TURNS - 1 or len(raw) > LARGE_BYTES:
            await slices.turn()
    chunks: list[EventChunk] = []
    # Events are freed partition by partition: freeing 50,000 at once takes 40 ms.
    for partition in tuple(packers):
        for part in _parts(packers.pop(partition), min(CHUNK_BYTES, max_payload - HEADER_BYTES)):
            chunks.append(_chunk(app_key, partition, part))
            await slices.turn()
    return Admission(chunks=chunks, refused=refused, warnings=warnings)


def _decode(raw: bytes, *, locate: bool) -> PostedEvent:
    try:
        if not raw.isascii():
            # msgspec does not check the UTF-8 of values that it skips.
            raw.decode()
        return _posted.decode(raw)
    except msgspec.ValidationError as error:
        raise invalid_error(error, PostedEvent) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidError(describe_fault(raw, error), field=faulty_field(raw) if locate else None) from None


def _complete(app_key: str, posted: PostedEvent, now_ms: int, new_id: Callable[[int], str]) -> Event:
    if posted.app_key not in (None, app_key):
        raise InvalidError(f"expected {app_key}, the app of the path, or nothing", field="app_key")
    return Event(
        id=new_id(now_ms) if posted.id is None else posted.id,
        app_key=app_key,
        type=posted.type,
        code=posted.code,
        user_id=posted.user_id,
        ext_id=posted.ext_id or None,
        occurred_at=now_ms if posted.occurred_at is None else posted.occurred_at,
        attributes=posted.attributes,
        # What was not posted takes no room in `EVENTS`.
        user=NO_USER if posted.user.attributes is NO_ATTRIBUTES else posted.user,
        identities=NO_IDENTITIES if posted.identities is _NO_POSTED_IDENTITIES else posted.identities,
    )


def _on_one_line(event: Event) -> Event:
    """The event without white space in its attributes: a line break would end a record among lines."""
    return msgspec.structs.replace(
        event,
        attributes=Raw(msgspec.json.format(bytes(event.attributes), indent=-1)),
        user=User(attributes=Raw(msgspec.json.format(bytes(event.user.attributes), indent=-1)))
        if event.user is not NO_USER
        else NO_USER,
    )


def _odd_time(at_ms: int) -> str:
    if at_ms < EARLIEST_MS:
        return f"expected milliseconds since 1970, got {at_ms}, which is {_EPOCH + timedelta(milliseconds=at_ms):%F}"
    try:
        found = f"{_EPOCH + timedelta(milliseconds=at_ms):%F}"
    except OverflowError:
        found = "after the year 9999"
    return f"expected milliseconds since 1970 and no future time, got {at_ms}, which is {found}"


def _parts(events: Sequence[_PackedEvent], most: int) -> Iterator[list[_PackedEvent]]:
    part: list[_PackedEvent] = []
    size = 2
    for event in events:
        if part and size + len(event.data) + 1 > most:
            yield part
            part, size = [], 2
        part.append(event)
        size += len(event.data) + 1
    yield part


def _chunk(app_key: str, partition: int, events: Sequence[_PackedEvent]) -> EventChunk:
    # `Nats-Msg-Id` is compared over the whole stream: without app and user, one's id would drop another's event. The
    # header has room for neither an id nor many.
    names = _names.encode([name for event in events for name in (event.user_id, event.id)])
    return EventChunk(
        partition=partition,
        data=b"[%b]" % b",".join([event.data for event in events]),
        indexes=tuple([event.place for event in events]),
        message_id=f"{app_key}:{sha256(names).hexdigest()}",
    )
