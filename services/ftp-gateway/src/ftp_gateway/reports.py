"""
What a customer gets back for a file, in `/errors`: the rows that were not taken, and the outcome in figures. Pure.
"""

import csv
import io
from collections.abc import Sequence
from datetime import datetime
from typing import Literal

import msgspec
from msgspec import Struct

from ftp_gateway.lines import RowError

MAX_REPORTED = 10_000
"""Rows in a report. The figures count all."""

OutcomeName = Literal["done", "done_with_errors", "rejected", "truncated", "empty", "duplicate"]
_STATES: dict[OutcomeName, Literal["completed", "failed", "duplicate"]] = {
    "done": "completed",
    "done_with_errors": "completed",
    "rejected": "failed",
    "truncated": "failed",
    "empty": "failed",
    "duplicate": "duplicate",
}

# What a spreadsheet takes for a formula (OWASP, CSV injection).
_FORMULA = ("=", "+", "-", "@")


class Outcome(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """
    What became of a file: the content of `<name>.result.json`.

    `reason` is the stable code of a file that was refused whole, `duplicates` counts rows whose external id came before
    (they are published), exactly unless `duplicates_at_least`.
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
        """The outcome as `ftp.file.<app>.<state>` tells it."""
        return _STATES[self.outcome]


def report_name(kind: Literal["push", "profile"], file_name: str) -> str:
    """Where the rows that were not taken are."""
    return f"{_stem(kind, file_name)}.report.csv"


def result_name(kind: Literal["push", "profile"], file_name: str) -> str:
    """Where the outcome is."""
    return f"{_stem(kind, file_name)}.result.json"


def _stem(kind: Literal["push", "profile"], file_name: str) -> str:
    # Only a push file in .txt may have the name of a profile file. No file that is processed ends in .push, so this
    # stem belongs to one file alone.
    return f"{file_name}.push" if kind == "push" and not file_name.lower().endswith(".csv") else file_name


def render_report(errors: Sequence[RowError], total: int) -> bytes:
    """`line;code;message;excerpt` in UTF-8, at most `MAX_REPORTED` rows and a last one that tells how many more."""
    text = io.StringIO()
    writer = csv.writer(text, delimiter=";", lineterminator="\r\n")
    writer.writerow(("line", "code", "message", "excerpt"))
    for error in errors[:MAX_REPORTED]:
        writer.writerow((error.line or "", error.code, _safe(error.message), _safe(error.excerpt)))
    if total > MAX_REPORTED:
        writer.writerow(("", "more", f"{total - MAX_REPORTED} more rows were not taken", ""))
    return text.getvalue().encode()


def render_result(outcome: Outcome) -> bytes:
    """The outcome as indented JSON."""
    return msgspec.json.format(msgspec.json.encode(outcome), indent=2) + b"\n"


def _safe(cell: str) -> str:
    return f"'{cell}" if cell.lstrip().startswith(_FORMULA) else cell
