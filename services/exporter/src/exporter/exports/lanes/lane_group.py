"""The lanes of one export in this process: a worker for each that is stored, and the steps to as many as wanted."""

import asyncio
import zlib
from collections.abc import Iterable
from datetime import datetime
from typing import Final

import structlog
from msgspec.structs import replace

from exporter.exports.job import ExportJob
from exporter.exports.lanes.changes import Lanes, are_settled
from exporter.exports.lanes.lane_store import LaneStore
from exporter.exports.progress_store import UnreadableProgressError
from exporter.exports.run_store import Run, total
from exporter.exports.runner import ExportRunner
from exporter.exports.watching.status import ExportStatus
from exporter.exports.worker import ExportWorker, first_progress_of
from exporter.pipeline.lane import Lane, lanes_of
from shared.errors import ConflictError, MillraceError
from shared.runtime.telemetry import Metrics

log = structlog.get_logger()

CHANGE_S: Final = 1.0
"""The pause between steps of a change, while runs of lanes have to end."""
RETRY_S: Final = 5.0
TURN_S: Final = 0.5
"""
The time by which one lane starts later than the one before it. Each replica has an order of its own, so where two are
idle, each of them begins some of the lanes.
"""
CANCEL_S: Final = 0.2


class LanesReplacedError(ConflictError):
    """Others have taken the place of a lane."""


