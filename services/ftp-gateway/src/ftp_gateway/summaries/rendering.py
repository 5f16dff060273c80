"""
Daily summary of an app's files: the days that are due, and the text. Pure; `summaries.sender` sends it.
"""

from collections.abc import Sequence
from datetime import date, datetime, time, timedelta
from typing import Annotated
from zoneinfo import ZoneInfo

from msgspec import Meta, Struct

from shared.contracts.messages import FileChanged

MAX_DAYS = 7
"""Days in one summary, after days on which none could be sent."""
MAX_FILES = 500
"""Files listed in one summary, those with errors first. The totals count all."""

Address = Annotated[str, Meta(max_length=254, pattern=r"^[^\s@,;<>\"()]+@[^\s@,;<>\"()]+$(?!\n)")]


class Summary(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """
    An e-mail about the files of each day, sent on the next day from `hour` on, in the app's timezone.

    With `only_when_something_happened` none is sent for a day without files.
    """

    recipients: Annotated[tuple[Address, ...], Meta(min_length=1, max_length=20)]
    hour: Annotated[int, Meta(ge=0, le=23)] = 8
    only_when_something_happened: bool = True


class SummaryPeriod(Struct, frozen=True):
    """From the beginning of `first` to the end of `last`."""

    first: date
    last: date
    zone: ZoneInfo

    @property
    def start(self) -> datetime:
        return datetime.combine(self.first, time.min, self.zone)

    @property
    def end(self) -> datetime:
        """The first moment after the last day."""
        return datetime.combine(self.last + timedelta(days=1), time.min, self.zone)

    def __str__(self) -> str:
        return f"{self.first}" if self.first == self.last else f"{self.first} to {self.last}"


def newest_day_due(summary: Summary, zone: ZoneInfo, now: datetime) -> date:
    """Return the last day whose summary may be sent."""
    local = now.astimezone(zone)
    return local.date() - timedelta(days=1 if local.hour >= summary.hour else 2)


def period_due(summary: Summary, zone: ZoneInfo, now: datetime, last_day: date) -> SummaryPeriod | None:
    """Return the days after `last_day` whose summary is due now; None for none."""
    newest = newest_day_due(summary, zone, now)
    if last_day >= newest:
        return None
    return SummaryPeriod(max(last_day + timedelta(days=1), newest - timedelta(days=MAX_DAYS - 1)), newest, zone)


def outcome_of(event: FileChanged) -> str:
    """Return the outcome as `result.json` names it."""
    if event.state == "completed":
        return "done_with_errors" if event.rows_bad else "done"
    if event.state == "failed":
        return event.reason if event.reason in ("empty", "truncated") else "rejected"
    return event.state


class FileTotals:
    """Totals of an app's files. Memory is bounded by `MAX_FILES`."""

    def __init__(self) -> None:
        self.outcomes: dict[str, int] = {}
        self.rows = self.rows_ok = self.rows_bad = self.duplicates = 0
        self._with_errors: list[FileChanged] = []
        self._done: list[FileChanged] = []

    def add(self, event: FileChanged) -> None:
        """Count the end of a file, or an upload that broke off."""
        outcome = outcome_of(event)
        self.outcomes[outcome] = self.outcomes.get(outcome, 0) + 1
        self.rows += event.rows
        self.rows_ok += event.rows_ok
        self.rows_bad += event.rows_bad
        self.duplicates += event.duplicates
        kept = self._done if outcome == "done" else self._with_errors
        if len(kept) < MAX_FILES:
            kept.append(event)

    @property
    def files(self) -> int:
        return sum(self.outcomes.values())

    @property
    def not_sent(self) -> int:
        """Good rows of files whose content came before."""
        return self.rows - self.rows_ok - self.rows_bad

    @property
    def with_errors(self) -> int:
        """Files whose outcome is not `done`."""
        return self.files - self.outcomes.get("done", 0)

    def shown(self) -> list[FileChanged]:
        """Return the files to list, in the order of time."""
        return sorted((self._with_errors + self._done)[:MAX_FILES], key=lambda event: event.at)


def render_subject(app_name: str, period: SummaryPeriod, totals: FileTotals) -> str:
    """Return the subject of the e-mail."""
    troubles = f", {totals.with_errors} with troubles" if totals.with_errors else ""
    files = "1 file" if totals.files == 1 else f"{totals.files} files"
    return f"{' '.join(app_name.split())}: {files} on {period}{troubles}"


def render_text(app_name: str, period: SummaryPeriod, totals: FileTotals) -> str:
    """Return the text of the e-mail."""
    shown = totals.shown()
    outcomes = ", ".join(f"{count} {outcome}" for outcome, count in sorted(totals.outcomes.items()))
    lines = [
        f"Files of {' '.join(app_name.split())}, {period} ({period.zone.key})",
        "",
        f"files:      {totals.files}" + (f" ({outcomes})" if outcomes else ""),
        f"rows:       {totals.rows}",
        f"ok:         {totals.rows_ok}",
        f"failed:     {totals.rows_bad}",
        *([f"not sent:   {totals.not_sent}, of files that came before"] if totals.not_sent else []),
        f"duplicates: {totals.duplicates}",
    ]
    if shown:
        lines += ["", *_table(shown, period)]
    if totals.files > len(shown):
        lines.append(f"and {totals.files - len(shown)} more files")
    if totals.with_errors:
        lines += ["", "The rows that were not taken are in /errors, in <name>.report.csv."]
    return "\n".join(lines) + "\n"


def _table(events: Sequence[FileChanged], period: SummaryPeriod) -> list[str]:
    rows = [("time", "kind", "outcome", "ok", "failed", "duplicates", "name", "reason")]
    for event in events:
        at = event.at.astimezone(period.zone).strftime("%m-%d %H:%M")
        counts = (str(event.rows_ok), str(event.rows_bad), str(event.duplicates))
        rows.append((at, event.kind, outcome_of(event), *counts, event.file_name, event.reason or ""))
    widths = [max(len(row[column]) for row in rows) for column in range(6)]
    return ["  ".join([*map(str.ljust, row, widths), *row[6:]]).rstrip() for row in rows]
