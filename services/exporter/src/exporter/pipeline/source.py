"""
The events of one app, read from `EVENTS` by sequence. Depends on no export.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from shared.contracts import streams, subjects
from shared.errors import UnavailableError
from shared.messaging.bus import Bus, StreamState
from shared.messaging.consumers import open_scan
from shared.messaging.message import Message
from shared.messaging.pull import Pull

BATCH = 256
SILENT_S = 60.0
"""A message that was announced and has not arrived by then has expired during the read."""


class SequenceRange:
    """The messages of one app in a range of sequences. Made by `EventSource.open`."""

    def __init__(self, scan: Pull, until: int) -> None:
        self._scan = scan
        self._until = until
        self._remaining = scan.pending_at_open

    async def next(self) -> list[Message]:
        """
        Read some messages, in their order.

        Returns:
            The messages; none at the end of the range.

        Raises:
            UnavailableError: The stream went silent. Open the range again: its end may have changed.
        """
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


class EventSource:
    """Reads `EVENTS`. Every method raises `UnavailableError` while NATS does not answer."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    async def state(self) -> StreamState:
        """The first and the last sequence that the stream holds now."""
        return await self._bus.stream_state(streams.EVENTS)

    @asynccontextmanager
    async def open(self, app_key: str, *, after: int, until: int) -> AsyncIterator[SequenceRange]:
        """Open the messages of an app in (`after`, `until`]. `until` must be in the stream already."""
        subject = subjects.events_of_app(app_key)
        async with open_scan(self._bus, streams.EVENTS, subject=subject, start_sequence=after + 1) as scan:
            yield SequenceRange(scan, until)
