"""
What a customer gets back for a file, in `/errors`: the rows that were not taken, and the outcome in figures. Pure.
"""

import csv
import io
import re
import unicodedata
from collections.abc import Sequence

import msgspec

from ftp_gateway.model.outcome import MAX_REPORTED, FileOutcome, RowError

_FORMULA = frozenset("=+-@\N{MINUS SIGN}")
"""What a spreadsheet takes for the beginning of a formula (OWASP, CSV injection), besides what NFKC makes one of these:
the full-width forms above all, which Excel in Chinese, Japanese and Korean reads alike."""
_CELLS = re.compile(r"[^,\t\r\n]*[,\t\r\n]*")
"""What may be a cell of its own to a program that does not take ';' for what separates cells."""


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


def render_result(outcome: FileOutcome) -> bytes:
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
