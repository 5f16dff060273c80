"""
Lines of JSON in gzip: an object a row. The same rows give the same bytes every time.

An empty cell is left out, JSON in a cell stays what it is, and numbers of columns that have them are numbers.
"""

from collections.abc import Iterable
from typing import BinaryIO, Final

import msgspec
from msgspec import Raw

from exporter.formats.gzip_blocks import GzipBlocks
from exporter.pipeline.ports import Format
from exporter.pipeline.tables import Cell, Row, Table

_encoder = msgspec.json.Encoder()


class NdjsonGzip:
    """Satisfies `exporter.pipeline.ports.Encoder`. Writes to `out`, a binary file."""

    def __init__(self, out: BinaryIO, table: Table, marker: str) -> None:
        self._blocks = GzipBlocks(out)
        self._columns = tuple((column.name, column.type == "string") for column in table.columns)

    @property
    def size_bytes(self) -> int:
        """Bytes written so far; lags the rows."""
        return self._blocks.size_bytes

    def write(self, rows: Iterable[Row]) -> None:
        """Append rows, each as long as the table has columns."""
        lines = [
            {
                name: str(cell) if is_text and type(cell) is int else _one_line(cell)
                for (name, is_text), cell in zip(self._columns, row, strict=True)
                if cell is not None and cell != ""
            }
            for row in rows
        ]
        self._blocks.write(_encoder.encode_lines(lines))

    def finish(self) -> str:
        """Write the rest. Returns the SHA-256 of the file in hexadecimal digits. Nothing may be written afterwards."""
        return self._blocks.finish()


def _one_line(cell: Cell) -> Cell:
    """JSON of a publisher may have line breaks between its values."""
    if type(cell) is Raw and (b"\n" in (data := bytes(cell)) or b"\r" in data):
        return Raw(msgspec.json.format(data, indent=-1))
    return cell


NDJSON_GZIP: Final = Format(suffix=".ndjson.gz", content_type="application/gzip", open=NdjsonGzip)
