"""Messages between the service and its process that writes Parquet. A file is named by a path. Imports no DuckDB."""

from msgspec import Struct


class WriteRows(Struct, frozen=True, tag=True):
    """Write the lines of a spool, objects whose keys are the places of `columns`. A column is a name and a type."""

    spool: str
    out: str
    columns: tuple[tuple[str, str], ...]


class MergeFiles(Struct, frozen=True, tag=True):
    """Write the rows of some Parquet files of the same columns into one, in their order."""

    files: tuple[str, ...]
    out: str


class FileWritten(Struct, frozen=True, tag=True):
    """Answer to a request that was carried out."""

    rows: int


class WriteFailed(Struct, frozen=True, tag=True):
    """Answer to a request that DuckDB refused. `reason` is the name of its error, since its text may quote rows."""

    reason: str


Request = WriteRows | MergeFiles
Answer = FileWritten | WriteFailed
