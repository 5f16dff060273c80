"""Outcome of a file: its counts, its refused rows, and the names of its error report and its result file."""

from datetime import datetime
from typing import Literal

from msgspec import Struct


class RowError(Struct, frozen=True, kw_only=True):
    """A refused row. `code` is stable, `line` the physical line, `excerpt` its cut start."""

    line: int
    code: str
    message: str
    excerpt: str = ""


MAX_REPORTED = 10_000
"""Rows in an error report. The counts cover all rows."""

OutcomeName = Literal["done", "done_with_errors", "rejected", "truncated", "empty", "duplicate"]
_STATES: dict[OutcomeName, Literal["completed", "failed", "duplicate"]] = {
    "done": "completed",
    "done_with_errors": "completed",
    "rejected": "failed",
    "truncated": "failed",
    "empty": "failed",
    "duplicate": "duplicate",
}


class FileOutcome(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """
    Outcome of a file: the content of `<name>.result.json`.

    `reason` is the stable code of a file that was refused whole. `duplicates` counts rows whose external id came
    before; they are published. The count is exact unless `duplicates_at_least`.
    """

    file_id: str
    file_name: str
    kind: Literal["push", "profile"]
    outcome: OutcomeName
    size_bytes: int
    rows: int = 0
    ok: int = 0
    failed: int = 0
    duplicates: int = 0
    duplicates_at_least: bool = False
    reason: str | None = None
    message: str | None = None
    warnings: tuple[str, ...] = ()
    received_at: datetime
    seconds: float = 0.0

    @property
    def state(self) -> Literal["completed", "failed", "duplicate"]:
        """The outcome as the state in the subject `ftp.file.<app>.<state>`."""
        return _STATES[self.outcome]


def error_report_name(kind: Literal["push", "profile"], file_name: str) -> str:
    """Return the name of the error report in `/errors`, which lists the refused rows."""
    return f"{_stem(kind, file_name)}.report.csv"


def result_file_name(kind: Literal["push", "profile"], file_name: str) -> str:
    """Return the name of the result file in `/errors`, which holds the outcome."""
    return f"{_stem(kind, file_name)}.result.json"


def _stem(kind: Literal["push", "profile"], file_name: str) -> str:
    # Only a push file in .txt may have the name of a profile file. No file that is processed ends in .push, so this
    # stem belongs to one file alone.
    return f"{file_name}.push" if kind == "push" and not file_name.lower().endswith(".csv") else file_name
