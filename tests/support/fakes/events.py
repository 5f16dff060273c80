"""One partition of `EVENTS` in memory, with the consumer that its owners share. No test lives here."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from shared.messaging.bus import StreamState
from shared.messaging.message import Message
from shared.messaging.pull import ClosedError


class MemoryEvents:
    """Satisfies `hooks.backlog.reader.EventStream`. `floor` is the sequence up to which everything is acknowledged."""

    def __init__(self, subject: str) -> None:
        self.floor = 0
        self._subject = subject
        self._messages: list[bytes] = []
        self._more = asyncio.Event()

    @property
    def last(self) -> int:
        """The newest sequence."""
        return len(self._messages)

    def publish(self, data: bytes) -> None:
        """Store a message."""
        self._messages.append(data)
        self.notify()

    def pull(self) -> "MemoryPull":
        """Open a reader from the floor on, as a new owner does."""
        return MemoryPull(self, self.floor + 1)

    @asynccontextmanager
    async def scan(self, app_key: str, partition: int, start: int) -> AsyncIterator["MemoryPull"]:
        yield MemoryPull(self, start)

    async def state(self) -> StreamState:
        return StreamState(first_sequence=1, last_sequence=self.last, messages=self.last, bytes=0)

    async def wait_change(self) -> None:
        """Wait until a message is stored, or `notify` is called."""
        self._more.clear()
        await self._more.wait()

    def notify(self) -> None:
        """Wake the readers."""
        self._more.set()

    def message(self, sequence: int) -> Message:
        """As it is delivered."""
        data = self._messages[sequence - 1]
        return Message(self._subject, data, sequence=sequence, at_ns=0, pending=self.last - sequence)


class MemoryPull:
    """Satisfies `hooks.partitions.consumer.PartitionPull` and `hooks.backlog.reader.EventScan`."""

    def __init__(self, events: MemoryEvents, start: int) -> None:
        self.pending_at_open = max(0, events.last + 1 - start)
        self._events = events
        self._next = start
        self._closed = False

    async def next(self, most: int) -> list[Message]:
        while not self._closed and self._next > self._events.last:
            await self._events.wait_change()
        if self._closed:
            raise ClosedError
        first = self._next
        self._next = min(first + most, self._events.last + 1)
        return [self._events.message(sequence) for sequence in range(first, self._next)]

    async def ack(self, message: Message) -> None:
        # Ack policy `all`: earlier messages are acknowledged with it, and no ack is undone.
        self._events.floor = max(self._events.floor, message.sequence)

    async def ack_sync(self, message: Message) -> None:
        await self.ack(message)

    async def check(self) -> None:
        """Nothing disturbs it."""

    def close(self) -> None:
        self._closed = True
        self._events.notify()
