"""One partition of `EVENTS` in memory, with the consumer that its owners share. No test lives here."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from shared.bus import Message, StreamState
from shared.consumers import ClosedError


class MemoryEvents:
    """Satisfies `hooks.catch_up.Events`. `floor` is the sequence up to which everything is acknowledged."""

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
        self._more.set()

    def pull(self) -> "MemoryPull":
        """A reader from the floor on, as whoever becomes the owner opens it."""
        return MemoryPull(self, self.floor + 1)

    @asynccontextmanager
    async def scan(self, app_key: str, partition: int, start: int) -> AsyncIterator["MemoryPull"]:
        yield MemoryPull(self, start)

    async def state(self) -> StreamState:
        return StreamState(first_sequence=1, last_sequence=self.last, messages=self.last, bytes=0)

    async def wait_message(self, sequence: int) -> Message:
        """A message as soon as it is stored."""
        while self.last < sequence:
            self._more.clear()
            await self._more.wait()
        data = self._messages[sequence - 1]
        return Message(self._subject, data, sequence=sequence, at_ns=0, pending=self.last - sequence)


class MemoryPull:
    """Satisfies `hooks.partitions.Pull` and `hooks.catch_up.Scan`."""

    def __init__(self, events: MemoryEvents, start: int) -> None:
        self.pending_at_open = max(0, events.last + 1 - start)
        self._events = events
        self._next = start
        self._closed = False
        self._waiting: asyncio.Task[Message] | None = None

    async def next(self, most: int) -> list[Message]:
        if self._closed:
            raise ClosedError
        self._waiting = asyncio.create_task(self._events.wait_message(self._next))
        try:
            found = [await self._waiting]
        except asyncio.CancelledError:
            self._waiting.cancel()
            if self._closed:
                raise ClosedError from None
            raise
        while len(found) < most and self._next + len(found) <= self._events.last:
            found.append(await self._events.wait_message(self._next + len(found)))
        self._next += len(found)
        return found

    async def ack(self, message: Message) -> None:
        # Of ack policy `all`: what lies before it is acknowledged with it, and nothing is taken back.
        self._events.floor = max(self._events.floor, message.sequence)

    async def ack_sync(self, message: Message) -> None:
        await self.ack(message)

    async def look(self) -> None:
        """Nothing disturbs it."""

    def close(self) -> None:
        self._closed = True
        if self._waiting is not None:
            self._waiting.cancel()
