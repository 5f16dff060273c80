"""The range of a replay: the times or sequences that were asked for, as sequences that `EVENTS` holds."""

from datetime import UTC, datetime, timedelta
from typing import Final

from exporter.exports.job import Span
from exporter.pipeline.source import EventSource
from exporter.replays.replay import ReplayRequest
from shared.errors import ConflictError, InvalidError
from shared.messaging.message import Message

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


async def span_of(source: EventSource, form: ReplayRequest, delivered_to: int) -> Span:
    """
    The events that a form asks for.

    A time means the first message that was stored then or later, exactly: `EVENTS` counts in nanoseconds, a time in
    microseconds.

    Args:
        delivered_to: The last sequence that the export has delivered.

    Raises:
        InvalidError: The range is not in the stream, not delivered yet, or empty; names the field.
        ConflictError: The stream is empty.
    """
    oldest = await source.first_message()
    if oldest is None:
        raise ConflictError("EVENTS holds no events")
    first = await _first(source, form.from_, oldest)
    if first > delivered_to:
        message = f"expected an event that the export has delivered, up to sequence {delivered_to}; found {first}"
        raise InvalidError(message, field="from")
    last = await _last(source, form.to, delivered_to)
    if last < first:
        raise InvalidError(f"expected an end after the beginning, which is sequence {first}; found {last}", field="to")
    return Span(first_sequence=first, last_sequence=last)


async def _first(source: EventSource, position: int | datetime, oldest: Message) -> int:
    if isinstance(position, int):
        if position < oldest.sequence:
            raise _expired(oldest, str(position))
        return position
    # Where nothing has expired, nothing is missing before the oldest.
    if position < stored_at(oldest) and oldest.sequence > 1:
        raise _expired(oldest, position.isoformat())
    found = await source.first_message(at=position)
    if found is None:
        raise InvalidError("expected a time at or before the last event of EVENTS; found a later one", field="from")
    return found.sequence


async def _last(source: EventSource, position: int | datetime | None, delivered_to: int) -> int:
    if position is None:
        return delivered_to
    if isinstance(position, int):
        if position > delivered_to:
            message = f"expected at most {delivered_to}, up to which the export has delivered; found {position}"
            raise InvalidError(message, field="to")
        return position
    found = await source.first_message(at=position)
    return delivered_to if found is None else min(delivered_to, found.sequence - 1)


def stored_at(message: Message) -> datetime:
    """The time at which the stream stored a message, rounded down to microseconds: as `from` it begins with it."""
    return EPOCH + timedelta(microseconds=message.at_ns // 1000)


def _expired(oldest: Message, found: str) -> InvalidError:
    held = f"sequence {oldest.sequence} or {stored_at(oldest).isoformat()}"
    message = f"expected what EVENTS still holds, from {held} on; found {found}. Older events are in the lake alone"
    return InvalidError(message, field="from")
