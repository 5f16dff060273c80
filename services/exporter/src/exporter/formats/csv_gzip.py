"""
CSV in gzip. The same rows give the same bytes every time. Depends on no layout and no file name.

CSV is RFC 4180 with LF: UTF-8 without a byte order mark, a header, quotes where they are needed. Cells are written as
they are: programs read these files, so a leading `=` or `+` is data and gets no apostrophe.
"""

import csv
from collections.abc import Iterable, Sequence
from io import StringIO
from typing import BinaryIO, Final

from msgspec import Raw

from exporter.formats.gzip_blocks import GzipBlocks
from exporter.pipeline.ports import Format
from exporter.pipeline.tables import Row, Table

MARK: Final = "\x1f"
"""Mark between the cells of joined rows. A cell that holds one is left to `csv`."""


class CsvGzip:
    """Satisfies `exporter.pipeline.ports.Encoder`. Writes to `out`, a binary file."""

    def __init__(self, out: BinaryIO, table: Table, marker: str) -> None:
        self._blocks = GzipBlocks(out)
        self._text = StringIO(newline="")
        self._bare = csv.writer(self._text, lineterminator="\n")
        self._quoted = csv.writer(self._text, lineterminator="\n", quoting=csv.QUOTE_ALL)
        self._width = len(table.columns)
        self._json = tuple(place for place, column in enumerate(table.columns) if column.type == "json")
        self.write([table.header])

    @property
    def size_bytes(self) -> int:
        """Bytes written so far; lags the rows."""
        return self._blocks.size_bytes

    def write(self, rows: Iterable[Row]) -> None:
        """Append rows, each as long as the table has columns."""
        self._blocks.write(self._encoded(rows).encode())

    def finish(self) -> str:
        """Write the rest. Returns the SHA-256 of the file in hexadecimal digits. Nothing may be written afterwards."""
        return self._blocks.finish()

    def _encoded(self, rows: Iterable[Row]) -> str:
        rows = [*map(self._plain, rows)] if self._json else [*rows]
        if not rows:
            return ""
        if (text := self._joined(rows)) is not None:
            return text
        self._bare.writerows(rows)
        text = self._take()
        if "\r" not in text:
            return text
        for row in rows:
            # Python before 3.13 leaves a bare CR unquoted, and readers treat it as the end of the line.
            (self._quoted if any(type(cell) is str and "\r" in cell for cell in row) else self._bare).writerow(row)
        return self._take()

    def _joined(self, rows: Sequence[Row]) -> str | None:
        """
        The text of usual rows, as `csv` writes it. None where a cell is no text, or needs more than quotes for a comma.

        `csv` looks at every character by itself, which takes twice the time.
        """
        try:
            lines = [*map(MARK.join, rows)]  # type: ignore[arg-type]
        except TypeError:
            return None
        text = "\n".join(lines)
        is_usual = self._width > 1 and text.count(MARK) == len(rows) * (self._width - 1)
        if not is_usual or text.count("\n") != len(rows) - 1 or '"' in text or "\r" in text:
            return None
        if "," in text:
            text = "\n".join([_with_quotes(line) if "," in line else line for line in lines])
        return text.replace(MARK, ",") + "\n"

    def _take(self) -> str:
        text = self._text.getvalue()
        self._text.seek(0)
        self._text.truncate()
        return text

    def _plain(self, row: Row) -> Row:
        cells = [*row]
        for place in self._json:
            if type(cell := cells[place]) is Raw:
                cells[place] = bytes(cell).decode()
        return cells


def _with_quotes(line: str) -> str:
    """A joined row with quotes around each cell that holds a comma."""
    pieces: list[str] = []
    done = 0
    while (at := line.find(",", done)) >= 0:
        start = line.rfind(MARK, done, at) + 1 or done
        end = line.find(MARK, at)
        end = end if end >= 0 else len(line)
        pieces += (line[done:start], '"', line[start:end], '"')
        done = end
    return "".join((*pieces, line[done:]))


CSV_GZIP = Format(suffix=".csv.gz", content_type="application/gzip", open=CsvGzip)
