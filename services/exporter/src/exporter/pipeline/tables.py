"""The table of an exported file: its columns and their types. Pure."""

from collections.abc import Sequence
from typing import Literal, TypeAlias

from msgspec import Raw, Struct

Cell: TypeAlias = str | int | float | Raw | None
"""
Value of a row. `Raw` is JSON in UTF-8, in a column of type `json`. A format writes a cell as the type of its column;
None is an empty cell, or null.
"""
Row: TypeAlias = Sequence[Cell]

ColumnType = Literal["string", "json", "int", "long", "double", "decimal"]
"""
Types by their names in Avro; `json` is a string there. A whole number in a column of type `string` is written with its
digits. `decimal` has 18 digits, two of them after the point, and only Parquet knows it; its cells are text, and what
does not fit is null.
"""


class Column(Struct, frozen=True):
    """A column. Formats with types write a nullable one as a union of null and its type."""

    name: str
    type: ColumnType = "string"
    nullable: bool = True
    doc: str = ""


class Table(Struct, frozen=True):
    """Columns of a file. `name` is that of its records, with the namespace, in formats that name them."""

    name: str
    columns: tuple[Column, ...]
    doc: str = ""

    @property
    def header(self) -> list[str]:
        """The names of the columns."""
        return [column.name for column in self.columns]


def table_of_text(name: str, columns: Sequence[str]) -> Table:
    """A table whose cells are all text, and may be empty."""
    return Table(name, tuple(Column(column) for column in columns))
