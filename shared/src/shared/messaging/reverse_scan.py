"""
The messages of one subject from the newest to the oldest.

A stream is read in one direction only, and does not say where the last hundred messages of a subject are. So it is read
in ranges that go back, each longer than the one before.

The number of the subject's messages in a range is known before the range is read. A subject with few messages among
millions of others costs some requests. One with many is read only as far as the caller needs.
"""

from collections.abc import AsyncGenerator
from datetime import datetime

from msgspec import Struct

from shared.contracts.streams import Stream
from shared.messaging.bus import Bus
from shared.messaging.consumers import open_scan
from shared.messaging.message import Message

FIRST_RANGE = 1000
"""Sequences of the stream, whatever subject they have."""
RANGE_FACTOR = 4
MOST_READ = 1000
"""Messages of the subject at a time: what is held of them."""
AT_ONCE = 256


class ScannedRange(Struct, frozen=True):
    """All messages of the subject from `first_sequence` to the range before, the oldest first."""

    first_sequence: int
    messages: list[Message]


async def newest_first(
    bus: Bus, stream: Stream, subject: str, *, before: datetime | None = None
) -> AsyncGenerator[Message, None]:
    """
    Read messages back, until the caller has enough.

    Args:
        subject: Without wildcards.
        before: Leave out what was stored then or later.

    Raises:
        UnavailableError: NATS does not answer.
    """
    last = await bus.last_message(stream, subject)
    if last is None:
        return
    end, newer = last.sequence + 1, 0
    if before is not None and before <= last.at:
        async with open_scan(bus, stream, subject=subject, start_at=before) as scan:
            newer = scan.pending_at_open
            [first, *_] = await scan.next(1)
            end = first.sequence
    async for found in ranges_back(bus, stream, subject, end=end, newer=newer, length=FIRST_RANGE, most=MOST_READ):
        for message in reversed(found.messages):
            yield message


async def ranges_back(
    bus: Bus,
    stream: Stream,
    subject: str,
    *,
    end: int,
    first_sequence: int = 1,
    newer: int = 0,
    length: int = FIRST_RANGE,
    most: int = MOST_READ,
    max_bytes: int | None = None,
) -> AsyncGenerator[ScannedRange, None]:
    """
    Read one range after the other, the newest first, until the caller has enough.

    Args:
        subject: May hold wildcards.
        end: The sequence that follows the newest range.
        first_sequence: Where the oldest range begins.
        newer: How many messages of the subject lie at `end` or later, as far as is known.
        length: Sequences of the first range.
        most: A range with more messages of the subject is halved before it is read.
        max_bytes: The scan ends before the range that would make it more in all.

    Raises:
        UnavailableError: NATS does not answer.
    """
    size = 0
    while end > first_sequence:
        start = max(first_sequence, end - length)
        async with open_scan(bus, stream, subject=subject, start_sequence=start) as scan:
            pending = left = scan.pending_at_open
            if pending - newer > most and end - start > 1:
                length = (end - start) // 2
                continue
            messages: list[Message] = []
            while left:
                for message in await scan.next(AT_ONCE):
                    # The last one of the range may have become too old meanwhile; then the last one of all ends it.
                    left = message.pending if message.sequence < end - 1 else 0
                    if message.sequence >= end:
                        break
                    messages.append(message)
                    size += len(message.data)
                if max_bytes is not None and size > max_bytes:
                    # Read from its older end: what lies between would be missing.
                    return
        yield ScannedRange(start, messages)
        end, newer, length = start, pending, length * RANGE_FACTOR
