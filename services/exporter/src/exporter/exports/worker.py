"""
The worker of one lane of an export: a task that runs it when a run is due, requested, or left unfinished. One run at a
time.

A failing export is tried when its next attempt is due, and not by its schedule. One that is not in use has its
destination probed every 15 minutes.
"""

import asyncio
import zlib
from collections.abc import Callable
from datetime import datetime, timedelta
from math import inf

import structlog

from exporter.exports.failures.failure import due_in_s, is_due
from exporter.exports.job import ExportJob
from exporter.exports.progress import ExportProgress, Trigger, may_claim
from exporter.exports.progress_store import ClaimedElsewhereError, ProgressStore, UnreadableProgressError
from exporter.exports.retry_budget import Signals
from exporter.exports.run_store import Run
from exporter.exports.runner import ExportRunner
from exporter.exports.schedule import EPOCH, Schedule
from exporter.exports.watching.probe import PROBE_EVERY_S
from exporter.exports.watching.status import ExportStatus, status_of
from shared.errors import MillraceError
from shared.runtime.retry import Backoff
from shared.runtime.telemetry import Metrics

log = structlog.get_logger()

CLAIMED_RETRY_S = 2.0
"""The pause before the next attempt to claim an export that another process works on."""

Key = tuple[str, str]
"""The key of an app and the id of an export."""

LOOK_S = 5.0
"""The longest sleep: the run of a process that has died is continued soon after its claim ends."""
BACKOFF = Backoff(first_s=0.5, max_s=60.0)


