"""
The ack window of one partition: the messages that are pulled and not acknowledged, and what still fits.

A message is complete when each of its events is confirmed, stored as a dead letter or matched by no hook. The ack floor
moves over complete messages only, from the oldest on. So the next owner begins where the order is whole.
"""

import asyncio
from collections import deque
from collections.abc import Callable

from msgspec import Struct

from hooks.delivery.model import Record
from shared.messaging.message import Message


class Bounds(Struct, frozen=True, kw_only=True):
    """Limits of one ack window. They bound the memory of the service and the repetitions after a crash."""

    records: int = 1024
    bytes: int = 4 << 20
    messages: int = 4096


class PendingMessage:
    """A message in the ack window, with the number of its unfinished records."""

    __slots__ = ("message", "unfinished", "window")

    def __init__(self, message: Message, window: "AckWindow") -> None:
        self.message = message
        self.window = window
        self.unfinished = 1
        """Records that are not finished, and one more until `close`. 0 when the message is complete."""

    def expect(self, record: Record) -> None:
        """Count one more record, whose `done` is this object."""
        window = self.window
        window.records += 1
        window.bytes += record.size
        self.unfinished += 1

    def __call__(self, record: Record) -> None:
        """Finish a record. A bound method for each record would be the main work of the garbage collector."""
        window = self.window
        window.records -= 1
        window.bytes -= record.size
        self.unfinished -= 1
        if not self.unfinished:
            window.advance()
        window.notify()

    def close(self) -> None:
        """End the counting: the reader calls this once every record is expected."""
        self.unfinished -= 1
        if not self.unfinished:
            self.window.advance()


class AckWindow:
    """The messages between the ack floor and the newest pulled one, in order."""

    def __init__(self, bounds: Bounds) -> None:
        self.bounds = bounds
        self._pending: deque[PendingMessage] = deque()
        self._changed = asyncio.Event()
        self._closed = False
        self.moved = asyncio.Event()
        self.records = 0
        """Records that are not finished."""
        self.bytes = 0
        """Size of those records, with their keys."""
        self.floor: Message | None = None
        """The ack floor: the newest message up to which everything is complete."""
        self.dispatched = ""
        """Source of the newest event whose records are queued."""

    def add(self, message: Message) -> PendingMessage:
        pending = PendingMessage(message, self)
        self._pending.append(pending)
        return pending

    def advance(self) -> None:
        """Move the floor. A message that has become complete calls this."""
        pending = self._pending
        if pending[0].unfinished:
            return
        while pending and not pending[0].unfinished:
            self.floor = pending.popleft().message
        self.moved.set()
        self._changed.set()

    @property
    def oldest_ns(self) -> int | None:
        """Time at which the oldest incomplete message was stored; None where all are complete."""
        return self._pending[0].message.at_ns if self._pending else None

    @property
    def oldest(self) -> PendingMessage | None:
        """The message that holds the floor."""
        return self._pending[0] if self._pending else None

    @property
    def newest(self) -> PendingMessage | None:
        """The message that was pulled last; None where all are complete."""
        return self._pending[-1] if self._pending else None

    def record_filter(self) -> Callable[[Record], bool]:
        """Return a test for records of the messages that are in the window now."""
        pending = set(self._pending)
        return lambda record: record.done in pending

    @property
    def half_full(self) -> bool:
        bounds = self.bounds
        most = max(self.records / bounds.records, self.bytes / bounds.bytes, len(self._pending) / bounds.messages)
        return most >= 0.5

    @property
    def full(self) -> bool:
        bounds = self.bounds
        return self.records >= bounds.records or self.bytes >= bounds.bytes or len(self._pending) >= bounds.messages

    async def wait_room(self) -> bool:
        """Wait for room. Returns False when `close` was called."""
        while self.full and not self._closed:
            await self.wait_change()
        return not self._closed

    async def wait_empty(self) -> None:
        """Wait until every record is finished. Nothing may be added meanwhile."""
        while self.records:
            await self.wait_change()

    async def wait_change(self) -> None:
        """Wait until a record is finished, or `notify` or `close` is called."""
        self._changed.clear()
        await self._changed.wait()

    def notify(self) -> None:
        """Wake the task that waits for a change."""
        self._changed.set()

    def close(self) -> None:
        """End every wait for room."""
        self._closed = True
        self._changed.set()
