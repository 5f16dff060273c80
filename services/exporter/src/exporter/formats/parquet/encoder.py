"""Rows to a Parquet file: spooled as lines of JSON, then written by the process of `ParquetWorkers`."""

import hashlib
import os
import tempfile
from collections.abc import Callable, Iterable
from functools import cache
from typing import Any, BinaryIO, Final

import msgspec
from msgspec import Raw, Struct

from exporter.formats.parquet.messages import WriteRows
from exporter.formats.parquet.worker_pool import ParquetWorkers
from exporter.pipeline.ports import Format
from exporter.pipeline.tables import Cell, Row, Table

COPY_BYTES: Final = 1 << 20

_encoder = msgspec.json.Encoder()


class ParquetFile:
    """
    Satisfies `exporter.pipeline.ports.Encoder`. `out` is a file of the system; it holds the spool until `finish`.

    `size_bytes` is the size of the spool until `finish`, some five times that of the file.

    Args:
        write: Writes a file, and may block. Raises `UnavailableError` where another attempt may help.
    """

    def __init__(self, out: BinaryIO, table: Table, write: Callable[[WriteRows], int]) -> None:
        self._out = out
        self._write = write
        self._columns = tuple((column.name, column.type) for column in table.columns)
        self._texts = tuple(
            place for place, (_, kind) in enumerate(self._columns) if kind in ("string", "json", "decimal")
        )
        self._line = _line_type(len(self._columns))
        self.size_bytes = 0

    def write(self, rows: Iterable[Row]) -> None:
        """Append rows, each as long as the table has columns."""
        lines = []
        for row in rows:
            cells: list[Cell] = [*row]
            for place in self._texts:
                cell = cells[place]
                if type(cell) is not str and cell is not None:
                    cells[place] = bytes(cell).decode() if type(cell) is Raw else str(cell)
            lines.append(self._line(*cells))
        data = _encoder.encode_lines(lines)
        self._out.write(data)
        self.size_bytes += len(data)

    def finish(self) -> str:
        """Write the file in the place of its spool. Returns its SHA-256 in hexadecimal digits."""
        digest = hashlib.sha256()
        with tempfile.TemporaryFile() as written:
            # The descriptor first: a spool in memory goes to a file then.
            spool = open_file_path(self._out.fileno())
            self._out.flush()
            self._write(WriteRows(spool, open_file_path(written.fileno()), self._columns))
            self._out.seek(0)
            self._out.truncate()
            while block := written.read(COPY_BYTES):
                digest.update(block)
                self._out.write(block)
        self.size_bytes = self._out.tell()
        return digest.hexdigest()


def open_file_path(descriptor: int) -> str:
    """The path by which another process of ours opens a file that has no name (Linux, proc(5))."""
    return f"/proc/{os.getpid()}/fd/{descriptor}"


def parquet_format(workers: ParquetWorkers) -> Format:
    """The format `parquet`, whose files these workers write. Its encoders are finished in a thread."""
    return Format(
        suffix=".parquet",
        content_type="application/vnd.apache.parquet",
        open=lambda out, table, marker: ParquetFile(out, table, workers.write_in_thread),
    )


@cache
def _line_type(columns: int) -> type[Struct]:
    """A line of so many cells. Its keys are their places, and null is left out: both make it short."""
    fields: list[Any] = [(f"c{place}", Any, None) for place in range(columns)]
    names = {f"c{place}": str(place) for place in range(columns)}
    return msgspec.defstruct("Line", fields, rename=names, omit_defaults=True, gc=False)
