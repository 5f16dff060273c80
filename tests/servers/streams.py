"""What lies in a stream or a bucket, as a test sees it. No test lives here."""

from shared.bus import Bus, Message
from shared.consumer_admin import open_scan
from shared.mesh_streams import Bucket, Stream


async def messages(bus: Bus, stream: Stream | Bucket, subject: str) -> list[Message]:
    """What it holds now, in its order."""
    async with open_scan(bus, stream, subject=subject) as scan:
        found: list[Message] = []
        while len(found) < scan.pending_at_open:
            found += await scan.next(1000)
        return found
