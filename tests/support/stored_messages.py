"""What lies in a stream or a bucket, as a test sees it. No test lives here."""

from shared.contracts.streams import Bucket, Stream
from shared.messaging.bus import Bus
from shared.messaging.consumers import open_scan
from shared.messaging.message import Message


async def messages(bus: Bus, stream: Stream | Bucket, subject: str) -> list[Message]:
    """What it holds now, in its order."""
    async with open_scan(bus, stream, subject=subject) as scan:
        found: list[Message] = []
        while len(found) < scan.pending_at_open:
            found += await scan.next(1000)
        return found
