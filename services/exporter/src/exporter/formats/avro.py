"""
Avro object container files (Avro 1.11 specification, "Object Container Files"). The same rows give the same bytes.

Library writers give other bytes each time, or take several times as long (`./millrace bench exports`). Blocks are
deflated by isal and end at a fixed size of their rows, wherever calls were cut. The sync marker is a hash of the
export, the part and the first sequence.
"""

import hashlib
import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from itertools import chain
from typing import Any, BinaryIO, Final

import msgspec
from isal import isal_zlib
from msgspec import Raw

from exporter.pipeline.ports import Format
from exporter.pipeline.tables import Cell, Column, Row, Table

BLOCK_BYTES: Final = 64 << 10
"""
The size of a block, before it is deflated, at which it ends: the bytes of its texts, and one for each cell.
"""
LEVEL: Final = 1
RAW_DEFLATE_WINDOW: Final = -15
"""zlib's window bits for deflate without a header, as Avro's codec has it (RFC 1951)."""
SYNC_BYTES: Final = 16
MAGIC: Final = b"Obj\x01"
NULL: Final = b"\x00"
PRESENT: Final = b"\x02"
"""The positions 0 and 1 of a union of null and a type."""
SHORT_LENGTHS: Final = 4096


PAIR_BITS: Final = 14
PAIR: Final = (1 << PAIR_BITS) - 1
_PAIRS: Final = tuple(bytes((pair & 0x7F | 0x80, pair >> 7 | 0x80)) for pair in range(PAIR + 1))
"""The two lowest groups of a number that has more. Times of a window differ in them; the rest is one of few."""


def varint(number: int) -> bytes:
    """A whole number in zig-zag coding, 7 bits a byte."""
    coded = number << 1 if number >= 0 else ~(number << 1)
    return _PAIRS[coded & PAIR] + _groups(coded >> PAIR_BITS) if coded > PAIR else _groups(coded)


@lru_cache(maxsize=1024)
def _groups(coded: int) -> bytes:
    out = bytearray()
    while coded > 0x7F:
        out.append(coded & 0x7F | 0x80)
        coded >>= 7
    out.append(coded)
    return bytes(out)


_LENGTHS: Final = tuple(varint(length) for length in range(SHORT_LENGTHS))
_PRESENT_LENGTHS: Final = tuple(PRESENT + length for length in _LENGTHS)
_CODES: Final[Mapping[str, Callable[[Any], bytes]]] = {
    "int": lru_cache(maxsize=4096)(varint),
    "long": varint,
    "double": struct.Struct("<d").pack,
}
"""Coding by type. An `int` is a time in seconds, which many rows share."""
NO_CELLS: Final = {type(None)}


