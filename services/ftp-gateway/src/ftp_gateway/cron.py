"""
A schedule in cron's five fields, in a time zone: `30 2 * * *` is every day at 02:30. Pure: the time comes in.

Fields are minute, hour, day of the month, month and day of the week (0 and 7 are Sunday), each `*`, a number, a range
`1-5`, a step `*/15` or `8-18/2`, a list of those, or, for months and days of the week, English names of three letters.
Where both days are given, either is enough (crontab(5)).

A time that the clock skips in spring comes as much later as is skipped. One that comes twice in autumn is taken once,
unless the schedule says every hour.
"""

import re
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

from msgspec import Struct

from shared.errors import InvalidError

MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
WEEKDAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
SEARCHED_DAYS = 8 * 366 + 1
"""29 February is at most eight years away."""

_PART = re.compile(r"(?:(?P<all>\*)|(?P<first>\w+)(?:-(?P<last>\w+))?)(?:/(?P<step>[0-9]{1,2}))?")


class Cron(Struct, frozen=True):
    """A parsed schedule. Days of the week are those of `date.isoweekday`; of the two kinds of days `either` may do."""

    minutes: tuple[int, ...]
    hours: tuple[int, ...]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]
    either: bool

    def following(self, now: datetime, zone: ZoneInfo) -> datetime:
        """The first time after `now`, in UTC."""
        first = now.astimezone(zone).date()
        # From the day before: in spring a time may be moved past midnight.
        for number in range(-1, SEARCHED_DAYS):
            day = first + timedelta(days=number)
            if self._is_day(day):
                later = [moment for moment in self._times(day, zone) if moment > now]
                if later:
                    return min(later)
        raise InvalidError("expected a day that comes")

    def _is_day(self, day: date) -> bool:
        if day.month not in self.months:
            return False
        fits = day.day in self.days, day.isoweekday() in self.weekdays
        return any(fits) if self.either else all(fits)

    def _times(self, day: date, zone: ZoneInfo) -> list[datetime]:
        folds = (0, 1) if len(self.hours) == 24 else (0,)
        return [
            datetime.combine(day, time(hour, minute, fold=fold), zone).astimezone(UTC)
            for hour in self.hours
            for minute in self.minutes
            for fold in folds
        ]


@lru_cache(maxsize=1024)
def parse_cron(text: str) -> Cron:
    """Raises `InvalidError` for what is no schedule, or for a day that never comes."""
    fields = text.split()
    if len(fields) != 5:
        raise InvalidError("expected five fields: minute, hour, day of the month, month, day of the week")
    minutes = _numbers(fields[0], "minute", 0, 59)
    hours = _numbers(fields[1], "hour", 0, 23)
    days = _numbers(fields[2], "day of the month", 1, 31)
    months = _numbers(fields[3], "month", 1, 12, MONTHS)
    weekdays = _numbers(fields[4], "day of the week", 0, 7, WEEKDAYS)
    cron = Cron(
        minutes=tuple(sorted(minutes)),
        hours=tuple(sorted(hours)),
        days=frozenset(days),
        months=frozenset(months),
        weekdays=frozenset(day or 7 for day in weekdays),
        either=not fields[2].startswith("*") and not fields[4].startswith("*"),
    )
    cron.following(datetime(2024, 1, 1, tzinfo=UTC), ZoneInfo("UTC"))
    return cron


def _numbers(field: str, name: str, low: int, high: int, names: tuple[str, ...] = ()) -> set[int]:
    found: set[int] = set()
    for part in field.split(","):
        match = _PART.fullmatch(part)
        if match is None:
            raise InvalidError(f"expected a {name} such as *, {low}, {low}-{high} or */2, and not {part[:20]!r}")
        first, last = low, high
        if not match["all"]:
            first = _number(match["first"], name, low, high, names)
            last = _number(match["last"], name, low, high, names) if match["last"] else first
            if match["step"] and not match["last"]:
                last = high
        step = int(match["step"] or 1)
        if not step or first > last:
            raise InvalidError(f"expected a range of the {name} that goes up, and not {part[:20]!r}")
        found |= set(range(first, last + 1, step))
    return found


def _number(word: str, name: str, low: int, high: int, names: tuple[str, ...]) -> int:
    if word.lower() in names:
        return names.index(word.lower()) + low
    if word.isascii() and word.isdecimal() and len(word) <= 2 and low <= int(word) <= high:
        return int(word)
    raise InvalidError(f"expected a {name} from {low} to {high}, and not {word[:20]!r}")
