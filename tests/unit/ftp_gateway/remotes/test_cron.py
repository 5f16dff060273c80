"""Schedules in cron's five fields: their times, also where the clock is put forward or back."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ftp_gateway.remotes.cron import check_schedule, next_time
from shared.errors import InvalidError


def local(text: str, zone: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone))


@pytest.mark.parametrize(
    ("schedule", "zone", "now", "expected"),
    [
        ("30 2 * * *", "Europe/Istanbul", "2026-11-22 01:00", "2026-11-22 02:30"),
        ("30 2 * * *", "Europe/Istanbul", "2026-11-22 02:30", "2026-11-23 02:30"),
        ("30 2 * * *", "America/New_York", "2026-11-22 23:59", "2026-11-23 02:30"),
        ("*/15 * * * *", "UTC", "2026-11-22 02:30", "2026-11-22 02:45"),
        ("50/5 * * * *", "UTC", "2026-11-22 02:51", "2026-11-22 02:55"),
        ("0 8-18/5 * * *", "UTC", "2026-11-22 09:00", "2026-11-22 13:00"),
        ("0 6 * * mon-fri", "UTC", "2026-11-21 07:00", "2026-11-23 06:00"),
        ("0 6 * * SUN", "UTC", "2026-11-21 07:00", "2026-11-22 06:00"),
        ("0 6 * * 0", "UTC", "2026-11-21 07:00", "2026-11-22 06:00"),
        ("0 6 * * 7", "UTC", "2026-11-21 07:00", "2026-11-22 06:00"),
        ("0 0 1,15 * *", "UTC", "2026-11-21 07:00", "2026-12-01 00:00"),
        ("0 0 31 * *", "UTC", "2026-11-21 07:00", "2026-12-31 00:00"),
        ("0 0 29 feb *", "UTC", "2096-03-01 00:00", "2104-02-29 00:00"),
        ("0 0 13 * fri", "UTC", "2026-11-21 07:00", "2026-11-27 00:00"),
        ("0 0 */2 * mon", "UTC", "2026-11-21 07:00", "2026-11-23 00:00"),
    ],
)
def test_a_schedule_follows_the_clock_on_the_wall(schedule: str, zone: str, now: str, expected: str) -> None:
    found = next_time(schedule, local(now, zone), ZoneInfo(zone))

    assert local(expected, zone) == found


@pytest.mark.parametrize(
    ("schedule", "now", "found"),
    [
        # In Berlin the clock goes from 2 to 3 on 2026-03-29 (01:00 UTC) and from 3 to 2 on 2026-10-25 (01:00 UTC).
        ("30 2 * * *", "2026-03-29T00:00", ["2026-03-29T01:00", "2026-03-30T00:30"]),
        ("30 2 * * *", "2026-10-24T22:00", ["2026-10-25T00:30", "2026-10-26T01:30"]),
        ("0 * * * *", "2026-10-24T23:30", ["2026-10-25T00:00", "2026-10-25T01:00", "2026-10-25T02:00"]),
        ("0 2,3 * * *", "2026-03-29T00:00", ["2026-03-29T01:00", "2026-03-30T00:00"]),
    ],
)
def test_where_the_clock_is_changed_no_day_is_lost_and_no_time_comes_twice(
    schedule: str, now: str, found: list[str]
) -> None:
    at = datetime.fromisoformat(now).replace(tzinfo=UTC)
    times = []
    for _ in found:
        at = next_time(schedule, at, ZoneInfo("Europe/Berlin"))
        times.append(at.strftime("%Y-%m-%dT%H:%M"))

    assert found == times


_FIELDS = st.tuples(
    st.sampled_from(["*", "0", "5,50", "*/20", "10-12"]),
    st.sampled_from(["*", "2", "0-23/7", "22,23"]),
    st.sampled_from(["*", "1", "28-31", "*/10"]),
    st.sampled_from(["*", "mar", "2-4", "10"]),
    st.sampled_from(["*", "sun", "1-5", "6,7"]),
)
# Not Australia/Lord_Howe, which moves its clock by half an hour: cronsim passes over a half hour of that day there.
_ZONES = st.sampled_from(["UTC", "Europe/Istanbul", "Europe/Berlin", "America/St_Johns", "Asia/Kathmandu"])


@given(_FIELDS, _ZONES, st.datetimes(datetime(2026, 1, 1), datetime(2030, 1, 1)))
def test_what_follows_is_later_and_nothing_is_in_between(fields: tuple[str, ...], zone: str, naive: datetime) -> None:
    schedule, now = " ".join(fields), naive.replace(tzinfo=UTC)

    found = next_time(schedule, now, ZoneInfo(zone))

    assert found > now
    for share in (0.1, 0.5, 0.9):
        assert found == next_time(schedule, now + (found - now) * share, ZoneInfo(zone))
    assert found == next_time(schedule, found - timedelta(microseconds=1), ZoneInfo(zone))


@pytest.mark.parametrize(
    "schedule",
    [
        "",
        "* * * *",
        "* * * * * *",
        "60 * * * *",
        "* 24 * * *",
        "* * 0 * *",
        "* * * 13 *",
        "* * * * 8",
        "* * * * monday",
        "mon * * * *",
        "5-1 * * * *",
        "*/0 * * * *",
        "1,, * * * *",
        "-1 * * * *",
        "1-2-3 * * * *",
        "\N{ARABIC-INDIC DIGIT ONE} * * * *",
        "0 0 30 2 *",
        "@daily",
    ],
)
def test_what_is_no_schedule_is_refused(schedule: str) -> None:
    with pytest.raises(InvalidError, match="expected"):
        check_schedule(schedule)


@given(st.text(alphabet="0123456789*/-, monaJ", max_size=40))
def test_no_text_breaks_the_parser(text: str) -> None:
    try:
        check_schedule(text)
    except InvalidError:
        return
