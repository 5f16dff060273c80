"""
`millrace lock`: write requirements.lock from the requirements of the rooms and the dependency groups.

The lock names versions and hashes and no registry's address, so it serves every network. A pin stays until a room
requires another version or `--upgrade` moves it. So a newly published version never makes the lock stale.
"""

import argparse
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from millrace.machine.checkout import LOCK, repository, tool
from shared.errors import UnavailableError

GROUPS = ("dev", "bench")
PYTHON = "3.11"
"""The oldest Python that the lock must serve."""


def compile_lock(root: Path, output: Path, *, offline: bool = False, upgrade: Sequence[str] | None = None) -> None:
    """
    Bring `output` up to date; the pins that it holds stay where they still fit.

    Args:
        root: The repository.
        output: The lock file, which may be missing.
        offline: Ask no registry, and fail where uv's cache does not know the answer.
        upgrade: Packages whose pins may move; empty lets all of them move, None none.

    Raises:
        UnavailableError: uv found no solution, or the registry could not be reached.
    """
    rooms = [
        *sorted(root.glob("services/*/pyproject.toml")),
        root / "shared/pyproject.toml",
        root / "cli/pyproject.toml",
    ]
    command = [tool("uv"), "pip", "compile", "--quiet", "--universal", "--python-version", PYTHON, "--all-extras"]
    command += [
        "--generate-hashes",
        "--no-header",
        "--no-annotate",
        "--no-emit-index-url",
        "--no-emit-package",
        "millrace-shared",
    ]
    command += ["--output-file", str(output)]
    command += ["--offline"] if offline else []
    command += ["--upgrade"] if upgrade == [] else [f"--upgrade-package={package}" for package in upgrade or ()]
    command += [str(room.relative_to(root)) for room in rooms]
    command += [f"--group=pyproject.toml:{group}" for group in GROUPS]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True)
    if done.returncode:
        raise UnavailableError(f"uv could not compile {LOCK}:\n{done.stderr.strip()}")


def stale_pins(root: Path) -> list[str]:
    """
    The lines of requirements.lock that compiling it anew would add or drop; empty when it is current.

    Raises:
        UnavailableError: It could not be compiled.
    """
    locked = (root / LOCK).read_text()
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / LOCK
        output.write_text(locked)
        try:
            compile_lock(root, output, offline=True)
        except UnavailableError:
            # The cache of a fresh install lacks the packages that only other systems need.
            output.write_text(locked)
            compile_lock(root, output)
        compiled = output.read_text()
    before, after = locked.splitlines(), compiled.splitlines()
    if before == after:
        return []
    return [f"- {line}" for line in before if line not in after] + [f"+ {line}" for line in after if line not in before]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `millrace lock`."""
    parser.add_argument(
        "--upgrade", nargs="*", metavar="PACKAGE", help="let the pins of these packages move; of all when none is named"
    )


def run(args: argparse.Namespace) -> int:
    """Write the lock; the next call of ./millrace installs it."""
    root = repository()
    before = (root / LOCK).read_text() if (root / LOCK).exists() else ""
    with tempfile.TemporaryDirectory(dir=root) as folder:
        output = Path(folder) / LOCK
        output.write_text(before)
        compile_lock(root, output, upgrade=args.upgrade)
        changed = output.read_text() != before
        # Replaced in one step: a reader, and an interrupt, meet the old lock or the new one.
        output.replace(root / LOCK)
    print(f"{LOCK} is {'written; the next call of ./millrace installs it' if changed else 'current'}")
    return 0
