"""
Rendering of the error report and of the result file, which a customer finds in `/errors`. Pure.

The names of both files are made in `model.outcome` (`error_report_name`, `result_file_name`).
"""

import csv
import io
import re
import unicodedata
from collections.abc import Sequence

import msgspec

from ftp_gateway.model.outcome import MAX_REPORTED, FileOutcome, RowError

_FORMULA = frozenset("=+-@\N{MINUS SIGN}")
"""Characters that begin a formula in a spreadsheet (OWASP, CSV injection), besides those that NFKC turns into one:
the full-width forms above all, which Excel in Chinese, Japanese and Korean reads alike."""
_CELLS = re.compile(r"[^,\t\r\n]*[,\t\r\n]*")
"""Cells as a program sees them that does not separate them by ';'."""


def render_report(errors: Sequence[RowError], total: int) -> bytes:
    """
    Render `line;code;message;excerpt` in UTF-8: at most `MAX_REPORTED` rows, and a last one with the number of others.

    It begins with a byte order mark, without which Excel reads it in the machine's old code page.
    """
    text = io.StringIO()
    writer = csv.writer(text, delimiter=";", lineterminator="\r\n")
    writer.writerow(("line", "code", "message", "excerpt"))
    for error in errors[:MAX_REPORTED]:
        writer.writerow((error.line or "", error.code, _safe(error.message), _safe(error.excerpt)))
    if total > MAX_REPORTED:
        writer.writerow(("", "more", f"{total - MAX_REPORTED} more rows were not taken", ""))
    return text.getvalue().encode("utf-8-sig")


def render_result(outcome: FileOutcome) -> bytes:
    """Render the outcome as indented JSON. Every count is in it, also a 0."""
    fields = {name: value for name, value in msgspec.structs.asdict(outcome).items() if value is not None}
    return msgspec.json.format(msgspec.json.encode(fields), indent=2) + b"\n"


def _safe(text: str) -> str:
    """Return the text with an apostrophe before every cell that a spreadsheet might run."""
    return "".join(f"'{cell}" if _runs(cell) else cell for cell in _CELLS.findall(text))


def _runs(cell: str) -> bool:
    if cell[:1] in {"\t", "\r", "\n"}:
        return True
    # Spreadsheets trim quotes and invisible characters: white space, control and format characters, marks.
    first = next((char for char in cell if not char.isspace() and char != '"' and _seen(char)), "")
    return unicodedata.normalize("NFKC", first)[:1] in _FORMULA


def _seen(char: str) -> bool:
    return unicodedata.category(char) not in {"Cc", "Cf", "Mn", "Co", "Cn", "Cs"}
