"""
`millrace bench [NAME]`: run the files of `bench/`, each of which measures us and the alternatives in turn.

Each file has a `NAME` and `async def rows(report) -> list[Row]`. A folder with an
`__init__.py` is one as well.
"""

import argparse
import asyncio
import importlib.util
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Awaitable, Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Protocol, cast

import msgspec
from msgspec import Struct

from millrace.machine.checkout import repository
from millrace.nats_servers.server import nats_server_binary
from millrace.terminal.console import Console, write_document
from millrace.terminal.event_loop import run_async
from shared.errors import NotFoundError

LIBRARIES = ("aiohttp", "nats-py", "msgspec", "asyncssh", "obstore", "aiobotocore")

Report = Callable[[str], None]
"""Prints one line of progress."""


class Row(Struct, frozen=True, kw_only=True):
    """
    A figure of ours beside the alternative's, both medians. `ratio` is ours / other.

    `goal` is the bound on the ratio, such as `<= 1.5`, or on ours alone, such as `ours <= 20`; `ok` whether it is kept.
    `beside` has further observations and the conditions.
    """

    name: str
    ours: float
    other: float
    unit: str
    ratio: float
    goal: str
    ok: bool
    beside: str = ""


class Bench(Protocol):
    """Contents of a file of `bench/`."""

    NAME: str

    async def rows(self, report: Report) -> list[Row]:
        """Measure. Called once; several rounds are the file's own affair."""
        ...


def compare(
    name: str,
    ours: Sequence[float],
    other: Sequence[float],
    unit: str,
    *,
    at_most: float | None = None,
    at_least: float | None = None,
    ours_at_most: float | None = None,
    ours_at_least: float | None = None,
    beside: str = "",
) -> Row:
    """
    A row of the medians of several rounds. Each goal that is given has to be kept: the ratio from above or from below,
    and ours, whatever the other is.
    """
    medians = statistics.median(ours), statistics.median(other)
    ratio = medians[0] / medians[1] if medians[1] else float(medians[0] > 0)
    goals: list[tuple[str, bool]] = []
    for said, value, most, least in (
        ("", ratio, at_most, at_least),
        ("ours ", medians[0], ours_at_most, ours_at_least),
    ):
        if most is not None:
            goals.append((f"{said}<= {most:g}", value <= most))
        if least is not None:
            goals.append((f"{said}>= {least:g}", value >= least))
    rounded = [float(f"{value:.4g}") for value in (*medians, ratio)]
    return Row(
        name=name,
        ours=rounded[0],
        other=rounded[1],
        unit=unit,
        ratio=rounded[2],
        goal=" and ".join(goal for goal, _ in goals) or "none",
        ok=all(kept for _, kept in goals),
        beside=beside,
    )


async def rounds(
    count: int, ours: Callable[[], Awaitable[float]], other: Callable[[], Awaitable[float]]
) -> tuple[list[float], list[float]]:
    """Measure both in turn, so that what else the machine does meets both."""
    measured: tuple[list[float], list[float]] = ([], [])
    for _ in range(count):
        measured[0].append(await ours())
        measured[1].append(await other())
    return measured


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `millrace bench`."""
    parser.add_argument("name", nargs="?", metavar="NAME", help="a file of bench/, without .py [all of them]")
    parser.add_argument("--json", action="store_true", help="print one JSON document; the rest goes to stderr")
    parser.add_argument("--strict", action="store_true", help="exit with 1 when a goal is missed")


def run(args: argparse.Namespace) -> int:
    """Measure and print."""
    return run_async(_run(args.name, as_json=args.json, strict=args.strict))


async def _run(name: str | None, *, as_json: bool, strict: bool) -> int:
    files = bench_files(repository() / "bench", name)
    console = Console(to_stderr=as_json)
    for line in await asyncio.to_thread(describe_machine):
        console.print_line(line)
    rows: list[Row] = []
    for file in files:
        bench = load(file)
        console.print_line(f"{bench.NAME} …")
        rows += await bench.rows(lambda line: console.print_line(f"  {line}", style="dim"))
    if as_json:
        write_document(msgspec.json.encode({"rows": rows}))
    else:
        headings = ("what", "ours", "other", "unit", "ours/other", "goal", "ok", "beside")
        cells = [
            (row.name, f"{row.ours:g}", f"{row.other:g}", row.unit, f"{row.ratio:g}", row.goal, row.ok, row.beside)
            for row in rows
        ]
        console.table(headings, cells)
    return 1 if strict and not all(row.ok for row in rows) else 0


def bench_files(folder: Path, name: str | None) -> list[Path]:
    """The files to run. Raises `NotFoundError` naming those that there are."""
    named = {file.stem: file for file in folder.glob("*.py")}
    named |= {file.parent.name: file for file in folder.glob("*/__init__.py")}
    files = dict(sorted(named.items()))
    if name is None:
        return list(files.values())
    if name not in files:
        raise NotFoundError(f"there is no bench {name!r}; there are {', '.join(files)}")
    return [files[name]]


def load(file: Path) -> Bench:
    """A file of `bench/` as a module, an `__init__.py` as its folder's package."""
    stem = file.parent.name if file.stem == "__init__" else file.stem
    spec = importlib.util.spec_from_file_location(f"bench_{stem}", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return cast(Bench, module)


def describe_machine() -> list[str]:
    """The machine and the versions on which the figures are taken."""
    server = subprocess.run([str(nats_server_binary()), "--version"], capture_output=True, text=True, check=False)
    pages, page_bytes = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    cores = len(os.sched_getaffinity(0))
    return [
        f"{_processor()}, {cores} cores, {pages * page_bytes >> 30} GiB, {platform.system()} {platform.release()}",
        f"Python {platform.python_version()}, {server.stdout.strip()}",
        ", ".join(f"{library} {version(library)}" for library in LIBRARIES),
    ]


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor() or platform.machine()
