"""Output of the console without a terminal."""

import pytest

from millrace.terminal.console import Console


def test_table_is_plain_columns_when_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    Console().table(("step", "ok"), [("upload [one]", True), ("count", False)])

    assert "step          ok\nupload [one]  ok\ncount         FAILED\n" == capsys.readouterr().out


def test_line_is_never_broken_or_read_as_markup(capsys: pytest.CaptureFixture[str]) -> None:
    line = "[bold]" + "x" * 300

    Console().print_line(line)

    assert f"{line}\n" == capsys.readouterr().out


def test_stdout_is_kept_for_the_document_when_lines_go_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    console = Console(to_stderr=True)

    with console.spinner("starting"):
        console.result(True, "started")

    out, err = capsys.readouterr()
    assert "" == out
    assert "ok      started\n" == err
