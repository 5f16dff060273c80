"""
What a customer gets back for a file, in `/errors`: the rows that were not taken, and the outcome in figures. Pure.
"""

import csv
import io
import re
import unicodedata
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

_FORMULA = frozenset("=+-@\N{MINUS SIGN}")
"""What a spreadsheet takes for the beginning of a formula (OWASP, CSV injection), besides what NFKC makes one of these:
the full-width forms above all, which Excel in Chinese, Japanese and Korean reads alike."""
_CELLS = re.compile(r"[^,\t\r\n]*[,\t\r\n]*")
"""What may be a cell of its own to a program that does not take ';' for what separates cells."""


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
    """
    `line;code;message;excerpt` in UTF-8, at most `MAX_REPORTED` rows and a last one that tells how many more. It begins
    with a byte order mark, without which Excel reads it in the machine's old code page.
    """
    text = io.StringIO()
    writer = csv.writer(text, delimiter=";", lineterminator="\r\n")
    writer.writerow(("line", "code", "message", "excerpt"))
    for error in errors[:MAX_REPORTED]:
        writer.writerow((error.line or "", error.code, _safe(error.message), _safe(error.excerpt)))
    if total > MAX_REPORTED:
        writer.writerow(("", "more", f"{total - MAX_REPORTED} more rows were not taken", ""))
    return text.getvalue().encode("utf-8-sig")


def render_result(outcome: Outcome) -> bytes:
    """The outcome as indented JSON. Every figure is in it, also a 0."""
    told = {name: value for name, value in msgspec.structs.asdict(outcome).items() if value is not None}
    return msgspec.json.format(msgspec.json.encode(told), indent=2) + b"\n"


def _safe(text: str) -> str:
    """The text with an apostrophe before everything that a spreadsheet might run."""
    return "".join(f"'{cell}" if _runs(cell) else cell for cell in _CELLS.findall(text))


def _runs(cell: str) -> bool:
    if cell[:1] in {"\t", "\r", "\n"}:
        return True
    # Spreadsheets trim what cannot be seen, and take quotes off: white space, control and format characters, marks.
    first = next((char for char in cell if not char.isspace() and char != '"' and _seen(char)), "")
    return unicodedata.normalize("NFKC", first)[:1] in _FORMULA


def _seen(char: str) -> bool:
    return unicodedata.category(char) not in {"Cc", "Cf", "Mn", "Co", "Cn", "Cs"}
