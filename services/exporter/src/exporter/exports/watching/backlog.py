"""The events that wait for a failing export, read from `EVENTS` without writing anything."""

import asyncio
from collections.abc import Sequence
from datetime import datetime

from exporter.exports.failures.failure import DroppedEvents, Undelivered, UndeliveredEvents
from exporter.exports.job import ExportJob
from exporter.pipeline.ports import Layout
from exporter.pipeline.source import EventSource
from shared.messaging.message import Message


async def read_backlog(
    source: EventSource, job: ExportJob, *, after: int, until: int, drop_before: datetime | None
) -> UndeliveredEvents:
    """
    Find the oldest event in (`after`, `until`] that is to be kept, and count the events before it.

    Args:
        drop_before: Events that the stream stored earlier are dropped; None drops none.

    Raises:
        UnavailableError: NATS does not answer.
    """
    layout = job.layout_of(job.content)
    drop_before_ns = int(drop_before.timestamp() * 1e9) if drop_before is not None else 0
    reading = _Reading(layout, drop_before_ns)
    if after < until:
        async with source.open(job.app_key, after=after, until=until, lane=job.lane) as events:
            while reading.oldest is None and (messages := await events.next()):
                await asyncio.to_thread(reading.add, messages)
    return UndeliveredEvents(oldest=reading.oldest, dropped=reading.dropped)


class _Reading:
    """The result so far. `add` decodes events: call it in a thread."""

    def __init__(self, layout: Layout, drop_before_ns: int) -> None:
        self.oldest: Undelivered | None = None
        self.dropped: DroppedEvents | None = None
        self._layout = layout
        self._drop_before_ns = drop_before_ns

    def add(self, messages: Sequence[Message]) -> None:
        for message in messages:
            events = sum(len(rows) for rows in self._layout.read(message.data, message.sequence).parts.values())
            if not events:
                continue
            if message.at_ns >= self._drop_before_ns:
                self.oldest = Undelivered(sequence=message.sequence, at=message.at)
                return
            before = self.dropped
            self.dropped = DroppedEvents(
                events=events + (before.events if before else 0),
                first_sequence=before.first_sequence if before else message.sequence,
                last_sequence=message.sequence,
            )
