import re
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ftp_gateway.model.outcome import RowError
from ftp_gateway.parsing import push_csv
from ftp_gateway.parsing.push_csv import MAX_DEEPLINK_CHARS, MAX_EXT_ID_CHARS, MAX_TEXT_CHARS, PushReader
from ftp_gateway.parsing.text import FileScan, RefusedError
from shared.contracts.messages import PushRow, decode

SPACES = [char for code in range(sys.maxunicode + 1) if (char := chr(code)).isspace() and char not in "\r\n"]

DEMO = Path(__file__).parents[4] / "demo" / "push.csv"


def read(data: bytes, block: int = 4096) -> tuple[list[PushRow | RowError], PushReader]:
    scan = FileScan("shop", "push")
    scan.feed(data)
    reader = PushReader(scan.result("windows-1254"))
    parsed = [reader.feed(data[at : at + block]) for at in range(0, len(data), block)]
    parsed.append(reader.finish())
    rows: list[PushRow | RowError] = []
    for part in parsed:
        made = [decode(data, PushRow) for data in part.rows]
        assert [(row.line, row.ext_id.encode()) for row in made] == list(zip(part.lines, part.ext_ids, strict=True))
        rows += [*made, *part.errors]
    return sorted(rows, key=lambda row: row.line), reader


def row(line: str) -> tuple[str, str, str] | str:
    """The parts of a row, or the code of its error."""
    [found] = read(b"\n" + line.encode() + b"\n")[0]
    return (found.ext_id, found.text, found.deeplink) if isinstance(found, PushRow) else found.code


def test_the_samples_are_read_as_the_product_says() -> None:
    rows, _ = read(DEMO.read_bytes())

    assert [1, 2, 3, 4, 5, 8, 9] == [row.line for row in rows if isinstance(row, PushRow)]
    assert [(6, "ext_id_missing"), (7, "columns")] == [
        (row.line, row.code) for row in rows if isinstance(row, RowError)
    ]
    assert isinstance(rows[3], PushRow)
    assert rows[3].text == "Welcome to our platform!\nNew articles are available in your feed."
    assert rows[3].id.endswith(":4")


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("1;Hi;https://x.example", ("1", "Hi", "https://x.example")),
        ("1;Sale; today only;https://x.example", ("1", "Sale; today only", "https://x.example")),
        ("1;Hi;https://x.example/?a=1;b=2", ("1", "Hi", "https://x.example/?a=1;b=2")),
        ("1;Hi; you;shop://a;b;c", ("1", "Hi; you", "shop://a;b;c")),
        ("1;Today: 50 % off;shop://sale", ("1", "Today: 50 % off", "shop://sale")),
        ("1;Hi;", ("1", "Hi", "")),
        ("1;Hi; there;", ("1", "Hi; there", "")),
        ("1;Hi;https://x.example;", ("1", "Hi", "https://x.example")),
        ("0042 ;Hi;https://x.example ", ("0042", "Hi", "https://x.example")),
        ('1;"Order ""A"" is here; yes";https://x', ("1", 'Order "A" is here; yes', "https://x")),
        ('1;"Süper" fırsat;https://x', ("1", '"Süper" fırsat', "https://x")),
        ('1;"a" and "b";https://x', ("1", '"a" and "b"', "https://x")),
        ('1;"stray;https://x', ("1", '"stray', "https://x")),
        ('"1";"Hello; ""you""";"app://x"', ("1", 'Hello; "you"', "app://x")),
        ("9b2c-41-e0;Hi;https://x", ("9b2c-41-e0", "Hi", "https://x")),
        ('"1";"Hi";"https://x/?a=1;b=2"', ("1", "Hi", "https://x/?a=1;b=2")),
        (r"1;one\ntwo;https://x", ("1", "one\ntwo", "https://x")),
        (r"1;one\\ntwo;https://x", ("1", r"one\ntwo", "https://x")),
        (r"1;C:\temp\table;https://x", ("1", r"C:\temp\table", "https://x")),
        ("1;a\u2028b\x0bc;https://x", ("1", "a\u2028b\x0bc", "https://x")),
    ],
)
def test_a_row_is_split_at_its_first_and_last_separator(line: str, expected: tuple[str, str, str]) -> None:
    assert expected == row(line)


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("1", "columns"),
        ("1;Hi", "columns"),
        (";Hi;https://x", "ext_id_missing"),
        ("1; ;https://x", "text_missing"),
        ("1;Hi;example.com/page", "deeplink"),
        ("1;Sale;Today: only;page", "deeplink"),
        ("1;Hi;https://x y", "deeplink"),
        ("1,2346E+10;Hi;https://x", "ext_id_scientific"),
        ("1.2346e+10;Hi;https://x", "ext_id_scientific"),
        ("x" * (MAX_EXT_ID_CHARS + 1) + ";Hi;https://x", "ext_id_too_long"),
        ("1;" + "x" * (MAX_TEXT_CHARS + 1) + ";https://x", "text_too_long"),
        ("1;Hi;https://" + "x" * MAX_DEEPLINK_CHARS, "deeplink_too_long"),
        ("1;" + "x" * 70_000 + ";https://x", "line_too_long"),
        (";" * 60_000, "ext_id_missing"),
        ("1" + ";" * 60_000 + "x", "deeplink"),
    ],
)
def test_a_bad_row_says_what_is_wrong_with_it(line: str, code: str) -> None:
    assert code == row(line)


