"""
The script ./millrace: its choice of Python, its installs and its recovery.

uv is a fake that notes its calls and makes an environment whose `millrace` prints its arguments, so nothing is fetched.
"""

import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[3]

TOOLS = ("cat", "chmod", "cksum", "mkdir", "mv", "readlink", "rm", "sed", "sh")

FAKE_UV = """\
#!/bin/sh
printf '%s\\n' "$*" >>"$CALLS"
case $1 in
  venv)
    mkdir -p .venv/bin
    printf '#!/bin/sh\\n' >.venv/bin/python
    printf '#!/bin/sh\\necho "ran $*"\\n' >.venv/bin/millrace
    chmod +x .venv/bin/python .venv/bin/millrace
    ;;
  pip)
    if [ -n "${UV_FAILS:-}" ]; then echo "no such registry"; exit 7; fi
    echo "Installed"
    ;;
esac
"""


def executable(path: Path, text: str) -> Path:
    """A script that can be run."""
    path.write_text(text)
    path.chmod(0o755)
    return path


class Checkout:
    """A checkout with the script and its files, and a PATH with no other program on it."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "checkout"
        for project in ("", "shared", "services/storage", "cli"):
            (self.root / project).mkdir(parents=True, exist_ok=True)
            (self.root / project / "pyproject.toml").write_text("")
        (self.root / "requirements.lock").write_text("uv==1.0 \\\n    --hash=sha256:00\n")
        shutil.copy(REPOSITORY / "millrace", self.root / "millrace")
        self.bin = folder / "bin"
        self.bin.mkdir()
        for tool in TOOLS:
            where = shutil.which(tool)
            assert where is not None
            (self.bin / tool).symlink_to(where)
        executable(self.bin / "uv", FAKE_UV)
        self.uv_calls = folder / "calls"

    def command(self, *arguments: str, script: Path | None = None) -> list[str]:
        return [str(script or self.root / "millrace"), *arguments]

    def environment(self, **variables: str) -> dict[str, str]:
        return {"PATH": str(self.bin), "CALLS": str(self.uv_calls), **variables}

    def run(
        self, *arguments: str, script: Path | None = None, cwd: Path | None = None, **variables: str
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*arguments, script=script),
            cwd=cwd or self.root,
            env=self.environment(**({"MILLRACE_PYTHON": sys.executable} | variables)),
            capture_output=True,
            text=True,
            timeout=30,
        )

    def installs(self) -> int:
        """The number of installs of requirements.lock."""
        calls = self.uv_calls.read_text().splitlines() if self.uv_calls.exists() else []
        return sum("pip sync" in call for call in calls)

    def python(self, name: str, version: str) -> None:
        """A fake interpreter on PATH."""
        executable(self.bin / name, f'#!/bin/sh\ncase $2 in *fcntl*) ;; *) echo "{version} $0" ;; esac\n')


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path)


def test_python_is_refused_in_one_line_when_too_old(checkout: Checkout) -> None:
    checkout.python("python3", "3.9.2")

    done = checkout.run("check", MILLRACE_PYTHON="")

    assert 1 == done.returncode
    assert [
        f"millrace: needs Python 3.11 or newer; found 3.9.2 at {checkout.bin}/python3; MILLRACE_PYTHON can name another"
    ] == done.stderr.splitlines()


def test_python_is_missed_in_one_line_when_there_is_none(checkout: Checkout) -> None:
    done = checkout.run("check", MILLRACE_PYTHON="")

    assert 1 == done.returncode
    assert 1 == len(done.stderr.splitlines())
    assert "found none that runs as python3.13 python3.12 python3.11 python3" in done.stderr


def test_python_chosen_by_hand_is_not_replaced_when_it_does_not_run(checkout: Checkout) -> None:
    checkout.python("python3", "3.12.1")

    done = checkout.run("check", MILLRACE_PYTHON="/no such/python")

    assert 1 == done.returncode
    assert "found none that runs as /no such/python" in done.stderr


@pytest.mark.parametrize("version", ["3.11.0", "3.13.2", "3.100.1", "4.0.0"])
def test_python_is_used_when_new_enough(checkout: Checkout, version: str) -> None:
    checkout.python("python3", version)

    done = checkout.run("status", MILLRACE_PYTHON="")

    assert "ran status\n" == done.stdout
    assert f"making .venv with Python {version}" in done.stderr


@pytest.mark.parametrize("version", ["2.7.18", "3.1.5", "3.9.18", "3.10.13"])
def test_python_is_refused_when_older_than_the_oldest_we_serve(checkout: Checkout, version: str) -> None:
    checkout.python("python3", version)

    done = checkout.run("status", MILLRACE_PYTHON="")

    assert 1 == done.returncode


def test_broken_shim_is_passed_over_when_another_python_runs(checkout: Checkout) -> None:
    """A version manager puts names on PATH for interpreters that are not active; they fail when run."""
    executable(checkout.bin / "python3.13", "#!/bin/sh\necho 'command not found' >&2\nexit 127\n")
    checkout.python("python3.12", "3.12.1")

    done = checkout.run("status", MILLRACE_PYTHON="")

    assert "ran status\n" == done.stdout
    assert "command not found" not in done.stderr


def test_arguments_reach_the_command_line_as_they_are(checkout: Checkout) -> None:
    done = checkout.run("test", "-k", "a and b", "")

    assert "ran test -k a and b \n" == done.stdout
    assert 0 == done.returncode


def test_progress_is_printed_on_stderr_while_it_installs(checkout: Checkout) -> None:
    done = checkout.run("demo", "--json")

    assert "ran demo --json\n" == done.stdout
    assert "millrace: installing requirements.lock" in done.stderr
    assert "  Installed" in done.stderr.splitlines()
    assert "millrace: ready" == done.stderr.splitlines()[-1]


@pytest.mark.parametrize("exists", [False, True], ids=["new", "of an earlier release"])
def test_folder_that_the_first_call_makes_is_private(checkout: Checkout, exists: bool) -> None:
    folder = checkout.root / ".millrace"
    if exists:
        folder.mkdir(mode=0o755)

    checkout.run()

    assert 0o700 == stat.S_IMODE(folder.stat().st_mode)


def test_second_call_installs_nothing(checkout: Checkout) -> None:
    checkout.run("status")

    again = checkout.run("status", MILLRACE_PYTHON="")

    assert ("ran status\n", "") == (again.stdout, again.stderr)
    assert 1 == checkout.installs()


@pytest.mark.parametrize("changed", ["requirements.lock", "pyproject.toml", "services/storage/pyproject.toml"])
def test_environment_is_brought_up_to_date_when_what_it_is_made_from_changes(checkout: Checkout, changed: str) -> None:
    checkout.run("status")
    (checkout.root / changed).write_text("# changed\n")

    checkout.run("status")

    assert 2 == checkout.installs()
    assert 1 == checkout.uv_calls.read_text().count("venv --python")


def test_environment_is_recreated_when_the_checkout_has_moved(checkout: Checkout, tmp_path: Path) -> None:
    checkout.run("status")
    moved = tmp_path / "moved"
    checkout.root.rename(moved)

    checkout.run("status", script=moved / "millrace", cwd=moved)

    assert 2 == checkout.uv_calls.read_text().count("venv --python")


def test_environment_is_recreated_when_another_python_is_chosen(checkout: Checkout) -> None:
    checkout.run("status")
    checkout.python("other", "3.99.0")

    done = checkout.run("status", MILLRACE_PYTHON="other")

    assert "making .venv with Python 3.99.0" in done.stderr


def test_failed_install_is_one_line_that_names_the_log(checkout: Checkout) -> None:
    done = checkout.run("status", UV_FAILS="yes")

    log = checkout.root / ".millrace" / "install.log"
    assert 1 == done.returncode
    assert done.stderr.splitlines()[-1].startswith("millrace: failed with exit code 7: installing requirements.lock")
    assert done.stderr.endswith(f"the whole output is in {log}\n")
    assert "no such registry" in log.read_text()


def test_install_starts_over_when_the_one_before_did_not_finish(checkout: Checkout) -> None:
    checkout.run("status", UV_FAILS="yes")
    leftover = checkout.root / ".venv" / "half-unpacked"
    leftover.touch()

    done = checkout.run("status")

    assert "ran status\n" == done.stdout
    assert not leftover.exists()


def test_one_of_two_first_calls_installs_when_both_start_at_once(checkout: Checkout) -> None:
    environment = checkout.environment(MILLRACE_PYTHON=sys.executable)
    calls = [
        subprocess.Popen(checkout.command("status"), cwd=checkout.root, env=environment, stdout=subprocess.PIPE)
        for _ in range(2)
    ]

    printed = [call.communicate(timeout=30)[0] for call in calls]

    assert [b"ran status\n"] * 2 == printed
    assert 1 == checkout.installs()


def test_script_finds_its_checkout_when_called_through_symlinks(checkout: Checkout, tmp_path: Path) -> None:
    elsewhere = tmp_path / "else where"
    elsewhere.mkdir()
    (elsewhere / "first").symlink_to(os.path.relpath(checkout.root / "millrace", elsewhere))
    (elsewhere / "second").symlink_to("first")

    done = checkout.run("status", script=elsewhere / "second", cwd=tmp_path)

    assert "ran status\n" == done.stdout
    assert (checkout.root / ".venv" / "millrace.stamp").is_file()
