"""Files are read by other processes, which come and go without the service's harm."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import psutil
import pytest

from ftp_gateway.model.rules import FileRules
from ftp_gateway.parsing.worker_pool import ParserPool
from shared.contracts.messages import ProfileBatch, PushBatch, decode
from shared.errors import UnavailableError
from support.waiting import until

PUSH = b"".join(b"%d;Hello;https://x.example\n" % number for number in range(1, 1301))


async def nobody(app_key: str, ext_ids: Sequence[str]) -> set[str]:
    return set(ext_ids) - {"2"}


def workers() -> list[psutil.Process]:
    """The processes that read files for this one."""
    children = psutil.Process().children()
    return [child for child in children if "ftp_gateway.parsing.worker" in child.cmdline()]


@pytest.fixture
def push(tmp_path: Path) -> Path:
    file = tmp_path / "push"
    file.write_bytes(PUSH)
    return file


async def test_a_file_is_validated_and_comes_in_chunks(push: Path) -> None:
    async with ParserPool(nobody) as work, work.open(push, "shop", "push", FileRules()) as file:
        validation = await file.validate()
        chunks = [chunk async for chunk in file.chunks("push.csv", after=500)]

    assert (1300, 0, 1300) == (validation.ok, validation.bad, validation.last_line)
    assert [(501, 1000), (1001, 1300)] == [(chunk.first_line, chunk.last_line) for chunk in chunks]
    assert list(range(501, 1301)) == [row.line for chunk in chunks for row in decode(chunk.data, PushBatch).rows]


async def test_unknown_users_are_queried(tmp_path: Path) -> None:
    file = tmp_path / "profiles"
    file.write_bytes(b"~~~n\n1~~~1\n2~~~2\n")
    async with (
        ParserPool(nobody) as work,
        work.open(file, "shop", "profile", FileRules(unknown_users="reject")) as opened,
    ):
        validation = await opened.validate()
        [chunk] = [chunk async for chunk in opened.chunks("p.txt", after=0)]

    assert (1, ["unknown_user"]) == (validation.ok, [error.code for error in validation.errors])
    assert ["2"] == [row.ext_id for row in decode(chunk.data, ProfileBatch).rows]


async def test_one_process_is_kept_and_ends_with_the_service(push: Path) -> None:
    async with ParserPool(nobody) as work:
        seen = set[int]()
        for _ in range(3):
            async with work.open(push, "shop", "push", FileRules()) as file:
                await file.validate()
                seen |= {worker.pid for worker in workers()}
        async with work.open(push, "shop", "push", FileRules()), work.open(push, "shop", "push", FileRules()):
            together = len(workers())
        left = len(workers())

    assert (1, 2, 1) == (len(seen), together, left)
    assert [] == workers()


async def test_a_file_that_is_left_in_the_middle_ends_its_process(push: Path) -> None:
    async with ParserPool(nobody) as work:

        async def leave() -> None:
            async with work.open(push, "shop", "push", FileRules()) as file:
                await file.validate()
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            await leave()
        assert [] == workers()
        async with work.open(push, "shop", "push", FileRules()) as file:
            assert 1300 == (await file.validate()).ok


async def test_a_file_is_abandoned_while_its_process_waits_to_be_read(tmp_path: Path) -> None:
    file = tmp_path / "push"
    file.write_bytes(b"1;Hello;https://x.example\n" * 200_000)

    async def leave(work: ParserPool) -> None:
        async with work.open(file, "shop", "push", FileRules()) as opened:
            await opened.validate()
            chunks = opened.chunks("push.csv", after=0)
            await anext(chunks)
            answers = opened._process._output
            await until(lambda: answers._paused)  # type: ignore[attr-defined]
            raise ZeroDivisionError

    async with ParserPool(nobody) as work:
        with pytest.raises(ZeroDivisionError):
            async with asyncio.timeout(20):
                await leave(work)
        assert [] == workers()


async def test_a_process_that_dies_is_reported_and_replaced(push: Path) -> None:
    async with ParserPool(nobody) as work:

        async def die() -> None:
            async with work.open(push, "shop", "push", FileRules()) as file:
                await file.validate()
                for worker in workers():
                    worker.kill()
                async for _ in file.chunks("push.csv", after=0):
                    pass

        with pytest.raises(UnavailableError, match="ended"):
            await die()
        async with work.open(push, "shop", "push", FileRules()) as file:
            assert 1300 == (await file.validate()).ok


async def test_process_knows_no_secret(push: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MILLRACE_SECRET_KEYS", "a secret")
    async with ParserPool(nobody) as work, work.open(push, "shop", "push", FileRules()):
        (worker,) = workers()

        assert not [name for name in worker.environ() if name.startswith("MILLRACE_")]
