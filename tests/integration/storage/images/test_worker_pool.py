"""Images are decoded in worker processes, behind a queue that raises `BusyError` instead of growing."""

import asyncio
import os
import signal
from pathlib import Path

import psutil
import pytest

from shared.errors import BusyError, InvalidError, TooLargeError
from storage.content.body import body_of
from storage.images.worker_pool import ImageProcessPool
from support.waiting import until

PHOTO = body_of((Path(__file__).parents[4] / "demo" / "photo.jpg").read_bytes())
SIDES = (320, 64)


def workers() -> list[psutil.Process]:
    """Return the worker processes of this one."""
    children = psutil.Process().children()
    return [child for child in children if "storage.images.worker" in child.cmdline()]


async def test_image_is_returned_with_its_thumbnails() -> None:
    async with ImageProcessPool() as work:
        picture = await work.inspect("acme", PHOTO, sides_px=SIDES)

    assert (640, 427) == (picture.width, picture.height)
    assert [(320, 214), (64, 43)] == [(small.width, small.height) for small in picture.thumbnails]
    assert ["image/jpeg"] * 2 == [small.type.name for small in picture.thumbnails]


async def test_error_of_an_image_is_raised() -> None:
    async with ImageProcessPool(processes=1) as work:
        with pytest.raises(InvalidError, match="damaged"):
            await work.inspect("acme", body_of(PHOTO.read()[:5000]), sides_px=SIDES)
        assert 640 == (await work.inspect("acme", PHOTO, sides_px=SIDES)).width
        assert 1 == len(workers())


async def test_processes_start_with_the_first_image_and_end_with_the_service() -> None:
    async with ImageProcessPool(processes=2) as work:
        assert [] == workers()
        await asyncio.gather(*(work.inspect("acme", PHOTO, sides_px=SIDES) for _ in range(5)))
        assert 2 == len(workers())

    assert [] == workers()


async def test_process_has_no_secret_in_its_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MILLRACE_SECRET_KEYS", "a secret")
    async with ImageProcessPool(processes=1) as work:
        await work.inspect("acme", PHOTO, sides_px=SIDES)
        (worker,) = workers()

        assert not [name for name in worker.environ() if name.startswith("MILLRACE_")]


async def test_full_queue_is_busy_until_an_image_is_done() -> None:
    async with ImageProcessPool(processes=1, waiting=1) as work, asyncio.TaskGroup() as group:
        tasks = [group.create_task(work.inspect("acme", PHOTO, sides_px=SIDES)) for _ in range(2)]
        await asyncio.sleep(0)

        with pytest.raises(BusyError) as raised:
            await work.inspect("acme", PHOTO, sides_px=SIDES)
        await asyncio.gather(*tasks)

        assert raised.value.retry_after_s is not None
        assert await work.inspect("acme", PHOTO, sides_px=SIDES)


async def stopped(work: ImageProcessPool) -> psutil.Process:
    """Stop the only process of the pool, so that it replies to nothing."""
    await work.inspect("acme", PHOTO, sides_px=SIDES)
    (worker,) = workers()
    worker.send_signal(signal.SIGSTOP)
    return worker


async def test_images_of_one_app_delay_no_other_app() -> None:
    async with ImageProcessPool(processes=1, waiting=2) as work:
        await stopped(work)
        slow = [asyncio.create_task(work.inspect("slow", PHOTO, sides_px=SIDES)) for _ in range(3)]
        await until(lambda: not work._idle)

        assert 640 == (await work.inspect("other", PHOTO, sides_px=SIDES)).width
        assert 640 == (await work.inspect("other", PHOTO, sides_px=SIDES)).width
        with pytest.raises(BusyError):
            await work.inspect("slow", PHOTO, sides_px=SIDES)
        assert not any(task.done() for task in slow)
        for task in slow:
            task.cancel()
        await asyncio.gather(*slow, return_exceptions=True)


async def test_image_that_takes_too_long_is_refused_and_the_next_one_has_a_new_process() -> None:
    async with ImageProcessPool(processes=1, timeout_s=5) as work:
        worker = await stopped(work)
        work._timeout_s = 0.1

        with pytest.raises(TooLargeError, match=r"took more than 0\.1 s"):
            await work.inspect("acme", PHOTO, sides_px=SIDES)

        work._timeout_s = 5
        assert not worker.is_running()
        assert 640 == (await work.inspect("acme", PHOTO, sides_px=SIDES)).width


async def test_cancelled_caller_frees_its_slot_at_once() -> None:
    async with ImageProcessPool(processes=1, waiting=0) as work:
        worker = await stopped(work)
        task = asyncio.create_task(work.inspect("acme", PHOTO, sides_px=SIDES))
        await until(lambda: not work._idle)

        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

        assert not worker.is_running()
        assert 640 == (await work.inspect("acme", PHOTO, sides_px=SIDES)).width


async def test_image_that_kills_its_process_is_refused_and_the_next_one_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with ImageProcessPool(processes=1) as work:
        with monkeypatch.context() as patched:
            patched.setattr("shared.runtime.worker_process.sys.executable", "/bin/false")
            with pytest.raises(InvalidError, match="made its decoder fail"):
                await work.inspect("acme", PHOTO, sides_px=SIDES)

        assert 640 == (await work.inspect("acme", PHOTO, sides_px=SIDES)).width


async def test_process_that_died_while_it_waited_is_replaced() -> None:
    async with ImageProcessPool(processes=1) as work:
        await work.inspect("acme", PHOTO, sides_px=SIDES)
        (worker,) = workers()
        os.kill(worker.pid, signal.SIGKILL)

        assert 640 == (await work.inspect("acme", PHOTO, sides_px=SIDES)).width
