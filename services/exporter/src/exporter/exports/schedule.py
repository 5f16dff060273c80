"""
The times at which runs are due. Pure: the time is passed in as `now`, and nothing here waits.

Time is divided into slots of the export's frequency, counted from the Unix epoch. A run is identified by the start of
its slot: two replicas compute the same slot without communicating, and no slot is run twice. Missed slots are not run
one by one: the next run reads everything that is new.
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

    Progress stores a slot by its start and not by a number, so the frequency may change at any time.
    """

    every_s: float
    offset_s: float = 0.0

    def slot(self, now: datetime) -> datetime:
        """The start of the slot that holds `now`."""
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
        # After a clock was set back, wait for the first slot after the last one that was run: none is run twice.
        following = self.slot(max(now, last_slot_at)) + timedelta(seconds=self.every_s)
        return (following - now).total_seconds()


def schedule_of(name: str, every_s: float) -> Schedule:
    """A schedule whose offset depends on the export's name alone, so that exports do not all start in one second."""
    share = zlib.crc32(name.encode()) / (1 << 32)
    return Schedule(every_s=every_s, offset_s=share * min(every_s * SPREAD_SHARE, SPREAD_MAX_S))
