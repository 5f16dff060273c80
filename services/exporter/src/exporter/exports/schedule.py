"""
When a run is due. Pure: time comes in as `now`, and nothing here waits.

Time is cut into slots of the export's frequency, counted from the Unix epoch. A run belongs to the start of its slot:
two replicas name the same slot without talking, and a slot that was run is never run again. Slots that were missed are
not made up one by one: the next run reads everything that is new.
"""

import zlib
from datetime import UTC, datetime, timedelta

from msgspec import Struct

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
SPREAD_SHARE = 0.1
"""The share of a period over which exports of the same frequency are spread."""
SPREAD_MAX_S = 60.0
"""No export starts later than this after the round time."""


class Schedule(Struct, frozen=True, kw_only=True):
    """
    Every `every_s` seconds, `offset_s` after the round time.

    A change of frequency needs no care: a slot is kept as its start and not as a number.
    """

    every_s: float
    offset_s: float = 0.0

    def slot(self, now: datetime) -> datetime:
        """The start of the slot in which `now` lies."""
        offset = timedelta(seconds=self.offset_s)
        every = timedelta(seconds=self.every_s)
        return EPOCH + offset + (now - EPOCH - offset) // every * every

    def due(self, now: datetime, last_slot_at: datetime) -> datetime | None:
        """The slot to run now, or None while the last one that was run is the current one."""
        slot = self.slot(now)
        return slot if slot > last_slot_at else None

    def wait_s(self, now: datetime, last_slot_at: datetime) -> float:
        """Seconds until a run is due; 0 when one is due now."""
        if self.due(now, last_slot_at):
            return 0.0
        # A clock that was set back waits for the first slot after the last that was run, rather than run one twice.
        following = self.slot(max(now, last_slot_at)) + timedelta(seconds=self.every_s)
        return (following - now).total_seconds()


def schedule_of(name: str, every_s: float) -> Schedule:
    """A schedule whose offset depends on the export's name alone, so that not all exports start in the same second."""
    share = zlib.crc32(name.encode()) / (1 << 32)
    return Schedule(every_s=every_s, offset_s=share * min(every_s * SPREAD_SHARE, SPREAD_MAX_S))
