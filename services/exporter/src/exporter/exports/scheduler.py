"""
The workers of all exports: one for each lane of an active export, so that no export waits for another.

`ExportScheduler` starts and ends workers as the configuration changes, and erases the progress of deleted exports.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial

import structlog
from msgspec.structs import replace

from exporter.exports.failures.failure import ExportFailure, woken
from exporter.exports.job import ExportJob
from exporter.exports.lanes.lane_group import LaneGroup
from exporter.exports.lanes.lane_store import LaneStore
from exporter.exports.progress import ExportProgress
from exporter.exports.progress_store import ClaimedElsewhereError, ProgressStore, UnreadableProgressError
from exporter.exports.run_store import Run
from exporter.exports.runner import ExportRunner
from exporter.exports.runs.lag import LaneKey
from exporter.exports.schedule import Schedule
from exporter.exports.watching.status import STATES, ExportStatus, status_of, worst_of
from exporter.exports.worker import Key, first_progress
from exporter.pipeline.lane import Shards
from shared.contracts.keys import EVERY_EXPORT_PROGRESS, parse_export_progress_key
from shared.errors import BusyError, ConflictError, NotFoundError
from shared.messaging.kv import KeyValueStore
from shared.runtime.reconciler import Reconciler
from shared.runtime.telemetry import Metrics, Reading

log = structlog.get_logger()

WAKE_TRIES = 5
"""Attempts to write a wake while another process writes."""


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
        self._groups: dict[Key, LaneGroup] = {}
        self._followed = asyncio.Condition()
        metrics.read(self.readings)

    def changed(self) -> None:
        """Follow the configuration, which has changed."""
        self._reconciler.changed()

    def close(self) -> None:
        """Begin no run; runs in progress end after the current file."""
        self._reconciler.close()
        for group in self._groups.values():
            group.stop(BusyError("the service stops", retry_after_s=5))

    async def join(self) -> None:
        """Wait for the runs in progress."""
        if tasks := [task for group in self._groups.values() for task in group.tasks]:
            await asyncio.wait(tasks)

    async def run(self) -> None:
        """Follow the configuration, for the life of the service."""

        async def follow(jobs: Mapping[Key, ExportJob]) -> None:
            await self._follow(jobs, tasks)

        async with asyncio.TaskGroup() as tasks:
            try:
                await self._reconciler.run(follow)
                await self.join()
            except asyncio.CancelledError:
                for group in self._groups.values():
                    await group.cancel(BusyError("the service stops", retry_after_s=5))
                raise

    async def _follow(self, jobs: Mapping[Key, ExportJob], tasks: asyncio.TaskGroup) -> None:
        """Run the lanes of each job, at its revision."""
        for key, group in list(self._groups.items()):
            job = jobs.get(key)
            if job is None:
                del self._groups[key]
                await group.cancel(ConflictError("the export is not active"))
            elif job.revision != group.job.revision:
                await group.follow(job)
        for key in set() if self._reconciler.closing else jobs.keys() - self._groups.keys():
            self._groups[key] = LaneGroup(jobs[key], self._lanes(key), self._runner, self._metrics, tasks)
        async with self._followed:
            self._followed.notify_all()

    async def begin(self, key: Key, schedule: Schedule, shards: Shards = 1) -> None:
        """Store the first progress of an export, at the next event. An export that has progress keeps it."""
        state = await self._runner.dependencies.source.state()
        await self._lanes(key).begin(
            shards, first_progress(schedule, state.last_sequence, self._runner.dependencies.clock())
        )

    async def flush(self, key: Key, revision: int, wait_s: float) -> Run:
        """
        Run an export now, at this revision of its configuration or a later one.

        Returns:
            The record of the run; of a run in progress when it is not done within `wait_s`. Where the export has
            several lanes, the sum of their runs.

        Raises:
            BusyError: No run has begun within `wait_s`.
            ConflictError: The export was deleted or made inactive meanwhile.
        """
        group: LaneGroup | None = None
        try:
            async with asyncio.timeout(wait_s):
                group = await self._group(key, revision)
                return await group.flush()
        except TimeoutError:
            if group is not None and group.current is not None:
                return group.current
            raise BusyError("the export could not be run yet", retry_after_s=5) from None

    def cursors(self) -> dict[LaneKey, int]:
        """The cursors of the lanes of exports, as this process knows them."""
        return {(*key, lane): cursor for key, group in self._groups.items() for lane, cursor in group.cursors().items()}

    def nudge(self, app_key: str, export_id: str) -> None:
        """Look for requests to the runs of an export now, where they are of this process."""
        if group := self._groups.get((app_key, export_id)):
            group.nudge()

    async def wake(self, key: Key) -> None:
        """
        Let a failing export try now, whichever processes work on it: its customer has mended something.

        Raises:
            UnavailableError: NATS does not answer.
        """
        lanes = self._lanes(key)
        for lane in await lanes.load():
            await self._wake_lane(key, lanes.progress_store(lane))
        if group := self._groups.get(key):
            group.wake()

    async def _wake_lane(self, key: Key, progress_store: ProgressStore) -> None:
        for _ in range(WAKE_TRIES):
            failing = progress_store.progress.failing if await progress_store.load() else None
            if failing is None:
                return
            if claim := progress_store.progress.claim:
                # A run is in progress, and may wait between two attempts.
                run_store = self._runner.dependencies.run_store
                with suppress(NotFoundError):
                    await run_store.request(await run_store.get(*key, claim.run_id), "retry")
                return
            with suppress(ClaimedElsewhereError):
                after = woken(failing, self._runner.dependencies.clock())
                await progress_store.change(partial(_with_failing, failing=after))
                return

    def readings(self) -> list[Reading]:
        """The metrics of states, as this process knows them: it looks at each export every few seconds."""
        now = self._runner.dependencies.clock()
        states = dict.fromkeys(STATES, 0)
        used = 0.0
        for group in self._groups.values():
            status = worst_of(group.statuses(now))
            states[status.state] += 1
            used = max(used, status.used_percent or 0.0)
        counts: list[Reading] = [("millrace_exports", (state,), count) for state, count in states.items()]
        return [*counts, ("millrace_export_used_percent", (), used)]

    async def statuses(self, app_key: str, export_ids: Sequence[str]) -> dict[str, ExportStatus]:
        """
        The statuses of an app's exports by id, each that of its worst lane. One whose progress is absent, or cannot be
        read, has none.

        Raises:
            UnavailableError: NATS does not answer.
        """
        now = self._runner.dependencies.clock()
        found: dict[str, ExportStatus] = {}
        for export_id in export_ids:
            with suppress(UnreadableProgressError):
                if lanes := await self._lanes((app_key, export_id)).load():
                    found[export_id] = worst_of([status_of(progress, now) for progress in lanes.values()])
        return found

    async def _group(self, key: Key, revision: int) -> LaneGroup:
        async with self._followed:
            while True:
                if self._reconciler.closing:
                    raise BusyError("the service stops", retry_after_s=5)
                # Another replica may have accepted the configuration, and our copy of it is a moment behind.
                group = self._groups.get(key)
                if group is not None and group.job.revision >= revision:
                    return group
                await self._followed.wait()

    def _lanes(self, key: Key) -> LaneStore:
        return LaneStore(self._plans, *key)

    async def _stored_keys(self) -> set[Key]:
        """Return the key of every export that has progress, configured or not."""
        return {parse_export_progress_key(stored.key) for stored in await self._plans.scan(EVERY_EXPORT_PROGRESS)}

    async def _erase_if_deleted(self, key: Key) -> bool:
        """Erase the progress of a deleted export. An inactive one keeps its cursor."""
        if not await self._is_deleted(key):
            return False
        await self._lanes(key).erase()
        log.info("export_erased", app_key=key[0], export=key[1])
        return True


def _with_failing(progress: ExportProgress, failing: ExportFailure) -> ExportProgress:
    return replace(progress, failing=failing)
