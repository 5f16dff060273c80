"""`millrace demo`, whole, and interrupted."""

import asyncio
import random
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Iterator
from pathlib import Path

import msgspec
import psutil
import pytest

from millrace.demo.steps import START, STEPS
from shared.runtime.settings import child_environment

WHOLE_S = 150.0
STOP_S = 40.0
NAMES = [name for name, _ in (START, *STEPS)]
pytestmark = pytest.mark.timeout(240)


async def demo(folder: Path, *argv: str) -> Process:
    """Its temporary folder is made below the test's own."""
    command = (sys.executable, "-m", "millrace", "demo", *argv)
    return await asyncio.create_subprocess_exec(
        *command, stdout=PIPE, stderr=PIPE, env=child_environment() | {"TMPDIR": str(folder)}
    )


def left_in(folder: Path) -> Iterator[Path]:
    return folder.iterdir()


async def wait_gone(processes: list[psutil.Process]) -> None:
    async with asyncio.timeout(10):
        while any(psutil.pid_exists(one.pid) and one.status() != psutil.STATUS_ZOMBIE for one in processes):
            await asyncio.sleep(0.02)


async def wait_step(process: Process, name: str) -> None:
    """Wait until the step is printed."""
    assert process.stderr is not None
    async with asyncio.timeout(WHOLE_S):
        while f"  {name}: " not in (line := (await process.stderr.readline()).decode()):
            assert line, "it ended before"


async def test_every_step_has_its_expected_outcome(tmp_path: Path) -> None:
    process = await demo(tmp_path, "--json")

    out, err = await asyncio.wait_for(process.communicate(), WHOLE_S)

    document = msgspec.json.decode(out)
    assert [] == [step for step in document["steps"] if not step["ok"]], err.decode()
    assert NAMES == [step["name"] for step in document["steps"]]
    assert all({"name", "ok", "expected", "got", "seconds"} == set(step) for step in document["steps"])
    assert (True, 0) == (document["ok"], process.returncode)
    assert [] == list(left_in(tmp_path))


# The last step is followed by the end at once, so it cannot be interrupted after.
@pytest.mark.parametrize("number", [0, random.randrange(1, len(NAMES) - 1)], ids=["at the first step", "at another"])
async def test_ctrl_c_leaves_no_process(tmp_path: Path, number: int) -> None:
    process = await demo(tmp_path, "--json")
    await wait_step(process, NAMES[number])
    children = psutil.Process(process.pid).children(recursive=True)

    process.send_signal(signal.SIGINT)
    out, _ = await asyncio.wait_for(process.communicate(), STOP_S)

    assert (130, b"") == (process.returncode, out)
    assert len(children) >= 6
    await wait_gone(children)


async def test_ctrl_c_leaves_no_process_while_it_starts(tmp_path: Path) -> None:
    process = await demo(tmp_path)
    async with asyncio.timeout(WHOLE_S):
        while not (children := psutil.Process(process.pid).children(recursive=True)):
            await asyncio.sleep(0.01)

    process.send_signal(signal.SIGINT)
    _, err = await asyncio.wait_for(process.communicate(), STOP_S)

    assert 130 == process.returncode, err.decode()
    await wait_gone(children)


async def test_keep_leaves_it_running_until_ctrl_c(tmp_path: Path) -> None:
    process = await demo(tmp_path, "--keep")
    assert process.stdout is not None
    async with asyncio.timeout(WHOLE_S):
        while b"Ctrl-C ends it" not in (line := await process.stdout.readline()):
            assert line, "it ended"
    children = psutil.Process(process.pid).children(recursive=True)
    assert len(children) >= 6

    process.send_signal(signal.SIGINT)
    await asyncio.wait_for(process.communicate(), STOP_S)

    assert 0 == process.returncode
    await wait_gone(children)
