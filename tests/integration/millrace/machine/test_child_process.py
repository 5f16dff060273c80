"""Children of the command line: stopped in order, killed when they do not listen, never left behind."""

import asyncio
import os
import signal
import sys
from pathlib import Path

import psutil
import pytest

from millrace.machine.child_process import child, start_child
from millrace.machine.ports import free_ports, is_free
from shared.errors import UnavailableError
from shared.runtime.settings import child_environment

STUBBORN = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(60)"
PARENT = """
import asyncio, sys
from pathlib import Path
from millrace.machine.child_process import start_child
from shared.runtime.settings import child_environment

async def main():
    command = (sys.executable, "-c", sys.argv[2])
    one = await start_child("one", command, environment=child_environment(), log=Path(sys.argv[1]))
    print(one.pid, flush=True)
    await asyncio.sleep(60)

asyncio.run(main())
"""


async def wait_logged(log: Path, text: str) -> None:
    async with asyncio.timeout(10):
        while not holds(log, text):
            await asyncio.sleep(0.01)


def holds(log: Path, text: str) -> bool:
    return log.exists() and text in log.read_text()


async def test_child_that_ignores_sigterm_is_killed_after_the_deadline(tmp_path: Path) -> None:
    command = (sys.executable, "-c", STUBBORN)
    one = await start_child("one", command, environment=child_environment(), log=tmp_path / "log")
    await wait_logged(one.log, "up")

    code = await one.stop(deadline_s=0.2)

    assert -signal.SIGKILL == code
    assert not one.running


async def test_child_is_stopped_when_its_block_is_left_by_an_error(tmp_path: Path) -> None:
    command = (sys.executable, "-c", "import time; time.sleep(60)")

    with pytest.raises(RuntimeError):
        async with child("one", command, environment=child_environment(), log=tmp_path / "log") as one:
            raise RuntimeError

    assert not psutil.pid_exists(one.pid)


async def test_child_that_is_being_stopped_is_killed_when_the_wait_is_cancelled(tmp_path: Path) -> None:
    command = (sys.executable, "-c", STUBBORN)
    one = await start_child("one", command, environment=child_environment(), log=tmp_path / "log")
    await wait_logged(one.log, "up")

    with pytest.raises(TimeoutError):
        await asyncio.wait_for(one.stop(deadline_s=60), 0.2)

    assert -signal.SIGKILL == await one.wait()


async def test_child_dies_when_its_parent_is_killed(tmp_path: Path) -> None:
    parent = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PARENT, str(tmp_path / "log"), STUBBORN, stdout=asyncio.subprocess.PIPE
    )
    assert parent.stdout is not None
    pid = int(await parent.stdout.readline())
    await wait_logged(tmp_path / "log", "up")

    parent.kill()
    await parent.wait()

    async with asyncio.timeout(10):
        while is_running(pid):
            await asyncio.sleep(0.01)


def is_running(pid: int) -> bool:
    """A zombie is not running; its reaping is not part of the test."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


async def test_child_is_in_a_group_of_its_own_so_ctrl_c_reaches_the_parent_alone(tmp_path: Path) -> None:
    command = (sys.executable, "-c", "import time; time.sleep(60)")

    async with child("one", command, environment=child_environment(), log=tmp_path / "log") as one:
        assert one.pid == os.getpgid(one.pid)


async def test_child_that_ended_too_soon_is_reported_with_its_last_output(tmp_path: Path) -> None:
    command = (sys.executable, "-c", "import sys; print('no disk'); sys.exit(3)")
    one = await start_child("exporter", command, environment=child_environment(), log=tmp_path / "exporter.log")
    await one.wait()

    told = str(one.ended("before it was ready"))

    assert f"exporter ended with exit code 3 before it was ready; its log is {one.log}\n  no disk" == told


async def test_program_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UnavailableError, match="exporter cannot be started"):
        await start_child("exporter", ("/nowhere/exporter",), environment={}, log=tmp_path / "log")


async def test_port_is_not_free_while_a_server_listens() -> None:
    port = free_ports(1)[0]
    assert is_free(port)

    server = await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", port)
    assert not is_free(port)

    server.close()
    await server.wait_closed()
    assert is_free(port)


async def test_child_receives_the_signals_that_its_parent_ignores(tmp_path: Path) -> None:
    command = (sys.executable, "-c", "import time; print('up', flush=True); time.sleep(60)")
    before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        one = await start_child("one", command, environment=child_environment(), log=tmp_path / "log")
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    await wait_logged(one.log, "up")

    code = await one.stop(deadline_s=10)

    assert -signal.SIGTERM == code
