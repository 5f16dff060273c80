"""Due dates of a daily summary, and its text."""

from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ftp_gateway.summaries.rendering import (
    MAX_DAYS,
    MAX_FILES,
    FileTotals,
    Summary,
    SummaryPeriod,
    newest_day_due,
    period_due,
    render_subject,
    render_text,
)
from shared.contracts.messages import FileChanged
from shared.contracts.subjects import FileState

ISTANBUL = ZoneInfo("Europe/Istanbul")
SUMMARY = Summary(recipients=("ada@shop.example",), hour=8)
DAYS = SummaryPeriod(date(2026, 11, 21), date(2026, 11, 21), ISTANBUL)


def at(text: str, zone: ZoneInfo = ISTANBUL) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=zone)


def event(name: str = "a.csv", state: FileState = "completed", **values: Any) -> FileChanged:
    given: dict[str, Any] = {"at": at("2026-11-21T09:30"), "kind": "push", "file_id": "f"} | values
    return FileChanged(app_key="shop", file_name=name, state=state, **given)


@pytest.mark.parametrize(
    ("now", "expected"),
    [("2026-11-22T07:59", "2026-11-20"), ("2026-11-22T08:00", "2026-11-21"), ("2026-11-22T23:59", "2026-11-21")],
)
def test_a_day_is_due_from_the_hour_of_the_next(now: str, expected: str) -> None:
    assert date.fromisoformat(expected) == newest_day_due(SUMMARY, ISTANBUL, at(now).astimezone(UTC))


def test_nothing_is_due_when_the_day_was_sent() -> None:
    assert None is period_due(SUMMARY, ISTANBUL, at("2026-11-22T08:00"), date(2026, 11, 21))
    assert None is period_due(SUMMARY, ISTANBUL, at("2026-11-22T07:59"), date(2026, 11, 20))


def test_days_on_which_none_could_be_sent_are_sent_together() -> None:
    found = period_due(SUMMARY, ISTANBUL, at("2026-11-22T08:00"), date(2026, 11, 18))

    assert found is not None
    assert "2026-11-19 to 2026-11-21" == str(found)
    assert (at("2026-11-19T00:00"), at("2026-11-22T00:00")) == (found.start, found.end)


def test_no_more_days_are_sent_than_a_week() -> None:
    found = period_due(SUMMARY, ISTANBUL, at("2026-11-22T08:00"), date(2025, 1, 1))

    assert found is not None
    assert timedelta(days=MAX_DAYS) == found.end - found.start


@given(
    start=st.datetimes(datetime(2026, 1, 1), datetime(2028, 1, 1)),
    steps=st.lists(st.floats(60, 36 * 3600), max_size=40),
    zone=st.sampled_from(["Europe/Istanbul", "Europe/Berlin", "America/St_Johns", "Pacific/Apia", "UTC"]),
    hour=st.integers(0, 23),
)
def test_every_moment_is_in_one_summary_at_any_time_of_the_check(
    start: datetime, steps: list[float], zone: str, hour: int
) -> None:
    summary, place, now = Summary(recipients=("a@b",), hour=hour), ZoneInfo(zone), start.replace(tzinfo=UTC)
    told = newest_day_due(summary, place, now)
    end = SummaryPeriod(told, told, place).end
    for step in steps:
        now += timedelta(seconds=step)
        found = period_due(summary, place, now, told)
        if found is not None:
            assert end == found.start
            assert found.end <= now
            told, end = found.last, found.end


def test_a_summary_names_files_with_their_figures_and_reasons() -> None:
    tally = FileTotals()
    for one in (
        event("a.csv", rows=7, rows_ok=7, duplicates=1),
        event("b.csv", rows=4, rows_ok=2, rows_bad=2, at=at("2026-11-21T09:31")),
        event("p.txt", "failed", kind="profile", rows=3, rows_bad=3, reason="unknown_attribute"),
        event("c.csv", "duplicate", rows=7),
        event("d.csv", "failed", reason="truncated"),
        event("e.csv", "partial", reason="the connection was lost before the file was closed"),
    ):
        tally.add(one)

    text = render_text("Shop\nTurkey", DAYS, tally)

    assert "Shop Turkey: 6 files on 2026-11-21, 5 with troubles" == render_subject("Shop\nTurkey", DAYS, tally)
    lines = text.splitlines()
    assert "Files of Shop Turkey, 2026-11-21 (Europe/Istanbul)" == lines[0]
    assert "files:      6 (1 done, 1 done_with_errors, 1 duplicate, 1 partial, 1 rejected, 1 truncated)" == lines[2]
    figures = ["rows:       21", "ok:         9", "failed:     5", "not sent:   7, of files that came before"]
    assert [*figures, "duplicates: 1"] == lines[3:8]
    rows = [line.split() for line in lines[9:16]]
    assert ["time", "kind", "outcome", "ok", "failed", "duplicates", "name", "reason"] == rows[0]
    assert ["11-21", "09:30", "profile", "rejected", "0", "3", "0", "p.txt", "unknown_attribute"] in rows
    assert ["11-21", "09:31", "push", "done_with_errors", "2", "2", "0", "b.csv"] == rows[-1]
    assert "/errors" in lines[-1]


def test_one_file_is_no_plural() -> None:
    tally = FileTotals()
    tally.add(event("a.csv", rows=7, rows_ok=7))

    assert "Shop: 1 file on 2026-11-21" == render_subject("Shop", DAYS, tally)
    assert "not sent" not in render_text("Shop", DAYS, tally)


def test_a_summary_of_a_quiet_day_says_so() -> None:
    assert "Shop: 0 files on 2026-11-21" == render_subject("Shop", DAYS, FileTotals())
    assert "files:      0\n" in render_text("Shop", DAYS, FileTotals())


def test_of_many_files_those_with_failures_are_named_and_all_are_counted() -> None:
    tally = FileTotals()
    for number in range(MAX_FILES + 100):
        tally.add(event(f"{number}.csv", rows=1, rows_ok=1))
    tally.add(event("broken.csv", "failed", reason="truncated"))

    text = render_text("Shop", DAYS, tally)

    assert "broken.csv" in text
    assert f"files:      {MAX_FILES + 101} " in text
    assert "and 101 more files" in text
