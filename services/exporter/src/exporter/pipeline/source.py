"""
The events of one app, read from `EVENTS` by sequence. Depends on no export.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from operator import attrgetter
from typing import NamedTuple, Protocol

from exporter.pipeline.events import count_events
from exporter.pipeline.lane import WHOLE, Lane
from shared.contracts import streams, subjects
from shared.errors import UnavailableError
from shared.messaging.bus import Bus, StreamState
from shared.messaging.consumers import open_scan
from shared.messaging.message import Message
from shared.messaging.pull import Pull

BATCH = 256
CAPACITY = 1024
CAPACITY_BYTES = 8 << 20
"""The most that one range reads ahead."""
COUNTED_MESSAGES = 1000
COUNTED_BYTES = 4 << 20
"""Messages that are read to count the events that wait."""
ANSWER_S = 5.0
TIMES_BEGIN = datetime(1970, 1, 1, tzinfo=UTC)
TIMES_END = datetime(2262, 1, 1, tzinfo=UTC)
"""The server counts in nanoseconds of 64 bits, and takes a time beyond them for another one."""
SILENT_S = 60.0
"""A message that was announced and has not arrived by then has expired during the read."""


class MessageRange(Protocol):
    """Messages in a range of sequences."""

    async def next(self) -> list[Message]:
        """
        Read some messages, in their order.

        Returns:
            The messages; none at the end of the range.

        Raises:
            UnavailableError: The stream went silent. Open the range again: its end may have changed.
        """
        ...


class SequenceRange:
    """The messages of one subject, or filter, in a range of sequences. Satisfies `MessageRange`."""

    def __init__(self, scan: Pull, until: int) -> None:
        self._scan = scan
        self._until = until
        self._remaining = scan.pending_at_open

    async def next(self) -> list[Message]:
        """Read some messages."""
        if self._remaining <= 0:
            return []
        try:
            async with asyncio.timeout(SILENT_S):
                found = await self._scan.next(BATCH)
        except TimeoutError:
            raise UnavailableError("the event stream went silent") from None
        self._remaining -= len(found)
        if found[-1].sequence > self._until:
            self._remaining = 0
            found = [message for message in found if message.sequence <= self._until]
        return found


class MergedRange:
    """The messages of several subjects in the order of the stream. Satisfies `MessageRange`."""

    def __init__(self, ranges: list[SequenceRange]) -> None:
        self._read: dict[SequenceRange, list[Message]] = {one: [] for one in ranges}

    async def next(self) -> list[Message]:
        """Read some messages: those before which no other subject has one."""
        for one, messages in list(self._read.items()):
            if not messages and not (messages := await one.next()):
                del self._read[one]
            else:
                self._read[one] = messages
        # Nothing that is read later comes before what was read last of its subject.
        end = min((messages[-1].sequence for messages in self._read.values()), default=0)
        found: list[Message] = []
        for one, messages in self._read.items():
            found += [message for message in messages if message.sequence <= end]
            self._read[one] = [message for message in messages if message.sequence > end]
        return sorted(found, key=attrgetter("sequence"))


class Waiting(NamedTuple):
    """Messages behind a position, the events in them, and the time of the oldest in nanoseconds, 0 for none."""

    messages: int
    events: int
    is_estimate: bool
    oldest_ns: int


def total_of(waiting: list[Waiting]) -> Waiting:
    """All that waits behind several positions, of different subjects."""
    return Waiting(
        sum(one.messages for one in waiting),
        sum(one.events for one in waiting),
        any(one.is_estimate for one in waiting),
        min((one.oldest_ns for one in waiting if one.oldest_ns), default=0),
    )


class EventSource:
    """Reads `EVENTS`. Every method raises `UnavailableError` while NATS does not answer."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    async def state(self) -> StreamState:
        """The first and the last sequence that the stream holds now."""
        return await self._bus.stream_state(streams.EVENTS)

    async def oldest(self, app_key: str, *, after: int, lane: Lane = WHOLE) -> tuple[int, int] | None:
        """The position and the time, in nanoseconds, of an app's first message behind `after` in a lane, or None."""
        found = [await self._oldest(subject, after) for subject in _filters(app_key, lane)]
        return min(filter(None, found), default=None)

    async def _oldest(self, subject: str, after: int) -> tuple[int, int] | None:
        async with open_scan(self._bus, streams.EVENTS, subject=subject, start_sequence=after + 1, capacity=1) as scan:
            found = await scan.next(1, within_s=ANSWER_S) if scan.pending_at_open else []
        return (found[0].sequence, found[0].at_ns) if found else None

    async def waiting(self, app_key: str, *, after: int, lane: Lane = WHOLE) -> Waiting:
        """Count the messages of an app behind `after` in a lane, and the events in them."""
        return total_of([await self._waiting(subject, after) for subject in _filters(app_key, lane)])

    async def _waiting(self, subject: str, after: int) -> Waiting:
        read = events = size = oldest_ns = 0
        async with open_scan(
            self._bus, streams.EVENTS, subject=subject, start_sequence=after + 1, capacity=COUNTED_MESSAGES
        ) as scan:
            messages = scan.pending_at_open
            while read < min(messages, COUNTED_MESSAGES) and size < COUNTED_BYTES:
                found = await scan.next(COUNTED_MESSAGES - read, within_s=ANSWER_S)
                if not found:
                    # Some have expired since they were counted.
                    messages = read
                    break
                oldest_ns = oldest_ns or found[0].at_ns
                read += len(found)
                size += sum(len(message.data) for message in found)
                events += await asyncio.to_thread(count_events, [message.data for message in found])
        is_estimate = read < messages
        if is_estimate and read:
            events = round(events * messages / read)
        return Waiting(messages, events, is_estimate, oldest_ns)

    async def first_message(self, *, at: datetime | None = None) -> Message | None:
        """
        The first message that the stream holds, of any app.

        Args:
            at: The first of those that were stored at this time or later.

        Returns:
            The message, or None when there is none.
        """
        if at is not None and at >= TIMES_END:
            return None
        start_at = max(at, TIMES_BEGIN) if at is not None else None
        async with open_scan(
            self._bus, streams.EVENTS, subject=subjects.EVERY_EVENT, start_at=start_at, capacity=1
        ) as scan:
            if not scan.pending_at_open:
                return None
            if found := await scan.next(1, within_s=ANSWER_S):
                return found[0]
            raise UnavailableError("the event stream went silent")

    @asynccontextmanager
    async def open(self, app_key: str, *, after: int, until: int, lane: Lane = WHOLE) -> AsyncIterator[MessageRange]:
        """Open the messages of an app in (`after`, `until`] of a lane. `until` must be in the stream already."""
        # A consumer for each partition: the right to one with several filters is that to the whole stream (ADR 0027).
        filters = _filters(app_key, lane)
        async with AsyncExitStack() as opened:
            ranges = [
                SequenceRange(
                    await opened.enter_async_context(
                        open_scan(
                            self._bus,
                            streams.EVENTS,
                            subject=subject,
                            start_sequence=after + 1,
                            capacity=CAPACITY // len(filters),
                            capacity_bytes=CAPACITY_BYTES // len(filters),
                        )
                    ),
                    until,
                )
                for subject in filters
            ]
            yield MergedRange(ranges) if len(ranges) > 1 else ranges[0]


def _filters(app_key: str, lane: Lane) -> list[str]:
    if lane.is_whole:
        return [subjects.events_of_app(app_key)]
    return [subjects.events(app_key, partition) for partition in lane.partitions]
