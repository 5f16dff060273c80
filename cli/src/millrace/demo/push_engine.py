"""
A stand-in for the platform's push engine, which is not part of Millrace: it sends nothing to any phone.

It signs in to NATS as the user `push-engine` and reads the commands that ftp-gateway makes of push files. For each
command it writes the message log that the real engine would write.
"""

import asyncio
from itertools import groupby

from shared.contracts import subjects
from shared.contracts.consumers import PUSH_ENGINE_READER
from shared.contracts.messages import Event, Identities, PushBatch, PushRow, decode, encode, make_attributes
from shared.contracts.subjects import partition_of
from shared.messaging.bus import Bus
from shared.messaging.consumers import open_pull
from shared.messaging.pull import Pull

CODE = "PUSH_SENT"
NAME = "stand-in push engine"


class PushEngine:
    """Runs until cancelled. `sent` are the message logs that `EVENTS` has, in their order."""

    def __init__(self, bus: Bus) -> None:
        self.sent: list[Event] = []
        self._bus = bus
        self._changed = asyncio.Event()

    async def run(self) -> None:
        """Process commands until cancelled."""
        async with open_pull(self._bus, PUSH_ENGINE_READER) as pull:
            while True:
                await self._process(pull)

    async def _process(self, pull: Pull) -> None:
        for message in await pull.next(16):
            batch = decode(message.data, PushBatch)
            # The server's clock, so that a repetition makes the same events.
            at_ms = message.at_ns // 1_000_000
            events = [_message_log(batch, row, at_ms) for row in batch.rows]
            events.sort(key=lambda event: partition_of(event.user_id))
            for partition, part in groupby(events, key=lambda event: partition_of(event.user_id)):
                subject = subjects.events(batch.app_key, partition)
                message_id = f"{batch.app_key}:{NAME}:{message.sequence}:{partition}"
                await self._bus.publish(subject, encode(list(part)), message_id=message_id)
            await pull.ack_sync(message)
            self.sent += events
            self._changed.set()

    async def wait_sent(self, count: int) -> None:
        """Wait for `count` message logs."""
        while len(self.sent) < count:
            self._changed.clear()
            await self._changed.wait()


def _message_log(batch: PushBatch, row: PushRow, at_ms: int) -> Event:
    return Event(
        id=f"{CODE}:{row.id}",
        app_key=batch.app_key,
        type="message_log",
        code=CODE,
        user_id=row.ext_id,
        ext_id=row.ext_id,
        occurred_at=at_ms,
        attributes=make_attributes(
            {"text": row.text, "deeplink": row.deeplink, "inbox": batch.inbox, "file": batch.file_name}
        ),
        identities=Identities(),
    )
