"""Messages stored in a stream or a bucket, for tests. No test lives here."""

from shared.contracts.streams import Bucket, Stream
from shared.messaging.bus import Bus
from shared.messaging.consumers import open_scan
from shared.messaging.message import Message


async def messages(bus: Bus, stream: Stream | Bucket, subject: str) -> list[Message]:
    """The messages that it holds now, in their order."""
    async with open_scan(bus, stream, subject=subject) as scan:
        found: list[Message] = []
        while len(found) < scan.pending_at_open:
            found += await scan.next(1000)
        return found
