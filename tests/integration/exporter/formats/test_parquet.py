"""Parquet files hold what was written, are the same bytes each time, and cost one attempt when their process dies."""

import asyncio
import hashlib
import os
import random
import signal
import tempfile
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import msgspec
import psutil
import pytest
from msgspec import Raw

from exporter.formats import formats_with
from exporter.formats.parquet import ParquetWorkers
from exporter.formats.parquet.encoder import ParquetFile
from exporter.formats.parquet.messages import MergeFiles, WriteRows
from exporter.pipeline.tables import Column, Row, Table
from shared.errors import MillraceError, UnavailableError
from support.waiting import until

TABLE = Table(
    "rows",
    (Column("id"), Column("at", "long"), Column("small", "int"), Column("ratio", "double"), Column("paid", "decimal")),
)
TEXT = Table("text", (Column("cell"),))
DECIMALS = Table("decimals", (Column("paid", "decimal"),))


def workers() -> list[psutil.Process]:
    """Return the processes of this one that write Parquet."""
    children = psutil.Process().children()
    return [child for child in children if "exporter.formats.parquet.worker" in child.cmdline()]


async def encode(pool: ParquetWorkers, table: Table, *parts: Sequence[Row]) -> bytes:
    def work() -> bytes:
        with tempfile.SpooledTemporaryFile(1 << 20) as out:
            encoder = formats_with(pool)["parquet"].open(out, table, "")  # type: ignore[arg-type]
            for rows in parts:
                encoder.write(rows)
            digest = encoder.finish()
            out.seek(0)
            data = out.read()
            assert hashlib.sha256(data).hexdigest() == digest
            assert len(data) == encoder.size_bytes
            return data

    return await asyncio.to_thread(work)


def read(data: bytes, folder: Path) -> list[tuple[Any, ...]]:
    path = folder / "read.parquet"
    path.write_bytes(data)
    with duckdb.connect() as connection:
        rows: list[tuple[Any, ...]] = connection.execute("SELECT * FROM read_parquet(?)", [str(path)]).fetchall()
        return rows


async def test_cells_of_every_type_come_back(tmp_path: Path) -> None:
    rows: list[Row] = [
        ("1", 2**63 - 1, 2**31 - 1, 1.5, "12.50"),
        ("", -(2**63), -(2**31), -0.0, "-0.01"),
        (None, None, None, None, None),
    ]
    async with ParquetWorkers() as pool:
        found = read(await encode(pool, TABLE, rows), tmp_path)

    assert found[0] == ("1", 2**63 - 1, 2**31 - 1, 1.5, Decimal("12.50"))
    assert found[1] == ("", -(2**63), -(2**31), -0.0, Decimal("-0.01"))
    assert "-0.0" == str(found[1][3])
    assert found[2] == (None, None, None, None, None)


async def test_texts_come_back_as_they_were(tmp_path: Path) -> None:
    texts = [
        "",
        " ",
        "\r\n",
        "\0",
        "a\0b",
        "\\",
        '"',
        "'",
        "ğ漢😀",
        "\u2028",
        "\ufeff",
        "null",
        "{}",
        "1.10",
        "x" * 900_000,
    ]
    raw = ["1.10", "1e-7", "-0.0", "1e400", "123456789012345678901234567890", '{"a": 1.0, "b": [1, "4", null]}', "[]"]
    rows: list[Row] = [*((text,) for text in texts), *((Raw(text.encode()),) for text in raw), (10**18 - 1,)]
    async with ParquetWorkers() as pool:
        found = read(await encode(pool, TEXT, rows), tmp_path)

    assert [*texts, *raw, str(10**18 - 1)] == [cell for (cell,) in found]


async def test_number_that_is_no_decimal_of_18_digits_is_null(tmp_path: Path) -> None:
    cells = {
        "12.345": "12.35",
        "1e-7": "0.00",
        "1e3": "1000.00",
        "-0.0": "0.00",
        "9999999999999999.99": "9999999999999999.99",
        "9999999999999999.995": None,
        "1e400": None,
        "NaN": None,
        "": None,
        "twelve": None,
        "0x10": None,
    }
    async with ParquetWorkers() as pool:
        found = read(await encode(pool, DECIMALS, [(cell,) for cell in cells]), tmp_path)

    assert [Decimal(paid) if paid else None for paid in cells.values()] == [cell for (cell,) in found]