@pytest.mark.parametrize("beside", ["", '"'], ids=["plain", "any"])
def test_a_text_of_nothing_but_spaces_is_missing(beside: str) -> None:
    blank = [f"1;{space * count};https://x\n" for space in SPACES for count in (1, 2, 50)]
    shown = [f"1;{space * count}x;https://x\n" for space in SPACES for count in (1, 2, 50)]

    bad = read(f"{beside}\n{''.join(blank)}".encode())[0][len(beside) :]
    good = read(f"{beside}\n{''.join(shown)}".encode())[0][len(beside) :]

    assert ["text_missing"] * len(blank) == [row.code for row in bad if isinstance(row, RowError)]
    assert shown == [f"1;{row.text};https://x\n" for row in good if isinstance(row, PushRow)]


def test_an_id_of_letters_and_digits_is_no_scientific_notation() -> None:
    assert row("12e5;Hi;https://x") == ("12e5", "Hi", "https://x")


@pytest.mark.parametrize(
    "header",
    [
        "ExternalID;Text;Deeplink",
        "EXTERNALID;TEXT;DEEPLINK",
        "externalid;text;deeplink ",
        '"ExternalID";"Text";"Deeplink"',
        "\ufeffExternalID;Text;Deeplink",
    ],
)
def test_a_header_is_skipped_in_the_first_line_alone(header: str) -> None:
    rows, _ = read(f"{header}\r\n1;Hi;https://x\r\n".encode())
    again, _ = read(f"1;Hi;https://x\n{header}\n".encode())

    assert [2] == [row.line for row in rows]
    assert [PushRow, RowError] == [type(row) for row in again]


def test_blank_lines_count_as_lines_and_not_as_rows() -> None:
    rows, _ = read(b"\n1;Hi;https://x\n  \r\n2;Ho;https://y\n")

    assert [2, 4] == [row.line for row in rows]


@pytest.mark.parametrize(
    ("tail", "ends_within_a_line", "cut_off"),
    [
        (b"2;Ho;https://y\n", False, False),
        (b"2;Ho;https://y", True, False),
        (b"2;Ho;htt", True, True),
        (b"2;Ho;", True, True),
        (b"2;H", True, True),
        (b"2;Ho;\n", False, False),
        (b"2;H\n", False, False),
    ],
)
def test_a_cut_off_file_differs_from_one_without_a_last_line_end(
    tail: bytes, ends_within_a_line: bool, cut_off: bool
) -> None:
    _, reader = read(b"1;Hi;https://x\n" + tail)

    assert (ends_within_a_line, cut_off) == (reader.ends_within_a_line, reader.cut_off)


parts = st.lists(
    st.sampled_from([";", '"', "\\", "n", " ", "a", ":", "-", "1E+5", "https://x", "x:y", "ğ", "\xa0", "\t"]),
    max_size=12,
)


@given(parts.map("".join).filter(str.strip))
def test_a_plain_row_means_the_same_on_the_short_way(line: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        for plain, count_only in push_csv._PATTERNS:
            careful = rb"()(.*)\n" if count_only else rb"()()()(.*)\n"
            patch.setitem(push_csv._PATTERNS, (plain, count_only), re.compile(careful))
        expected = row(line)

    assert expected == row(line)


field = st.text(st.characters(exclude_characters=';\n\r"\\\0', exclude_categories=["Cs"]), min_size=1, max_size=30)


@given(st.lists(st.tuples(field, field), min_size=1, max_size=20), st.integers(1, 100))
def test_rows_in_are_rows_ok_and_rows_bad(pairs: list[tuple[str, str]], block: int) -> None:
    data = "".join(f"{ext_id};{text};https://x.example\n" for ext_id, text in pairs).encode()

    rows, _ = read(data, block)

    assert len(rows) == len(pairs)
    for found, (ext_id, text) in zip(rows, pairs, strict=True):
        if isinstance(found, PushRow):
            assert (ext_id.strip(), text) == (found.ext_id, found.text)
        else:
            assert found.code in {"ext_id_missing", "text_missing", "ext_id_scientific"}


@given(st.binary(max_size=500), st.integers(1, 60))
def test_any_bytes_are_read_or_refused(data: bytes, block: int) -> None:
    try:
        rows, _ = read(data, block)
    except RefusedError:
        return

    newlines = data.count(b"\n")
    assert len(rows) <= newlines + 1
    assert [row.line for row in rows] == sorted({row.line for row in rows})
