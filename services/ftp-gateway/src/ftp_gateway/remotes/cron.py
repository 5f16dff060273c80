"""
Schedules in cron's five fields, in a time zone: `30 2 * * *` is every day at 02:30. Pure.

`cronsim` reads them as Debian's cron does. A time that the clock skips in spring falls on the moment of the change. A
time that comes twice in autumn counts once, unless the schedule says every hour or every minute.
"""

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from shared.errors import InvalidError

FIELDS = 5
"""`cronsim` accepts a sixth, for seconds."""


def check_schedule(schedule: str) -> None:
    """Raises `InvalidError` for a text that is no schedule, or for a day that never comes."""
    try:
        if len(schedule.split()) != FIELDS:
            raise CronSimError("wrong number of fields")
        next(CronSim(schedule, datetime(2024, 1, 1, tzinfo=UTC)))
    except (CronSimError, StopIteration) as error:
        raise InvalidError(
            "expected cron's five fields, minute, hour, day of the month, month and day of the week, and a day that "
            f"comes: {error}"
        ) from None


def next_time(schedule: str, now: datetime, zone: ZoneInfo) -> datetime:
    """Return the first time after `now`, in UTC. The schedule has passed `check_schedule`."""
    times = (found.astimezone(UTC) for found in CronSim(schedule, now.astimezone(zone)))
    # In an hour that comes twice the library begins with the first one.
    return next(found for found in times if found > now)