async def test_bytes_are_the_same_however_the_rows_arrive() -> None:
    rows: list[Row] = [(f"{number}", number, number % 7, number / 3, f"{number}.5") for number in range(30_000)]
    async with ParquetWorkers() as pool:
        whole = await encode(pool, TABLE, rows)
        cut = await encode(pool, TABLE, rows[:1], rows[1:20_481], rows[20_481:])
    async with ParquetWorkers() as pool:
        anew = await encode(pool, TABLE, rows)

    assert whole == cut == anew


async def test_file_without_rows_has_its_columns(tmp_path: Path) -> None:
    async with ParquetWorkers() as pool:
        data = await encode(pool, TABLE)
    path = tmp_path / "empty.parquet"
    path.write_bytes(data)
    with duckdb.connect() as connection:
        columns = connection.execute("DESCRIBE SELECT * FROM read_parquet(?)", [str(path)]).fetchall()

    assert ["VARCHAR", "BIGINT", "INTEGER", "DOUBLE", "DECIMAL(18,2)"] == [column[1] for column in columns]


async def test_one_process_is_kept_and_ends_with_the_pool() -> None:
    async with ParquetWorkers() as pool:
        assert [] == workers()
        await asyncio.gather(*(encode(pool, TEXT, [("x",)]) for _ in range(4)))
        assert 1 == len(workers())

    assert [] == workers()


async def test_killed_process_fails_its_file_alone(tmp_path: Path) -> None:
    rows: list[Row] = [(f"{number}" * 40,) for number in range(200_000)]
    async with ParquetWorkers() as pool:
        expected = await encode(pool, TEXT, [("x",)])
        failed = 0
        for _ in range(5):
            (worker,) = workers()
            work = asyncio.create_task(encode(pool, TEXT, rows))
            used = worker.cpu_times().user
            share = random.uniform(0, 0.1)
            await until(lambda worker=worker, least=used + share: worker.cpu_times().user > least)  # type: ignore[misc]
            os.kill(worker.pid, signal.SIGKILL)
            try:
                await work
            except UnavailableError:
                failed += 1
            assert expected == await encode(pool, TEXT, [("x",)])

    assert failed


async def test_process_that_takes_too_long_is_killed() -> None:
    async with ParquetWorkers(timeout_s=0.0) as pool:
        with pytest.raises(UnavailableError, match="not written within"):
            await encode(pool, TEXT, [("x",)])
        assert [] == workers()


async def test_error_of_duckdb_quotes_no_row(tmp_path: Path) -> None:
    spool = tmp_path / "spool"
    spool.write_text('{"0": "a secret"')
    async with ParquetWorkers() as pool:
        request = WriteRows(str(spool), str(tmp_path / "out"), (("id", "string"),))
        with pytest.raises(MillraceError, match="InvalidInputException") as error:
            await pool.write(request)
        assert "secret" not in error.value.message
        assert 1 == len(workers()), "the process goes on"


async def test_merged_files_hold_all_rows_in_their_order(tmp_path: Path) -> None:
    async with ParquetWorkers() as pool:
        files = []
        for part in range(3):
            path = tmp_path / f"part={part}" / "0.parquet"
            path.parent.mkdir()
            path.write_bytes(await encode(pool, TEXT, [(f"{part} {row}",) for row in range(1000)]))
            files.append(str(path))
        merged = [tmp_path / "one.parquet", tmp_path / "two.parquet"]
        for out in merged:
            assert 3000 == await pool.write(MergeFiles(tuple(files), str(out)))

    assert merged[0].read_bytes() == merged[1].read_bytes()
    assert [(f"{part} {row}",) for part in range(3) for row in range(1000)] == read(merged[0].read_bytes(), tmp_path)


def test_spool_is_a_line_of_json_for_each_row() -> None:
    def refuse(request: WriteRows) -> int:
        raise AssertionError("nothing is asked of the process before the end")

    with tempfile.TemporaryFile() as out:
        encoder = ParquetFile(out, TABLE, refuse)
        encoder.write([("1", 2, None, 0.5, Raw(b"1.10"))])
        out.seek(0)
        line = out.read()

    assert {"0": "1", "1": 2, "3": 0.5, "4": "1.10"} == msgspec.json.decode(line)