class AvroFile:
    """
    Satisfies `exporter.pipeline.ports.Encoder`. Writes to `out`, a binary file.

    Rows are coded column by column: nearly all cells of a column have one type, so none needs a decision of its own.
    """

    def __init__(self, out: BinaryIO, table: Table, marker: str) -> None:
        self._out = out
        self._columns = table.columns
        self._hash = hashlib.sha256()
        self._sync = hashlib.sha256(marker.encode()).digest()[:SYNC_BYTES]
        self._parts: list[bytes] = []
        self._block_bytes = 0
        self._block_rows = 0
        self.size_bytes = 0
        metadata = {"avro.schema": msgspec.json.encode(schema_of(table)), "avro.codec": b"deflate"}
        self._emit(MAGIC + _map(metadata) + self._sync)

    def write(self, rows: Iterable[Row]) -> None:
        """Append rows, each as long as the table has columns."""
        rows = [*rows]
        if not rows:
            return
        pieces: list[Sequence[bytes]] = []
        sizes: list[Sequence[int]] = [[len(self._columns)] * len(rows)]
        for column, cells in zip(self._columns, zip(*rows, strict=True), strict=True):
            kinds = set(map(type, cells))
            if kinds == NO_CELLS:
                pieces.append((NULL,) * len(cells))
            elif column.type in ("string", "json"):
                heads, texts, lengths = _texts(cells, kinds, column.nullable)
                pieces += (heads, texts)
                sizes.append(lengths)
            else:
                pieces.append(_numbers(cells, column))
        block_bytes = self._block_bytes + sum(map(sum, sizes))
        if block_bytes < BLOCK_BYTES:
            self._parts.append(b"".join(chain.from_iterable(zip(*pieces, strict=True))))
            self._block_rows += len(rows)
            self._block_bytes = block_bytes
            return
        for row, size in zip(zip(*pieces, strict=True), map(sum, zip(*sizes, strict=True)), strict=True):
            self._parts += row
            self._block_rows += 1
            self._block_bytes += size
            if self._block_bytes >= BLOCK_BYTES:
                self._end_block()

    def finish(self) -> str:
        """Write the rest. Returns the SHA-256 of the file in hexadecimal digits. Nothing may be written afterwards."""
        if self._block_rows:
            self._end_block()
        return self._hash.hexdigest()

    def _end_block(self) -> None:
        block = isal_zlib.compressobj(LEVEL, isal_zlib.DEFLATED, RAW_DEFLATE_WINDOW)
        data = block.compress(b"".join(self._parts)) + block.flush()
        self._emit(varint(self._block_rows) + varint(len(data)) + data + self._sync)
        self._parts.clear()
        self._block_rows = self._block_bytes = 0

    def _emit(self, data: bytes) -> None:
        self._out.write(data)
        self._hash.update(data)
        self.size_bytes += len(data)


def schema_of(table: Table) -> dict[str, Any]:
    """The schema of a table's records, as JSON."""
    namespace, _, name = table.name.rpartition(".")
    schema: dict[str, Any] = {"type": "record"}
    if namespace:
        schema["namespace"] = namespace
    schema["name"] = name
    if table.doc:
        schema["doc"] = table.doc
    return schema | {"fields": [_field(column) for column in table.columns]}


def _field(column: Column) -> dict[str, Any]:
    kind = "string" if column.type == "json" else column.type
    field: dict[str, Any] = {"name": column.name, "type": ["null", kind] if column.nullable else kind}
    if column.nullable:
        field["default"] = None
    return field | ({"doc": column.doc} if column.doc else {})


def _map(values: Mapping[str, bytes]) -> bytes:
    items = b"".join(_prefixed(name.encode()) + _prefixed(value) for name, value in values.items())
    return varint(len(values)) + items + NULL


def _prefixed(data: bytes) -> bytes:
    return varint(len(data)) + data


def _texts(
    cells: Sequence[Cell], kinds: set[type], nullable: bool
) -> tuple[Sequence[bytes], Sequence[bytes], Sequence[int]]:
    """Pieces before the texts of a column, the texts, and the lengths of these."""
    if kinds == {str}:
        texts = [*map(str.encode, cells)]  # type: ignore[arg-type]
    elif kinds == {Raw}:
        texts = [*map(bytes, cells)]  # type: ignore[arg-type]
    else:
        texts = [*map(_text, cells)]
    lengths = [*map(len, texts)]
    short = _PRESENT_LENGTHS if nullable else _LENGTHS
    try:
        heads = [short[length] for length in lengths]
    except IndexError:
        heads = [(PRESENT if nullable else b"") + varint(length) for length in lengths]
    if type(None) in kinds:
        heads = [NULL if cell is None else head for cell, head in zip(cells, heads, strict=True)]
    return heads, texts, lengths


def _text(cell: Cell) -> bytes:
    if cell is None:
        return b""
    return bytes(cell) if type(cell) is Raw else str(cell).encode()


def _numbers(cells: Sequence[Cell], column: Column) -> Sequence[bytes]:
    code = _CODES[column.type]
    coded = [b"" if cell is None else code(cell) for cell in cells]
    if not column.nullable:
        return coded
    return [PRESENT + number if number else NULL for number in coded]


AVRO: Final = Format(suffix=".avro", content_type="application/vnd.apache.avro", open=AvroFile)
