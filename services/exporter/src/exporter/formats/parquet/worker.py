"""
The process that writes Parquet for the service: requests on its standard input, answers on its standard output, one
file after the other, until the input ends. Started by `formats.parquet.worker_pool`.

The service names files that it holds open, so a killed process leaves nothing behind.
"""

import resource
import signal
import sys
from typing import BinaryIO, Final

import duckdb
import msgspec

from exporter.formats.parquet.messages import Answer, FileWritten, MergeFiles, Request, WriteFailed, WriteRows
from shared.runtime.framing import framed, read_frame

MEMORY: Final = "256MB"
"""DuckDB's own limit, above which it fails and does not spill: nothing that a customer sent lies in named files."""
ADDRESS_SPACE_BYTES: Final = 4 << 30
OBJECT_BYTES: Final = 16 << 20
"""The longest line of a spool: an event has at most some 8 MB. DuckDB's own default, for which it takes 32 MB."""
WINDOW_ROW_GROUP: Final = 20_480
MERGED_ROW_GROUP: Final = 122_880
"""Rows of a row group, which is held in memory; multiples of DuckDB's vectors of 2,048. The second is its default."""
DECIMAL: Final = "DECIMAL(18,2)"
SPOOLED_TYPES: Final = {
    "string": "VARCHAR",
    "json": "VARCHAR",
    "int": "INTEGER",
    "long": "BIGINT",
    "double": "DOUBLE",
    # A number in JSON would be rounded to a double on its way.
    "decimal": "VARCHAR",
}
"""The type of a column in the spool, by its type in a table."""


def main(requests: BinaryIO, answers: BinaryIO) -> None:
    """Answer until the requests end."""
    decoder = msgspec.msgpack.Decoder(Request)
    with duckdb.connect(config=_options()) as connection:
        while (body := read_frame(requests)) is not None:
            try:
                rows = connection.execute(statement(decoder.decode(body))).fetchall()[0][0]
                answer: Answer = FileWritten(rows)
            except (duckdb.Error, MemoryError) as error:
                answer = WriteFailed(type(error).__name__)
            answers.write(framed(answer))
            answers.flush()


def statement(request: Request) -> str:
    """The SQL of a request. Names are those of our own tables and files."""
    match request:
        case WriteRows(spool, out, columns):
            types = ", ".join(f"'{place}': '{SPOOLED_TYPES[kind]}'" for place, (_, kind) in enumerate(columns))
            cells = ", ".join(_cell(place, name, kind) for place, (name, kind) in enumerate(columns))
            source = (
                f"SELECT {cells} FROM read_json('{spool}', format = 'newline_delimited', auto_detect = false,"
                f" compression = 'uncompressed', maximum_object_size = {OBJECT_BYTES}, columns = {{{types}}})"
            )
            row_group = WINDOW_ROW_GROUP
        case MergeFiles(files, out):
            names = ", ".join(f"'{file}'" for file in files)
            source = f"SELECT * FROM read_parquet([{names}], hive_partitioning = false)"
            row_group = MERGED_ROW_GROUP
    options = f"FORMAT parquet, COMPRESSION zstd, ROW_GROUP_SIZE {row_group}, USE_TMP_FILE false"
    return f"COPY ({source}) TO '{out}' ({options})"


def _cell(place: int, name: str, kind: str) -> str:
    cell = f'"{place}"' if kind != "decimal" else f'TRY_CAST("{place}" AS {DECIMAL})'
    return f'{cell} AS "{name}"'


def _options() -> dict[str, str | bool | int | float | list[str]]:
    return {
        # More would write rows in another order each time.
        "threads": 1,
        "preserve_insertion_order": True,
        "memory_limit": MEMORY,
        "temp_directory": "",
        "autoinstall_known_extensions": False,
        "autoload_known_extensions": False,
    }


if __name__ == "__main__":
    # Ctrl-C in a terminal goes to every process of the group; this one ends with its input.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE_BYTES, ADDRESS_SPACE_BYTES))
    main(sys.stdin.buffer, sys.stdout.buffer)
