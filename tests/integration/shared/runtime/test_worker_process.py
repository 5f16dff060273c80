"""The life of a worker process."""

import asyncio
from pathlib import Path

import msgspec
import psutil
import pytest
from msgspec import Struct

from shared.errors import UnavailableError
from shared.runtime.worker_process import WorkerProcess
from support import echo_worker
from support.waiting import until


class Note(Struct, frozen=True):
    text: str


@pytest.fixture(autouse=True)
def found_by_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(Path(echo_worker.__file__).parent.parent)


def children() -> list[psutil.Process]:
    return [child for child in psutil.Process().children() if "support.echo_worker" in child.cmdline()]


async def start() -> WorkerProcess:
    return await WorkerProcess.start("support.echo_worker", purpose="for this test")


async def echoed(process: WorkerProcess, text: str) -> str:
    await process.send(Note(text))
    return msgspec.msgpack.decode(await process.receive(), type=Note).text


async def test_a_process_answers_until_its_end() -> None:
    process = await start()
    async with process.killed_on_error():
        assert ["a", "b" * 300_000] == [await echoed(process, "a"), await echoed(process, "b" * 300_000)]
    assert 1 == len(children())

    await process.end()

    assert [] == children()


async def test_a_process_that_is_cancelled_in_the_middle_is_killed() -> None:
    process = await start()
    answered = asyncio.Event()

    async def wait_for_ever() -> None:
        async with process.killed_on_error():
            await echoed(process, "a")
            answered.set()
            await echoed(process, "silence")

    waiting = asyncio.create_task(wait_for_ever())
    await answered.wait()
    waiting.cancel()

    assert isinstance((await asyncio.gather(waiting, return_exceptions=True))[0], asyncio.CancelledError)
    await until(lambda: not children())


async def test_a_process_that_has_ended_is_an_error() -> None:
    process = await start()
    with pytest.raises(EOFError):
        async with process.killed_on_error():
            await echoed(process, "end")

    assert [] == children()


async def test_a_process_that_cannot_be_started_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("shared.runtime.worker_process.sys.executable", str(tmp_path / "nothing"))

    with pytest.raises(UnavailableError, match="no process for this test can be started: No such file"):
        await start()
