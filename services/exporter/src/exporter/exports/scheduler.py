"""
The workers of all exports: one for each active export, so that no export waits for another.

`ExportScheduler` starts and ends workers as the configuration changes, and erases the progress of deleted exports.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping

import structlog

from exporter.exports.job import ExportJob
from exporter.exports.progress_store import ProgressStore
from exporter.exports.run_store import Run
from exporter.exports.runner import ExportRunner
from exporter.exports.schedule import Schedule
from exporter.exports.worker import ExportWorker, Key, first_progress
from shared.contracts.keys import export_progress_key, parse_export_progress_key
from shared.errors import BusyError, ConflictError
from shared.messaging.kv import KeyValueStore
from shared.runtime.reconciler import Reconciler
from shared.runtime.telemetry import Metrics

log = structlog.get_logger()

CANCEL_S = 0.2


class ExportScheduler:
    """
    The export workers of this process. Satisfies `shared.service.Intake`.

    Args:
        jobs: Returns the active exports by key.
        is_deleted: Returns True when an export is certainly deleted; then its progress is erased.
    """

    def __init__(
        self,
        *,
        runner: ExportRunner,
        plans: KeyValueStore,
        metrics: Metrics,
        jobs: Callable[[], Mapping[Key, ExportJob]],
        is_deleted: Callable[[Key], Awaitable[bool]],
    ) -> None:
        self._runner = runner
        self._plans = plans
        self._metrics = metrics
        self._is_deleted = is_deleted
        self._reconciler = Reconciler(
            "export", jobs=jobs, stored_keys=self._stored_keys, erase_if_deleted=self._erase_if_deleted
        )
        self._workers: dict[Key, ExportWorker] = {}
        self._tasks: dict[Key, asyncio.Task[None]] = {}
        self._followed = asyncio.Condition()

    def changed(self) -> None:
        """Follow the configuration, which has changed."""
        self._reconciler.changed()

    def close(self) -> None:
        """Begin no run; runs in progress end after the current file."""
        self._reconciler.close()
        for worker in self._workers.values():
            worker.signals.stop()
            for flush in worker.flushes:
                if not flush.done():
                    flush.set_exception(BusyError("the service stops", retry_after_s=5))

    async def join(self) -> None:
        """Wait for the runs in progress."""
        if self._tasks:
            await asyncio.wait(self._tasks.values())

    async def run(self) -> None:
        """Follow the configuration, for the life of the service."""

        async def follow(jobs: Mapping[Key, ExportJob]) -> None:
            await self._follow(jobs, tasks)

        async with asyncio.TaskGroup() as tasks:
            try:
                await self._reconciler.run(follow)
                await self.join()
            except asyncio.CancelledError:
                await _cancel(self._tasks.values())
                raise

    async def _follow(self, jobs: Mapping[Key, ExportJob], tasks: asyncio.TaskGroup) -> None:
        """Run one worker for each job, at its revision."""
        for key, worker in list(self._workers.items()):
            job = jobs.get(key)
            if job is None or job.revision != worker.job.revision:
                await self._end(key, job, tasks)
        for key in jobs.keys() - self._workers.keys():
            worker = ExportWorker(jobs[key], self._progress_store(key), self._runner, self._metrics)
            self._begin(key, worker, tasks)
        async with self._followed:
            self._followed.notify_all()

    async def begin(self, key: Key, schedule: Schedule) -> None:
        """Store the first progress of an export, at the next event. An export that has progress keeps it."""
        state = await self._runner.dependencies.source.state()
        await self._progress_store(key).begin(
            first_progress(schedule, state.last_sequence, self._runner.dependencies.clock())
        )

    async def flush(self, key: Key, revision: int, wait_s: float) -> Run:
        """
        Run an export now, at this revision of its configuration or a later one.

        Returns:
            The record of the run; of a run in progress when it is not done within `wait_s`.

        Raises:
            BusyError: No run has begun within `wait_s`.
            ConflictError: The export was deleted or made inactive meanwhile.
        """
        worker: ExportWorker | None = None
        try:
            async with asyncio.timeout(wait_s):
                worker = await self._worker(key, revision)
                return await worker.flush()
        except TimeoutError:
            if worker is not None and worker.current is not None:
                return worker.current
            raise BusyError("the export could not be run yet", retry_after_s=5) from None

    def cursors(self) -> dict[Key, int]:
        """The cursors of the exports, as this process knows them."""
        return {key: worker.progress_store.cursor for key, worker in self._workers.items()}

    def nudge(self, app_key: str, export_id: str) -> None:
        """Look for requests to the run of an export now, if it is one of this process."""
        if worker := self._workers.get((app_key, export_id)):
            worker.signals.asked.set()

    async def _worker(self, key: Key, revision: int) -> ExportWorker:
        async with self._followed:
            while True:
                if self._reconciler.closing:
                    raise BusyError("the service stops", retry_after_s=5)
                # Another replica may have accepted the configuration, and our copy of it is a moment behind.
                worker = self._workers.get(key)
                if worker is not None and worker.job.revision >= revision:
                    return worker
                await self._followed.wait()

    def _progress_store(self, key: Key) -> ProgressStore:
        return ProgressStore(self._plans, export_progress_key(*key))

    def _begin(self, key: Key, worker: ExportWorker, tasks: asyncio.TaskGroup) -> None:
        self._workers[key] = worker
        self._tasks[key] = tasks.create_task(worker.run(), name=f"export {'.'.join(key)}")

    async def _end(self, key: Key, successor: ExportJob | None, tasks: asyncio.TaskGroup) -> None:
        """End a worker at any point: its plan is stored, so the next worker continues."""
        worker, task = self._workers.pop(key), self._tasks.pop(key)
        await _cancel([task])
        self._runner.remove_lag(*key)
        if successor is not None:
            following = ExportWorker(successor, worker.progress_store, self._runner, self._metrics)
            following.flushes = worker.flushes
            self._begin(key, following, tasks)
            return
        for flush in worker.flushes:
            if not flush.done():
                flush.set_exception(ConflictError("the export is not active"))

    async def _stored_keys(self) -> set[Key]:
        """Return the key of every export that has progress, configured or not."""
        return {parse_export_progress_key(stored.key) for stored in await self._plans.scan("*.*")}

    async def _erase_if_deleted(self, key: Key) -> bool:
        """Erase the progress of a deleted export. An inactive one keeps its cursor."""
        if not await self._is_deleted(key):
            return False
        await self._progress_store(key).erase()
        log.info("export_erased", app_key=key[0], export=key[1])
        return True


async def _cancel(tasks: Iterable[asyncio.Task[None]]) -> None:
    """
    Cancel tasks until they have ended.

    Cancelled repeatedly: before Python 3.12, `asyncio.wait_for` loses a cancellation that comes together with the
    result it waits for (python/cpython#86296), and libraries of destinations use it.
    """
    remaining = set(tasks)
    while remaining:
        for task in remaining:
            task.cancel()
        _, remaining = await asyncio.wait(remaining, timeout=CANCEL_S)
