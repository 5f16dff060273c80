"""What is printed where there is no terminal."""

import pytest

from millrace.terminal.console import Teller


def test_table_is_plain_columns_when_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    Teller().table(("step", "ok"), [("upload [one]", True), ("count", False)])

    assert "step          ok\nupload [one]  ok\ncount         FAILED\n" == capsys.readouterr().out


def test_line_is_never_broken_or_read_as_markup(capsys: pytest.CaptureFixture[str]) -> None:
    line = "[bold]" + "x" * 300

    Teller().say(line)

    assert f"{line}\n" == capsys.readouterr().out


def test_stdout_is_kept_for_the_document_when_told_so(capsys: pytest.CaptureFixture[str]) -> None:
    teller = Teller(to_stderr=True)

    with teller.doing("starting"):
        teller.verdict(True, "started")

    out, err = capsys.readouterr()
    assert "" == out
    assert "ok      started\n" == err
