"""
The messages of one subject from the newest to the oldest. A stream is read in one direction only, and does not tell
where the last hundred of a subject are, so it is read in stretches that go back, each longer than the one before.

How many of the subject are in a stretch is known before it is read. So a subject with few messages among millions of
others costs some questions, and one with many is not read further than it is wanted.
"""

from collections.abc import AsyncGenerator
from datetime import datetime

from shared.contracts.streams import Stream
from shared.messaging.bus import Bus
from shared.messaging.consumers import open_scan
from shared.messaging.message import Message
from shared.messaging.pull import Pull

STRETCH = 1000
"""Messages of the stream, whoever's they are."""
MOST_READ = 1000
"""Messages of the subject at a time: what is held of them."""


async def newest_first(
    bus: Bus, stream: Stream, subject: str, *, before: datetime | None = None
) -> AsyncGenerator[Message, None]:
    """
    Read back, until whoever asks has enough.

    Args:
        before: Leave out what was stored then or later.

    Raises:
        UnavailableError: NATS does not answer.
    """
    last = await bus.last_message(stream, subject)
    if last is None:
        return
    # What is read lies before `end`; `newer` messages of the subject do not, and `known` is the oldest of those.
    known, end, newer = last.sequence, last.sequence + 1, 0
    if before is not None and before <= last.at:
        async with open_scan(bus, stream, subject=subject, start_at=before) as scan:
            newer = scan.pending_at_open
            [first, *_] = await scan.next(1)
            known = end = first.sequence
    stretch = STRETCH
    while end > 1:
        start = max(1, end - stretch)
        async with open_scan(bus, stream, subject=subject, start_sequence=start) as scan:
            pending = scan.pending_at_open
            if pending - newer > MOST_READ and end - start > 1:
                stretch = (end - start) // 2
                continue
            found = [message for message in await _until(scan, known) if message.sequence < end]
        for message in reversed(found):
            yield message
        if found:
            known = found[0].sequence
        end, newer, stretch = start, pending, stretch * 4


async def _until(scan: Pull, sequence: int) -> list[Message]:
    found: list[Message] = []
    while True:
        for message in await scan.next(MOST_READ):
            found.append(message)
            # It may have become too old meanwhile; then the last one of all ends it.
            if message.sequence >= sequence or message.pending == 0:
                return found
