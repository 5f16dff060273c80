import codecs
import csv
import io
import re
import unicodedata
from datetime import UTC, datetime
from typing import Literal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ftp_gateway.model.outcome import MAX_REPORTED, FileOutcome, RowError, error_report_name, result_file_name
from ftp_gateway.processing.error_report import render_report, render_result

NOON = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)


def cells(report: bytes) -> list[list[str]]:
    return list(csv.reader(report.decode("utf-8-sig").splitlines(), delimiter=";"))


def shown(excerpt: str) -> str:
    """Return the excerpt of a report as a CSV reader reads it."""
    report = render_report([RowError(line=1, code="x", message="m", excerpt=excerpt)], 1).decode()
    [_, found] = csv.reader(io.StringIO(report, newline=""), delimiter=";")
    return found[3]


@pytest.mark.parametrize(
    ("kind", "name", "expected"),
    [
        ("push", "push.csv", ("push.csv.report.csv", "push.csv.result.json")),
        ("push", "users.txt", ("users.txt.push.report.csv", "users.txt.push.result.json")),
        ("profile", "users.txt", ("users.txt.report.csv", "users.txt.result.json")),
    ],
)
def test_push_and_profile_files_share_no_report(
    kind: Literal["push", "profile"], name: str, expected: tuple[str, str]
) -> None:
    assert expected == (error_report_name(kind, name), result_file_name(kind, name))


def test_a_report_begins_with_the_mark_by_which_excel_knows_its_encoding() -> None:
    assert render_report([], 0).startswith(codecs.BOM_UTF8 + b"line;code;")


def test_a_report_is_a_row_for_each_error() -> None:
    errors = [
        RowError(line=6, code="columns", message="expected three", excerpt='1;"a"'),
        RowError(line=0, code="x", message="m"),
    ]

    assert [
        ["line", "code", "message", "excerpt"],
        ["6", "columns", "expected three", '1;"a"'],
        ["", "x", "m", ""],
    ] == cells(render_report(errors, 2))


@pytest.mark.parametrize(
    "excerpt",
    [
        "=cmd|' /C calc'!A0",
        "+1",
        "-1",
        "@x",
        "\N{FULLWIDTH EQUALS SIGN}1",
        "\N{FULLWIDTH PLUS SIGN}1",
        "\N{FULLWIDTH HYPHEN-MINUS}1",
        "\N{FULLWIDTH COMMERCIAL AT}x",
        "\N{SMALL EQUALS SIGN}1",
        "\N{MINUS SIGN}1",
        " =1+1",
        "\N{NO-BREAK SPACE}=1",
        "\N{IDEOGRAPHIC SPACE}=1",
        "\N{ZERO WIDTH SPACE}=1",
        "\N{ZERO WIDTH NO-BREAK SPACE}=1",
        "\N{RIGHT-TO-LEFT MARK}=1",
        "\x00=1",
        "\x0b=1",
        '"=1"',
        '" =1',
        "\tx",
        "\rx",
    ],
)
def test_a_cell_that_a_spreadsheet_would_run_begins_with_an_apostrophe(excerpt: str) -> None:
    assert f"'{excerpt}" == shown(excerpt)


@pytest.mark.parametrize(
    ("excerpt", "expected"),
    [
        ("7;a,=1+1", "7;a,'=1+1"),
        ("7;a\t=1+1", "7;a\t'=1+1"),
        ("7;a\r=1+1", "7;a\r'=1+1"),
        ("7;a, =1+1", "7;a,' =1+1"),
        ("7;a,,=1+1,+2", "7;a,,'=1+1,'+2"),
    ],
)
def test_a_cell_of_a_program_with_other_separators_is_checked_too(excerpt: str, expected: str) -> None:
    assert expected == shown(excerpt)


@pytest.mark.parametrize("excerpt", ["", "1;Hello;https://x", "a=b", "1;-5 TL", "a, b", '"a";"b"', "İzmir; ğ"])
def test_other_rows_are_shown_as_they_are(excerpt: str) -> None:
    assert excerpt == shown(excerpt)


def test_a_message_is_as_safe_as_a_row() -> None:
    [_, found] = cells(render_report([RowError(line=1, code="x", message="=1+1")], 1))

    assert "'=1+1" == found[2]


@given(st.text(max_size=60))
def test_no_cell_of_a_report_is_a_formula_however_its_row_is_written(excerpt: str) -> None:
    found = shown(excerpt)

    assert excerpt.replace("'", "") == found.replace("'", "")
    for cell in re.split(r"[,\t\r\n]", found):
        assert not unicodedata.normalize("NFKC", cell).strip().startswith(("=", "+", "-", "@"))


def test_a_report_is_capped_and_says_how_many_more() -> None:
    errors = [RowError(line=line, code="x", message="m") for line in range(1, MAX_REPORTED + 1)]

    found = cells(render_report(errors, MAX_REPORTED + 5))

    assert len(found) == MAX_REPORTED + 2
    assert found[-1][1:3] == ["more", "5 more rows were not taken"]


def test_a_result_is_the_outcome_in_figures() -> None:
    outcome = FileOutcome(
        file_id="f", file_name="a.csv", kind="push", outcome="done", size_bytes=3, rows=2, ok=2, received_at=NOON
    )

    assert {
        "outcome": "done",
        "rows": 2,
        "ok": 2,
        "failed": 0,
        "duplicates": 0,
        "seconds": 0.0,
        "file_id": "f",
        "received_at": "2026-11-22T12:00:00Z",
    }.items() <= msgspec.json.decode(render_result(outcome)).items()
    assert outcome.state == "completed"
