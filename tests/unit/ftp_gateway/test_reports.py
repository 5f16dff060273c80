import csv
from datetime import UTC, datetime
from typing import Literal

import msgspec
import pytest

from ftp_gateway.lines import RowError
from ftp_gateway.reports import MAX_REPORTED, Outcome, render_report, render_result, report_name, result_name

NOON = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)


def cells(report: bytes) -> list[list[str]]:
    return list(csv.reader(report.decode().splitlines(), delimiter=";"))


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
    assert expected == (report_name(kind, name), result_name(kind, name))


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


def test_a_cell_that_a_spreadsheet_would_run_is_quoted() -> None:
    for excerpt in ("=cmd|' /C calc'!A0", "+1", "-1", "@x", " =1+1", "\t=1"):
        [_, found] = cells(render_report([RowError(line=1, code="x", message="m", excerpt=excerpt)], 1))
        assert found[3] == f"'{excerpt}"


def test_a_report_is_capped_and_says_how_many_more() -> None:
    errors = [RowError(line=line, code="x", message="m") for line in range(1, MAX_REPORTED + 1)]

    found = cells(render_report(errors, MAX_REPORTED + 5))

    assert len(found) == MAX_REPORTED + 2
    assert found[-1][1:3] == ["more", "5 more rows were not taken"]


def test_a_result_is_the_outcome_in_figures() -> None:
    outcome = Outcome(
        file_id="f", file_name="a.csv", kind="push", outcome="done", size_bytes=3, rows=2, ok=2, received_at=NOON
    )

    assert {
        "outcome": "done",
        "rows": 2,
        "ok": 2,
        "received_at": "2026-11-22T12:00:00Z",
    }.items() <= msgspec.json.decode(render_result(outcome)).items()
    assert outcome.state == "completed"
