"""Slow work runs in threads, behind a queue that says "busy" instead of growing."""

import asyncio
import threading

import pytest

from shared.errors import BusyError, InvalidError
from storage.image_work import ImageWork


async def test_work_runs_in_another_thread() -> None:
    async with ImageWork(threads=1) as work:
        name = await work.run(lambda: threading.current_thread().name)

    assert name.startswith("images")


async def test_errors_of_the_work_pass_through() -> None:
    def fail() -> None:
        raise InvalidError("no")

    async with ImageWork(threads=1) as work:
        with pytest.raises(InvalidError, match="no"):
            await work.run(fail)


async def test_full_queue_is_busy_until_work_is_done() -> None:
    go = threading.Event()
    async with ImageWork(threads=1, waiting=1) as work, asyncio.TaskGroup() as group:
        tasks = [group.create_task(work.run(go.wait, 5)) for _ in range(2)]
        await asyncio.sleep(0)

        with pytest.raises(BusyError) as raised:
            await work.run(go.wait, 5)
        go.set()
        await asyncio.gather(*tasks)

        assert raised.value.retry_after_s is not None
        assert await work.run(go.wait, 5)


async def test_caller_that_leaves_does_not_make_room_before_its_work_is_done() -> None:
    go = threading.Event()
    begun = threading.Event()

    def wait() -> None:
        begun.set()
        go.wait(5)

    async with ImageWork(threads=1, waiting=0) as work:
        task = asyncio.ensure_future(work.run(wait))
        await asyncio.to_thread(begun.wait, 5)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

        with pytest.raises(BusyError):
            await work.run(wait)
        go.set()
