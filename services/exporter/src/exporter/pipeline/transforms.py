"""Fields of events that an export removes or hashes. Pure."""

import hashlib
from collections.abc import Iterable
from typing import Final

import msgspec
from msgspec import Raw

from exporter.pipeline.tables import Cell, Column

REDACTED: Final = "[REDACTED]"

_members = msgspec.json.Decoder(dict[str, Raw])


class Transforms:
    """
    Transforms of the values of some fields, by name: of columns, and of the attributes in a column of JSON.

    A removed value becomes `[REDACTED]`, a hashed one the SHA-256 of its text in hexadecimal digits; where the column
    is no text, null. A value that an event does not have stays absent.
    """

    def __init__(self, remove: Iterable[str], hash_: Iterable[str]) -> None:
        self._remove = frozenset(remove)
        self._hash = frozenset(hash_) - self._remove

    def __bool__(self) -> bool:
        return bool(self._remove or self._hash)

    def apply(self, column: Column, cell: Cell) -> Cell:
        """The cell as it is exported."""
        if cell is None or cell == "":
            return cell
        if column.name in self._remove or column.name in self._hash:
            if column.type not in ("string", "json"):
                return None
            return REDACTED if column.name in self._remove else _digest(cell)
        return self._in_object(cell) if type(cell) is Raw else cell

    def _in_object(self, cell: Raw) -> Raw:
        try:
            members = _members.decode(cell)
        except msgspec.ValidationError:
            # A list has no fields.
            return cell
        named = members.keys() & (self._remove | self._hash)
        for name in named:
            text = REDACTED if name in self._remove else _digest(_plain(members[name]))
            members[name] = Raw(msgspec.json.encode(text))
        return Raw(msgspec.json.encode(members)) if named else cell


def _plain(value: Raw) -> Cell:
    """A text without its quotes, or the JSON of another value."""
    data = bytes(value)
    return msgspec.json.decode(data, type=str) if data[:1] == b'"' else value


def _digest(cell: Cell) -> str:
    data = bytes(cell) if type(cell) is Raw else str(cell).encode()
    return hashlib.sha256(data).hexdigest()
