"""`millrace check`: every step runs, and its findings are printed."""

import argparse
from pathlib import Path

import pytest

from millrace.verbs import check
from shared.errors import UnavailableError


def clean(root: Path) -> str:
    return ""


def broken(root: Path) -> str:
    return "line 3: [wrong] indentation"


def impossible(root: Path) -> str:
    raise UnavailableError("the registry cannot be reached")


def run(
    monkeypatch: pytest.MonkeyPatch, *steps: tuple[str, check.CheckStep, check.CheckStep], fix: bool = False
) -> int:
    """Run `millrace check` with these steps."""
    monkeypatch.setattr(check, "STEPS", steps)
    return check.run(argparse.Namespace(fix=fix))


def test_exit_code_is_0_when_nothing_is_wrong(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code = run(monkeypatch, ("lint", clean, broken), ("types", clean, broken))

    assert 0 == code
    assert [["lint", "ok"], ["types", "ok"]] == [line.split()[:2] for line in capsys.readouterr().out.splitlines()]


def test_later_steps_run_when_one_fails(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    code = run(monkeypatch, ("lint", broken, clean), ("types", clean, clean))

    printed = capsys.readouterr()
    assert 1 == code
    assert ["lint", "failed"] == printed.out.splitlines()[0].split()[:2]
    assert "line 3: [wrong] indentation" == printed.out.splitlines()[1]
    assert ["types", "ok"] == printed.out.splitlines()[2].split()[:2]
    assert "millrace: 1 of 2 steps failed\n" == printed.err


def test_step_that_cannot_be_done_counts_as_failed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code = run(monkeypatch, ("lock", impossible, clean))

    assert 1 == code
    assert "the registry cannot be reached" in capsys.readouterr().out


def test_fixing_steps_run_with_the_fix_option(monkeypatch: pytest.MonkeyPatch) -> None:
    assert 0 == run(monkeypatch, ("lint", broken, clean), fix=True)


def test_program_that_fails_in_silence_is_still_wrong(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(check, "tool", lambda name: name)

    assert "exit code 1" == check.program("false")(tmp_path)
    assert "" == check.program("true")(tmp_path)
