"""Uploads wait for memory in their order, and each is admitted."""

import asyncio

from exporter.pipeline.memory_budget import MemoryBudget


async def settle() -> None:
    """Let every task run until it waits."""
    for _ in range(10):
        await asyncio.sleep(0)


class Upload:
    """A task that holds its bytes until `end`."""

    def __init__(self, tasks: asyncio.TaskGroup, budget: MemoryBudget, size_bytes: int) -> None:
        self.running = False
        self._done = asyncio.Event()
        self.task = tasks.create_task(self._hold(budget, size_bytes))

    async def _hold(self, budget: MemoryBudget, size_bytes: int) -> None:
        async with budget.hold(size_bytes):
            self.running = True
            await self._done.wait()
        self.running = False

    async def end(self) -> None:
        self._done.set()
        await settle()


async def test_uploads_run_concurrently_within_the_budget() -> None:
    async with asyncio.TaskGroup() as tasks:
        budget = MemoryBudget(100)
        uploads = [Upload(tasks, budget, 50) for _ in range(3)]
        await settle()

        assert [True, True, False] == [upload.running for upload in uploads]

        await uploads[0].end()
        assert uploads[2].running
        for upload in uploads:
            await upload.end()


async def test_small_uploads_do_not_overtake_a_large_one() -> None:
    async with asyncio.TaskGroup() as tasks:
        budget = MemoryBudget(100)
        first, large, small = (Upload(tasks, budget, size) for size in (60, 90, 10))
        await settle()

        assert [False, False] == [large.running, small.running]

        await first.end()
        assert [True, True] == [large.running, small.running]
        for upload in (large, small):
            await upload.end()


async def test_upload_larger_than_the_budget_runs_alone() -> None:
    async with asyncio.TaskGroup() as tasks:
        budget = MemoryBudget(100)
        huge = Upload(tasks, budget, 1000)
        small = Upload(tasks, budget, 1)
        await settle()

        assert [True, False] == [huge.running, small.running]
        await huge.end()
        await small.end()


async def test_memory_is_released_when_a_waiting_upload_is_cancelled() -> None:
    async with asyncio.TaskGroup() as tasks:
        budget = MemoryBudget(100)
        first, waiting, last = (Upload(tasks, budget, size) for size in (60, 90, 40))
        await settle()

        waiting.task.cancel()
        await settle()

        assert last.running
        await first.end()
        await last.end()


async def test_memory_is_released_when_an_upload_is_cancelled_as_it_is_admitted() -> None:
    async with asyncio.TaskGroup() as tasks:
        budget = MemoryBudget(100)
        first, waiting = (Upload(tasks, budget, 100) for _ in range(2))
        await settle()

        first._done.set()
        await asyncio.sleep(0)
        waiting.task.cancel()
        await settle()
        last = Upload(tasks, budget, 100)
        await settle()

        assert last.running
        await last.end()