class ExportWorker:
    """
    Runs one lane of an export, at one revision of its configuration.

    Args:
        delay_s: The time after its slot at which a run begins.
        on_lanes_changed: Called when the lane is not stored any more, or is told to end.
    """

    def __init__(
        self,
        job: ExportJob,
        progress_store: ProgressStore,
        runner: ExportRunner,
        metrics: Metrics,
        *,
        delay_s: float,
        on_lanes_changed: Callable[[], None],
    ) -> None:
        self.job = job
        self.flushes: list[asyncio.Future[Run]] = []
        """Callers of `flush` that wait for a run which begins after their call."""
        self.current: Run | None = None
        self.signals = Signals()
        self.progress_store = progress_store
        self._runner = runner
        self._metrics = metrics
        self._delay_s = delay_s
        self._on_lanes_changed = on_lanes_changed
        self._unreadable = False
        self._done = False
        self._has_run = False
        self._is_known = False
        self._began_at: datetime | None = None

    async def flush(self) -> Run:
        """Run now, or after the run in progress. Returns its record; it covers all events published before the call."""
        flush: asyncio.Future[Run] = asyncio.get_running_loop().create_future()
        self.flushes.append(flush)
        self.signals.wake.set()
        return await flush

    def status(self, now: datetime) -> ExportStatus:
        """The status of the export, as it was when this process last looked."""
        return status_of(self.progress_store.progress, now) if self._is_known else ExportStatus(state="active")

    async def run(self) -> None:
        """Run the export whenever there is a reason to. Ends when the service stops, or a replay is done."""
        delays = BACKOFF.delays()
        while not self.signals.stopping and not self._done:
            try:
                wait_s = await self.run_if_due()
                delays = BACKOFF.delays()
            except ClaimedElsewhereError:
                wait_s = CLAIMED_RETRY_S
            except MillraceError as error:
                wait_s = next(delays)
                if isinstance(error, UnreadableProgressError) and not self._unreadable:
                    self._unreadable = True
                    await self._runner.alert_unreadable(self.job, error)
                log.warning("worker_failed", app_key=self.job.app_key, export=self.job.export_id, message=error.message)
                if not error.retryable:
                    self.refuse_flushes(error)
            except Exception:
                wait_s = next(delays)
                log.exception("worker_crashed", app_key=self.job.app_key, export=self.job.export_id)
                self._metrics.count("millrace_bugs_total", where="export")
            await self._sleep(wait_s)

    async def run_if_due(self) -> float:
        """Run or probe the export if there is a reason to. Returns the seconds until there may be one."""
        now = self._runner.dependencies.clock()
        self.flushes = [flush for flush in self.flushes if not flush.done()]
        if not await self.progress_store.load():
            self._on_lanes_changed()
            return LOOK_S
        self._unreadable = False
        self._is_known = True
        progress = self.progress_store.progress
        if self.job.is_done(progress):
            self._done = True
            return 0.0
        slot_at = self.job.schedule.due(now, progress.slot_at)
        free = may_claim(progress, self._runner.owner, now)
        unfinished = progress.claim is not None and free
        if progress.until is not None:
            self._on_lanes_changed()
            unfinished = unfinished or (progress.passed < progress.until and progress.failing is None)
        # What another process has left of a replay does not wait for a slot.
        unfinished = unfinished or (self.job.span is not None and not self._has_run and free)
        if slot_at and not unfinished and not self.flushes and progress.failing is None:
            # Another replica may begin it meanwhile; then our claim fails.
            await self._sleep(self._delay_s)
        if self.signals.stopping:
            return 0.0
        failing = progress.failing
        if unfinished or self.flushes:
            await self._run_now("manual" if self.flushes else "schedule", slot_at)
            return 0.0
        if free and progress.alerts:
            await self._runner.failures.tell(self.progress_store)
        if failing is not None:
            wait_s = 0.0 if is_due(failing, self.job.revision, now) else due_in_s(failing, now)
            is_probed = failing.kind == "probe" and slot_at is None
        else:
            run_s = self.job.schedule.wait_s(now, progress.slot_at)
            probe_s = self._probe_in_s(progress, now)
            wait_s, is_probed = min(run_s, probe_s), probe_s < run_s
        if wait_s > 0 or not free:
            return min(max(wait_s, CLAIMED_RETRY_S if not free else 0.0), LOOK_S)
        if is_probed:
            await self._runner.failures.probe(self.job, self.progress_store)
        else:
            await self._run_now("schedule", slot_at)
        return 0.0

    def _probe_in_s(self, progress: ExportProgress, now: datetime) -> float:
        """Seconds until a destination that is not in use is probed; the platform's own and those of replays are not."""
        if self.job.operator == "platform" or self.job.span is not None:
            return inf
        if self._began_at is None or self._began_at > now:
            self._began_at = now
        # What a release before stored is not known to be checked. Those exports are not probed all at once.
        spread_s = PROBE_EVERY_S * zlib.crc32(f"{self.job.app_key}.{self.job.export_id}".encode()) / (1 << 32)
        checked_at = progress.checked_at or self._began_at - timedelta(seconds=PROBE_EVERY_S - spread_s)
        return max(0.0, PROBE_EVERY_S - max(0.0, (now - checked_at).total_seconds()))

    async def _run_now(self, trigger: Trigger, slot_at: datetime | None) -> None:
        serving, self.flushes = self.flushes, []
        try:
            run = await self._runner.run(
                self.job,
                self.progress_store,
                trigger=trigger,
                signals=self.signals,
                slot_at=slot_at,
                on_start=self._on_start,
            )
        except BaseException:
            # The next run serves them: ours, or that of the worker which succeeds this one.
            self.flushes = serving + self.flushes
            raise
        finally:
            self.current = None
        self._has_run = True
        for flush in serving:
            if not flush.done():
                flush.set_result(run)

    def refuse_flushes(self, error: MillraceError) -> None:
        """Fail the callers of `flush`."""
        for flush in self.flushes:
            if not flush.done():
                flush.set_exception(error)

    def _on_start(self, run: Run) -> None:
        self.current = run

    async def _sleep(self, wait_s: float) -> None:
        if self.signals.stopping or wait_s <= 0:
            return
        try:
            async with asyncio.timeout(wait_s):
                await self.signals.wake.wait()
        except TimeoutError:
            return
        self.signals.wake.clear()


def first_progress(schedule: Schedule, last_sequence: int, now: datetime) -> ExportProgress:
    """The progress of a new export: it begins after event `last_sequence` and with the next slot."""
    return ExportProgress(cursor=last_sequence, slot_at=schedule.slot(now))


def first_progress_of(job: ExportJob, last_sequence: int, now: datetime) -> ExportProgress:
    """The progress that a job begins with: a replay is due at once, and begins with the first of its events."""
    if job.span is not None:
        return ExportProgress(cursor=job.span.first_sequence - 1, slot_at=EPOCH)
    return first_progress(job.schedule, last_sequence, now)
