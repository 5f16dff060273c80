"""
Checks of posted events, one by one, and their gathering into chunks for `EVENTS`. Pure; `hooks.events.publisher`
publishes the chunks.

A bad event refuses itself alone. The chunks keep the order in which the events came.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from hashlib import sha256
from typing import Annotated, NamedTuple

import msgspec
from msgspec import Meta, Struct

from shared.contracts.messages import (
    Attributes,
    Code,
    Event,
    EventId,
    EventType,
    ExtId,
    Identities,
    User,
    UserId,
    decode,
    encode,
)
from shared.contracts.subjects import partition_of
from shared.errors import InvalidError

CHUNK_BYTES = 256 << 10
"""Size of the events that travel as one message. Larger ones would fill the ack window of a partition at once."""
HEADER_BYTES = 1024
"""Room for headers within the server's `max_payload`."""


class PostedEvent(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An event as it is posted. The path names the app; a missing id or time is set here."""

    id: EventId | None = None
    app_key: str | None = None
    type: EventType = "event"
    code: Code
    user_id: UserId
    ext_id: ExtId | None = None
    occurred_at: Annotated[int, Meta(ge=0)] | None = None
    attributes: Attributes = {}
    user: User = User()
    identities: Identities = Identities()


class EventError(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Error of a refused event; `index` counts from 0 in the array, or in the lines that are not empty."""

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


class _PackedEvent(NamedTuple):
    user_id: str
    id: str
    place: int
    data: bytes


def split_array(body: bytes) -> list[bytes]:
    """Split a JSON array. Raises `InvalidError` when the body is none."""
    return [bytes(raw) for raw in decode(body, list[msgspec.Raw])]


def split_lines(body: bytes) -> list[bytes]:
    """Split NDJSON: one value a line; empty lines do not count."""
    return [line for line in body.split(b"\n") if line.strip()]


def admit(
    app_key: str, posted: Iterable[bytes], *, max_payload: int, now_ms: int, new_id: Callable[[int], str]
) -> tuple[list[EventChunk], list[EventError]]:
    """
    Check the events of a request, and gather the good ones into chunks.

    Returns:
        The chunks, those of a partition in the order in which its events came, and the errors of refused events.
    """
    most = min(CHUNK_BYTES, max_payload - HEADER_BYTES)
    refused: list[EventError] = []
    packers: dict[int, list[_PackedEvent]] = {}
    for index, raw in enumerate(posted):
        try:
            event = _complete(app_key, decode(raw, PostedEvent), now_ms, new_id)
            data = encode(event)
            if len(data) + 2 > max_payload - HEADER_BYTES:
                raise InvalidError(f"expected at most {max_payload - HEADER_BYTES - 2} bytes, got {len(data)}")
        except InvalidError as error:
            refused.append(EventError(index=index, field=error.field, message=error.message))
        else:
            packers.setdefault(partition_of(event.user_id), []).append(
                _PackedEvent(event.user_id, event.id, index, data)
            )
    chunks = [
        _chunk(app_key, partition, part) for partition, events in packers.items() for part in _parts(events, most)
    ]
    return chunks, refused


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
        user=posted.user,
        identities=posted.identities,
    )


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
    names = msgspec.json.encode([(event.user_id, event.id) for event in events])
    return EventChunk(
        partition=partition,
        data=b"[" + b",".join(event.data for event in events) + b"]",
        indexes=tuple(event.place for event in events),
        message_id=f"{app_key}:{sha256(names).hexdigest()}",
    )
