"""Files are read back by fastavro as they were written, and the same rows are the same bytes."""

import hashlib
from io import BytesIO
from typing import Any

import fastavro
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Raw

from exporter.formats.avro import BLOCK_BYTES, AvroFile, varint
from exporter.pipeline.tables import Cell, Column, Row, Table

TABLE = Table(
    "space.record",
    (
        Column("id", "string", nullable=False),
        Column("time", "int", nullable=False),
        Column("at", "long"),
        Column("price", "double"),
        Column("text"),
    ),
    "A record.",
)
texts = st.text(max_size=12)
rows_of_cells = st.lists(
    st.tuples(
        texts,
        st.integers(-(2**31), 2**31 - 1),
        st.none() | st.integers(-(2**63), 2**63 - 1),
        st.none() | st.floats(allow_nan=False),
        st.none() | texts,
    ),
    max_size=30,
)


def encode(*parts: list[Row], marker: str = "app export part 1") -> bytes:
    out = BytesIO()
    encoder = AvroFile(out, TABLE, marker)
    for rows in parts:
        encoder.write(rows)
    digest = encoder.finish()
    assert hashlib.sha256(out.getvalue()).hexdigest() == digest
    assert len(out.getvalue()) == encoder.size_bytes
    return out.getvalue()


def decode(data: bytes) -> list[tuple[Any, ...]]:
    return [tuple(record.values()) for record in fastavro.reader(BytesIO(data)) if isinstance(record, dict)]


@given(rows=rows_of_cells)
def test_rows_come_back_when_the_file_is_read(rows: list[tuple[Cell, ...]]) -> None:
    assert rows == decode(encode(list(rows)))


@given(rows=rows_of_cells, cut=st.integers(0, 30))
def test_bytes_are_the_same_however_the_rows_arrive(rows: list[tuple[Cell, ...]], cut: int) -> None:
    assert encode(list(rows)) == encode(list(rows[:cut]), list(rows[cut:]))


def test_blocks_end_at_a_size_and_come_back_in_order() -> None:
    rows = [(f"{number:x}" * 9, number, number, 0.5, "ğ漢😀") for number in range(20_000)]

    data = encode(list(rows))

    assert rows == decode(data)
    blocks = list(fastavro.block_reader(BytesIO(data)))
    assert len(blocks) > 3 * 2**16 // BLOCK_BYTES


@pytest.mark.parametrize("length", [4095, 4096, 5000, 300_000])
def test_text_of_any_length_comes_back(length: int) -> None:
    rows: list[Row] = [("x" * length, 0, None, None, "y" * length)]

    assert rows == decode(encode(rows))


def test_json_and_numbers_in_a_column_of_text_keep_their_text() -> None:
    rows: list[Row] = [("a", 1, None, None, Raw(b'{"price":1.10}')), ("b", 1, None, None, 4)]

    assert ['{"price":1.10}', "4"] == [row[-1] for row in decode(encode(rows))]


@pytest.mark.parametrize("length", [1, 4095, 4096])
def test_cells_of_several_types_in_a_column_come_back(length: int) -> None:
    cells: list[Cell] = ["ğ" * length, None, Raw(b"[" + b"1," * length + b"1]"), 123456789012345678, "", None]
    rows: list[Row] = [("a", 1, None, None, cell) for cell in cells]
    expected = [bytes(cell).decode() if isinstance(cell, Raw) else cell and str(cell) for cell in cells]

    assert expected == [row[-1] for row in decode(encode(rows))]
    assert encode(rows) == encode(*([row] for row in rows))


def test_schema_has_name_namespace_defaults_and_docs() -> None:
    schema = fastavro.reader(BytesIO(encode())).writer_schema

    assert isinstance(schema, dict)
    assert ("space.record", "A record.") == (schema["name"], schema["doc"])
    assert [
        {"name": "id", "type": "string"},
        {"name": "time", "type": "int"},
        {"name": "at", "type": ["null", "long"], "default": None},
        {"name": "price", "type": ["null", "double"], "default": None},
        {"name": "text", "type": ["null", "string"], "default": None},
    ] == schema["fields"]


def test_sync_marker_is_that_of_the_file() -> None:
    assert encode() != encode(marker="app export part 2")


@settings(max_examples=300)
@given(number=st.integers(-(2**63), 2**63 - 1))
def test_whole_number_is_coded_as_fastavro_does(number: int) -> None:
    out = BytesIO()
    fastavro.schemaless_writer(out, {"type": "long"}, number)

    assert out.getvalue() == varint(number)
