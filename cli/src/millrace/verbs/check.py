"""
`millrace check`: checks of the repository that need no running mesh.

Every step runs, so that one call shows all that is wrong. The rules themselves are in the root pyproject.toml.
"""

import argparse
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from rich.console import Console

from millrace.generated import event_schemas, lock, openapi
from millrace.machine.checkout import LOCK, repository, tool
from shared.errors import MillraceError

CheckStep = Callable[[Path], str]
"""Checks the repository at a path and returns what is wrong, or "" when nothing is."""


def program(*command: str) -> CheckStep:
    """Return a step that runs one of our tools; its output is the fault when it fails."""

    def judge(root: Path) -> str:
        done = subprocess.run(
            [tool(command[0]), *command[1:]], cwd=root, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        return "" if done.returncode == 0 else done.stdout.strip() or f"exit code {done.returncode}"

    return judge


def openapi_is_current(root: Path) -> str:
    """Check the files under docs/openapi."""
    stale = openapi.stale_documents(root)
    return "".join(f"{path} is stale\n" for path in stale) + "./millrace check --fix writes them" if stale else ""


def openapi_written(root: Path) -> str:
    """Write the files under docs/openapi."""
    openapi.write_documents(root)
    return ""


def lock_is_current(root: Path) -> str:
    """Check requirements.lock."""
    stale = lock.stale_pins(root)
    return "\n".join((*stale, f"./millrace lock writes {LOCK}")) if stale else ""


def schemas_only_grow(root: Path) -> str:
    """Check the schemas of exported events."""
    return "\n".join(event_schemas.faults_of_schemas(root))


STEPS: tuple[tuple[str, CheckStep, CheckStep], ...] = (
    (
        "ruff format",
        program("ruff", "format", "--check", "--output-format=concise", "."),
        program("ruff", "format", "."),
    ),
    (
        "ruff check",
        program("ruff", "check", "--output-format=concise", "."),
        program("ruff", "check", "--output-format=concise", "--fix", "."),
    ),
    ("mypy", program("mypy"), program("mypy")),
    ("import rules", program("lint-imports", "--no-logo"), program("lint-imports", "--no-logo")),
    ("openapi files are current", openapi_is_current, openapi_written),
    ("event schemas only grow", schemas_only_grow, schemas_only_grow),
    ("lock is current", lock_is_current, lock_is_current),
)
"""Name, the step, and what `--fix` runs in its place."""


def wrong_with(step: CheckStep, root: Path) -> str:
    """The faults that a step finds; a step that could not be done is a fault too."""
    try:
        return step(root)
    except MillraceError as error:
        return str(error)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `millrace check`."""
    parser.add_argument("--fix", action="store_true", help="format, apply ruff's fixes, and write the openapi files")


def run(args: argparse.Namespace) -> int:
    """Run every step in turn, and exit with 1 when any found something."""
    root = repository()
    console = Console(highlight=False, soft_wrap=True)
    width = max(len(name) for name, _, _ in STEPS)
    failed = 0
    for name, judge, fix in STEPS:
        started = time.monotonic()
        with console.status(name):
            wrong = wrong_with(fix if args.fix else judge, root)
        verdict = "[red]failed[/red]" if wrong else "[green]ok[/green]    "
        console.print(f"{name:<{width}}  {verdict}  {time.monotonic() - started:5.1f} s")
        if wrong:
            failed += 1
            console.print(wrong, markup=False, style="dim" if console.is_terminal else None)
    if failed:
        print(f"millrace: {failed} of {len(STEPS)} steps failed", file=sys.stderr)
    return 1 if failed else 0