class LaneGroup:
    """
    The lanes of one export, at the revision of `job`.

    Args:
        tasks: Runs the workers.
    """

    def __init__(
        self, job: ExportJob, lanes: LaneStore, runner: ExportRunner, metrics: Metrics, tasks: asyncio.TaskGroup
    ) -> None:
        self.job = job
        self._lanes = lanes
        self._runner = runner
        self._metrics = metrics
        self._task_group = tasks
        self._workers: dict[Lane, ExportWorker] = {}
        self._tasks: dict[Lane, asyncio.Task[None]] = {}
        self._changed = asyncio.Event()
        self._settled = asyncio.Event()
        self._ended: MillraceError | None = None
        self._task = tasks.create_task(self._run(), name=f"export {job.app_key}.{job.export_id}")

    @property
    def current(self) -> Run | None:
        """The sum of the runs in progress."""
        runs = [worker.current for worker in self._workers.values() if worker.current is not None]
        return total(runs) if runs else None

    @property
    def tasks(self) -> list[asyncio.Task[None]]:
        """Its tasks."""
        return [self._task, *self._tasks.values()]

    async def flush(self) -> Run:
        """
        Run every lane now, or after its run in progress.

        Returns:
            The sum of the runs. They cover all events published before the call.
        """
        while True:
            await self._settled.wait()
            if self._ended is not None:
                raise self._ended
            try:
                runs = await asyncio.gather(*(worker.flush() for worker in self._workers.values()))
            except LanesReplacedError:
                continue
            # Lanes that are replaced end where they were told to.
            if self._settled.is_set():
                return total(runs)

    def cursors(self) -> dict[Lane, int]:
        """The cursors of the lanes, as this process knows them."""
        return {lane: worker.progress_store.cursor for lane, worker in self._workers.items()}

    def nudge(self) -> None:
        """Look for requests to the runs in progress now."""
        for worker in self._workers.values():
            worker.signals.asked.set()

    def wake(self) -> None:
        """End the waits of its lanes, within a run and between two."""
        for worker in self._workers.values():
            worker.signals.wake.set()
            worker.signals.asked.set()

    def statuses(self, now: datetime) -> list[ExportStatus]:
        """The statuses of the lanes, as this process knows them."""
        return [worker.status(now) for worker in self._workers.values()]

    async def follow(self, job: ExportJob) -> None:
        """Go on at another revision: runs in progress are ended, and continued."""
        await cancel([self._task])
        self.job = job
        for lane in list(self._workers):
            await self._restart(lane)
        self._unsettle()
        self._task = self._task_group.create_task(self._run(), name=self._task.get_name())

    def stop(self, error: MillraceError) -> None:
        """Begin no run; runs in progress end after the current file. Flushes get the error."""
        self._end_with(error)
        for worker in self._workers.values():
            worker.signals.stop()

    async def cancel(self, error: MillraceError) -> None:
        """End every run at any point. Flushes get the error."""
        self._end_with(error)
        await cancel([self._task])
        for lane in list(self._workers):
            await self._remove(lane, error)

    def _end_with(self, error: MillraceError) -> None:
        self._ended = error
        for worker in self._workers.values():
            worker.refuse_flushes(error)
        self._settled.set()
        self._changed.set()

    def _unsettle(self) -> None:
        """Note that the lanes which are stored may be others."""
        if self._ended is None:
            self._settled.clear()
        self._changed.set()

    async def _run(self) -> None:
        """Have a worker for each lane that is stored, and go on to as many lanes as are wanted."""
        while self._ended is None:
            self._changed.clear()
            wait_s: float | None = RETRY_S
            try:
                wait_s = await self._follow_stored()
            except MillraceError as error:
                log.warning("lanes_failed", app_key=self.job.app_key, export=self.job.export_id, message=error.message)
            except Exception:
                log.exception("lanes_crashed", app_key=self.job.app_key, export=self.job.export_id)
                self._metrics.count("millrace_bugs_total", where="export")
            try:
                async with asyncio.timeout(wait_s):
                    await self._changed.wait()
            except TimeoutError:
                continue

    async def _follow_stored(self) -> float | None:
        """Returns the seconds until the lanes have to be looked at again, None where a worker will say so."""
        wanted = self.job.shards
        try:
            lanes = await self._lanes.advance(wanted)
            if not lanes:
                # Written by another client of the registry: our route calls `begin` before it stores a configuration.
                dependencies = self._runner.dependencies
                state = await dependencies.source.state()
                first = first_progress_of(self.job, state.last_sequence, dependencies.clock())
                await self._lanes.begin(wanted, first)
                lanes = await self._lanes.load()
        except UnreadableProgressError:
            # The worker of that lane alerts.
            for lane in lanes_of(wanted) if not self._workers else ():
                self._start(lane)
            self._settled.set()
            return RETRY_S
        await self._work_on(lanes)
        if not are_settled(lanes, wanted):
            return CHANGE_S
        self._settled.set()
        return None

    async def _work_on(self, lanes: Lanes) -> None:
        for lane in self._workers.keys() - lanes.keys():
            await self._remove(lane, LanesReplacedError("the lanes of the export were replaced"))
        for lane in lanes.keys() - self._workers.keys():
            self._start(lane)

    def _start(self, lane: Lane, before: ExportWorker | None = None) -> None:
        worker = ExportWorker(
            replace(self.job, lane=lane),
            before.progress_store if before else self._lanes.progress_store(lane),
            self._runner,
            self._metrics,
            delay_s=self._place(lane) * TURN_S,
            on_lanes_changed=self._unsettle,
        )
        worker.flushes = before.flushes if before else []
        if self._ended is not None:
            worker.signals.stop()
            worker.refuse_flushes(self._ended)
        self._workers[lane] = worker
        name = f"export {self.job.app_key}.{self.job.export_id} {lane.shard} of {lane.shards}"
        self._tasks[lane] = self._task_group.create_task(worker.run(), name=name)

    async def _restart(self, lane: Lane) -> None:
        """A worker at the present revision in the place of another: its plan is stored, so it continues."""
        await cancel([self._tasks[lane]])
        self._start(lane, before=self._workers[lane])

    async def _remove(self, lane: Lane, error: MillraceError) -> None:
        await cancel([self._tasks[lane]])
        worker = self._workers.pop(lane)
        del self._tasks[lane]
        self._runner.remove_lag(worker.job)
        worker.refuse_flushes(error)

    def _place(self, lane: Lane) -> int:
        """The place of a lane in this replica's order."""

        def mark(one: Lane) -> int:
            return zlib.crc32(f"{self._runner.owner} {self.job.export_id} {one.shard}".encode())

        return sorted(lanes_of(lane.shards), key=mark).index(lane)


async def cancel(tasks: Iterable[asyncio.Task[None]]) -> None:
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
