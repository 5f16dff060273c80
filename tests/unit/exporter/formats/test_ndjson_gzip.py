"""Rows come back as objects, and the same rows are the same bytes."""

import gzip
import json
from io import BytesIO
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from exporter.formats.ndjson_gzip import NdjsonGzip
from exporter.pipeline.tables import Cell, Column, Row, Table

TABLE = Table("record", (Column("id"), Column("time", "int"), Column("price", "double"), Column("o", "json")))
rows_of_cells = st.lists(
    st.tuples(
        st.none() | st.text(max_size=9),
        st.none() | st.integers(-(2**31), 2**31),
        st.none() | st.floats(allow_nan=False, allow_infinity=False),
        st.none() | st.dictionaries(st.text(max_size=4), st.integers(), max_size=3),
    ),
    max_size=30,
)


def encode(*parts: list[Row]) -> bytes:
    out = BytesIO()
    encoder = NdjsonGzip(out, TABLE, "")
    for rows in parts:
        encoder.write(rows)
    encoder.finish()
    return out.getvalue()


def decode(data: bytes) -> list[dict[str, Any]]:
    text = gzip.decompress(data).decode()
    assert not text or text.endswith("\n")
    return [json.loads(line) for line in text.split("\n")[:-1]]


def with_json(rows: list[tuple[Any, ...]], indent: int | None = None) -> list[Row]:
    return [(*row[:3], None if row[3] is None else Raw(json.dumps(row[3], indent=indent).encode())) for row in rows]


@given(rows=rows_of_cells, indent=st.none() | st.just(2))
def test_rows_come_back_without_empty_cells(rows: list[tuple[Any, ...]], indent: int | None) -> None:
    expected = [
        {name: cell for name, cell in zip(TABLE.header, row, strict=True) if cell is not None and cell != ""}
        for row in rows
    ]

    assert expected == decode(encode(with_json(rows, indent)))


@given(rows=rows_of_cells, cut=st.integers(0, 30))
def test_bytes_are_the_same_however_the_rows_arrive(rows: list[tuple[Any, ...]], cut: int) -> None:
    cells = with_json(rows)

    assert encode(cells) == encode(cells[:cut], cells[cut:])


def test_numbers_keep_their_text_and_a_number_in_a_column_of_text_is_text() -> None:
    row: tuple[Cell, ...] = (4, 7, 0.5, Raw(b'{"price":\n 1.10}'))

    assert b'{"id":"4","time":7,"price":0.5,"o":{"price":1.10}}\n' == gzip.decompress(encode([row]))
