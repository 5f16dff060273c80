"""
What is taken of a partition and not acknowledged: which messages are complete, where the floor is, what has room.

A message is complete when each of its events is confirmed, stored as a dead letter or matched by no hook. The floor
moves by complete messages from the oldest on and by nothing else, so whoever takes over begins where order is whole.
"""

import asyncio
from collections import deque
from collections.abc import Callable

from msgspec import Struct

from hooks.delivery.model import Record
from shared.messaging.message import Message


class Bounds(Struct, frozen=True, kw_only=True):
    """What one partition may hold that is not acknowledged: the bound on this service's memory, and on repetitions."""

    records: int = 1024
    bytes: int = 4 << 20
    messages: int = 4096


class PendingMessage:
    """A message that was taken and is not acknowledged, with what is still to be done for it."""

    __slots__ = ("message", "unfinished", "window")

    def __init__(self, message: Message, window: "AckWindow") -> None:
        self.message = message
        self.window = window
        self.unfinished = 1
        """What is still to be done; 0 when the message is complete."""

    def expect(self, record: Record) -> None:
        """One more record has to be finished. Its `done` is this object."""
        window = self.window
        window.records += 1
        window.bytes += record.size
        self.unfinished += 1

    def __call__(self, record: Record) -> None:
        """A record is finished. No bound method: one for every record would be the collector's main work."""
        window = self.window
        window.records -= 1
        window.bytes -= record.size
        self.unfinished -= 1
        if not self.unfinished:
            window.advance()
        window.notify()

    def close(self) -> None:
        """Called by whoever took the message, once everything is expected."""
        self.unfinished -= 1
        if not self.unfinished:
            self.window.advance()


class AckWindow:
    """The messages between the ack floor and the newest one taken, in order."""

    def __init__(self, bounds: Bounds) -> None:
        self.bounds = bounds
        self._pending: deque[PendingMessage] = deque()
        self._changed = asyncio.Event()
        self._closed = False
        self.moved = asyncio.Event()
        self.records = 0
        """Records that are not finished."""
        self.bytes = 0
        """Of those records, with their keys."""
        self.floor: Message | None = None
        """The newest message up to which everything is complete."""
        self.dispatched = ""
        """The source of the newest event whose records were put into lanes."""

    def add(self, message: Message) -> PendingMessage:
        pending = PendingMessage(message, self)
        self._pending.append(pending)
        return pending

    def advance(self) -> None:
        """Called when a message has become complete."""
        pending = self._pending
        if pending[0].unfinished:
            return
        while pending and not pending[0].unfinished:
            self.floor = pending.popleft().message
        self.moved.set()
        self._changed.set()

    @property
    def oldest_ns(self) -> int | None:
        """When the oldest message that is not complete was stored; None where all are complete."""
        return self._pending[0].message.at_ns if self._pending else None

    @property
    def oldest(self) -> PendingMessage | None:
        """What holds the floor."""
        return self._pending[0] if self._pending else None

    @property
    def newest(self) -> PendingMessage | None:
        """What was taken last, unless everything is complete."""
        return self._pending[-1] if self._pending else None

    def record_filter(self) -> Callable[[Record], bool]:
        """Tells the records of the messages that are in here now from all others."""
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
        """Until there is room; False when `close` was called."""
        while self.full and not self._closed:
            await self.wait_change()
        return not self._closed

    async def wait_empty(self) -> None:
        """Until every record is finished. Nothing may be taken any more."""
        while self.records:
            await self.wait_change()

    async def wait_change(self) -> None:
        """Until something is finished, or `notify` or `close` is called."""
        self._changed.clear()
        await self._changed.wait()

    def notify(self) -> None:
        """Wake whoever waits for a change."""
        self._changed.set()

    def close(self) -> None:
        """Nobody waits for room any more."""
        self._closed = True
        self._changed.set()
