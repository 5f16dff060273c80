"""The command line's front: which verb, which exit code, and how fast `--help` is."""

import argparse
import importlib.util
import signal
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from types import ModuleType

import pytest

from millrace import __main__ as front
from shared.errors import InvalidError


class FakeVerb(ModuleType):
    """A verb module whose `run` the test sets."""

    def __init__(self, outcome: int | BaseException = 0, passes_on: bool = False) -> None:
        super().__init__("millrace.fake")
        self.outcome = outcome
        self.passes_on = passes_on
        self.args = argparse.Namespace()

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        if self.passes_on:
            parser.set_defaults(rest=[])
        else:
            parser.add_argument("--size", type=int)

    def run(self, args: argparse.Namespace) -> int:
        self.args = args
        if isinstance(self.outcome, BaseException):
            raise self.outcome
        return self.outcome


def call(monkeypatch: pytest.MonkeyPatch, *argv: str, verb: FakeVerb | None = None) -> int:
    """Run `millrace` with the arguments, where `fake` is a verb."""
    monkeypatch.setitem(sys.modules, "millrace.fake", verb or FakeVerb())
    monkeypatch.setattr(front, "VERBS", (*front.VERBS, front.Verb("fake", "millrace.fake", "a verb of the test")))
    monkeypatch.setattr(sys, "argv", ["millrace", *argv])
    return front.main()


def test_help_lists_every_verb(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    code = call(monkeypatch, "--help")

    listed = [line.split()[0] for line in capsys.readouterr().out.splitlines() if line.startswith("  ")]
    assert 0 == code
    assert [verb.name for verb in front.VERBS] == listed


def test_verbs_are_those_that_are_promised() -> None:
    promised = {
        "up",
        "alerts",
        "demo",
        "bench",
        "token",
        "app",
        "apply",
        "status",
        "nats-config",
        "provision",
        "rekey",
        "sign",
        "check",
        "test",
        "lock",
    }

    assert promised == {verb.name for verb in front.VERBS}


def test_exit_code_is_2_without_a_verb(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert 2 == call(monkeypatch)
    assert "usage: millrace VERB" in capsys.readouterr().err


def test_unknown_verb_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert 2 == call(monkeypatch, "demolish")
    assert "millrace: there is no verb 'demolish'; `millrace --help` lists them\n" == capsys.readouterr().err


def test_exit_code_is_the_verbs(monkeypatch: pytest.MonkeyPatch) -> None:
    verb = FakeVerb(outcome=3)

    code = call(monkeypatch, "fake", "--size", "7", verb=verb)

    assert 3 == code
    assert 7 == verb.args.size


def test_unknown_argument_is_refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        call(monkeypatch, "fake", "--siez", "7")

    assert 2 == stopped.value.code
    assert "unrecognized arguments: --siez 7" in capsys.readouterr().err


def test_unknown_arguments_are_handed_on_when_the_verb_takes_them(monkeypatch: pytest.MonkeyPatch) -> None:
    verb = FakeVerb(passes_on=True)

    call(monkeypatch, "fake", "-k", "a or b", "tests/unit", "--maxfail=1", verb=verb)

    assert ["-k", "a or b", "tests/unit", "--maxfail=1"] == verb.args.rest


def test_failure_is_one_line_that_names_the_field(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code = call(monkeypatch, "fake", verb=FakeVerb(InvalidError("expected a number", field="hooks[0].id")))

    assert 1 == code
    assert "millrace: hooks[0].id: expected a number\n" == capsys.readouterr().err


def test_error_of_the_machine_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for error in (PermissionError(13, "Permission denied", "/proc/x"), OSError(28, "No space left on device")):
        assert 1 == call(monkeypatch, "fake", verb=FakeVerb(error))

    lines = ["millrace: /proc/x: Permission denied", "millrace: No space left on device"]
    assert lines == capsys.readouterr().err.splitlines()


@pytest.mark.parametrize("redirected", ["| true", ">&-", ">/dev/full"])
def test_output_that_nobody_takes_is_no_traceback(redirected: str, tmp_path: Path) -> None:
    command = f"{sys.executable} -m millrace nats-config --keys {tmp_path / 'keys'} {redirected}"

    done = subprocess.run(command, shell=True, capture_output=True, text=True)

    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) <= 1


def test_version_is_that_of_the_package(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert 0 == call(monkeypatch, "--version")
    assert f"millrace {version('millrace')}\n" == capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("up --data {file}", "{file}: expected a folder, found a file"),
        ("up --data {file}/mesh", "{file}/mesh: the folder cannot be made: Not a directory"),
        ("up --data {new} --http-port-base 65533", "--http-port-base: expected a port from 1 to 65532, got 65533"),
        ("up --data {new} --http-port-base 0", "--http-port-base: expected a port from 1 to 65532, got 0"),
        ("up --data {new} --sftp-port 65536", "--sftp-port: expected a port from 1 to 65535, got 65536"),
        ("nats-config --keys {file}", "{file}: expected a folder, found a file"),
        ("nats-config --keys {new} --port 99999", "--port: expected a port from 1 to 65535, got 99999"),
        ("nats-config --keys {new} --monitor-port -1", "--monitor-port: expected a port from 1 to 65535, got -1"),
        ("token list --data {file}", "{file}/lock: cannot be read: Not a directory"),
    ],
)
def test_wrong_argument_is_one_line(
    arguments: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    names = {"file": tmp_path / "file", "new": tmp_path / "new"}
    names["file"].touch()

    assert 1 == call(monkeypatch, *arguments.format(**names).split())
    assert f"millrace: {said.format(**names)}\n" == capsys.readouterr().err


def test_interrupt_exits_with_130(monkeypatch: pytest.MonkeyPatch) -> None:
    assert 130 == call(monkeypatch, "fake", verb=FakeVerb(KeyboardInterrupt()))


def test_help_imports_no_library() -> None:
    """`millrace --help` and the choice of a verb must not wait for libraries that only some verbs need."""
    program = "import sys, millrace.__main__; print(*sys.modules)"

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert set() == {"rich", "aiohttp", "nats", "msgspec", "asyncio", "cryptography"} & set(done.stdout.split())


@pytest.mark.parametrize("verb", front.VERBS, ids=lambda verb: verb.name)
def test_every_verb_has_its_module(verb: front.Verb) -> None:
    assert importlib.util.find_spec(verb.module) is not None


def test_ctrl_c_is_handled_where_the_caller_ignores_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a shell has it for a job in the background."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        call(monkeypatch, "fake")

        assert signal.default_int_handler == signal.getsignal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)
