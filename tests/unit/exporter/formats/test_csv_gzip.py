"""Rows can be read back, and the same rows are the same bytes."""

import csv
import gzip
import hashlib
from io import BytesIO, StringIO
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from exporter.formats.csv_gzip import CsvGzip
from exporter.formats.gzip_blocks import BLOCK_BYTES
from exporter.pipeline.tables import table_of_text

HEADER = ("id", "ua", "sub1")
TABLE = table_of_text("clicks", HEADER)
cells = st.text("abğ漢😀,;\"' \r\n\t\0\x1e\x1f\ufeff=+-@", max_size=12)
rows_of_text = st.lists(st.lists(cells, min_size=3, max_size=3), max_size=30)


def encode(*parts: list[list[str]]) -> bytes:
    out = BytesIO()
    encoder = CsvGzip(out, TABLE, "")
    for rows in parts:
        encoder.write(rows)
    encoder.finish()
    return out.getvalue()


@given(rows=rows_of_text)
def test_rows_come_back_when_the_file_is_read(rows: list[list[str]]) -> None:
    plain = gzip.decompress(encode(rows)).decode()

    header, *found = csv.reader(StringIO(plain, newline=""))

    assert list(HEADER) == header
    assert rows == found


def by_csv(rows: list[list[str]]) -> str:
    """The rows as the standard library writes them; one with a CR is quoted whole."""
    text = StringIO(newline="")
    for row in (list(HEADER), *rows):
        has_return = any("\r" in cell for cell in row)
        csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_ALL if has_return else csv.QUOTE_MINIMAL).writerow(row)
    return text.getvalue()


@given(rows=rows_of_text)
def test_text_is_that_of_the_standard_library(rows: list[list[str]]) -> None:
    assert by_csv(rows) == gzip.decompress(encode(rows)).decode()


def test_cells_with_commas_alone_are_quoted() -> None:
    rows = [["a,b", "", ","], ["", "x", "c,,d"], ["plain", "é", "1"]]

    assert 'id,ua,sub1\n"a,b",,","\n,x,"c,,d"\nplain,é,1\n' == gzip.decompress(encode(rows)).decode()


@given(rows=rows_of_text, cut=st.integers(0, 30))
def test_bytes_are_the_same_however_the_rows_arrive(rows: list[list[str]], cut: int) -> None:
    assert encode(rows) == encode(rows[:cut], rows[cut:])


@settings(max_examples=5, deadline=None)
@given(cuts=st.lists(st.integers(0, 20_000), max_size=4))
def test_bytes_are_the_same_when_a_large_file_is_cut_elsewhere(cuts: list[int]) -> None:
    rows = [[f"{number:024x}", "Mozilla/5.0 (like Gecko), x", str(number * 7919)] for number in range(20_000)]
    edges = [0, *sorted(cuts), len(rows)]

    actual = encode(*(rows[start:end] for start, end in pairwise(edges)))

    assert encode(rows) == actual
    assert len(gzip.decompress(actual)) > 3 * BLOCK_BYTES


def test_text_is_utf8_with_lf_and_no_byte_order_mark() -> None:
    plain = gzip.decompress(encode([["1", "ğ", 'a "b", c']]))

    assert 'id,ua,sub1\n1,ğ,"a ""b"", c"\n'.encode() == plain


def test_leading_signs_stay_as_they_are() -> None:
    plain = gzip.decompress(encode([["=1+1", "+90555", "@x"]]))

    assert plain.endswith(b"\n=1+1,+90555,@x\n")


def test_header_of_gzip_holds_no_time_and_no_name() -> None:
    flags_and_time = encode([])[3:8]

    assert bytes(5) == flags_and_time


def test_size_and_hash_are_those_of_the_file() -> None:
    out = BytesIO()
    encoder = CsvGzip(out, TABLE, "")
    encoder.write([["1", "2", "3"]])

    digest = encoder.finish()

    assert len(out.getvalue()) == encoder.size_bytes
    assert hashlib.sha256(out.getvalue()).hexdigest() == digest
