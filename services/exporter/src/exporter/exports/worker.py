"""
The worker of one export: a task that begins the runs that are due, one after the other.
"""

import asyncio
from datetime import datetime

import structlog

from exporter.exports.job import ExportJob
from exporter.exports.progress import ExportProgress, Trigger
from exporter.exports.progress_store import ClaimedElsewhereError, ProgressStore
from exporter.exports.retry_budget import Signals
from exporter.exports.run_store import Run
from exporter.exports.runner import Runner
from exporter.exports.schedule import Schedule
from shared.errors import MillraceError
from shared.runtime.retry import Backoff
from shared.runtime.telemetry import Metrics

log = structlog.get_logger()

CLAIMED_RETRY_S = 2.0
"""How long to leave an export to the process that works on it, before looking again."""

Key = tuple[str, str]
"""App and export."""
MAX_SLEEP_S = 60.0
"""The longest sleep, because a clock may be set while we sleep."""
BACKOFF = Backoff(first_s=0.5, max_s=60.0)


class ExportWorker:
    """The life of one export at one revision of its configuration."""

    def __init__(
        self, job: ExportJob, progress_store: ProgressStore, runner: Runner, metrics: Metrics, *, take_over: bool
    ) -> None:
        self.job = job
        self.asked: list[asyncio.Future[Run]] = []
        """Who waits for a run that begins from now on."""
        self.current: Run | None = None
        self.signals = Signals()
        self.progress_store = progress_store
        self._runner = runner
        self._metrics = metrics
        self._take_over = take_over

    async def flush(self) -> Run:
        """Run now, or behind the run in progress, and give the record. Everything published before is in it."""
        asked: asyncio.Future[Run] = asyncio.get_running_loop().create_future()
        self.asked.append(asked)
        self.signals.wake.set()
        return await asked

    async def run(self) -> None:
        """Run for as long as the export is as it is. Ends when the service stops."""
        delays = BACKOFF.delays()
        while not self.signals.stopping:
            try:
                wait_s = await self._run_if_due()
                delays = BACKOFF.delays()
            except ClaimedElsewhereError:
                wait_s = CLAIMED_RETRY_S
            except MillraceError as error:
                wait_s = next(delays)
                log.warning("worker_failed", app_key=self.job.app_key, export=self.job.export_id, message=error.message)
            except Exception:
                wait_s = next(delays)
                log.exception("worker_failed", app_key=self.job.app_key, export=self.job.export_id)
                self._metrics.count("millrace_bugs_total", where="export")
            await self._sleep(wait_s)

    async def _run_if_due(self) -> float:
        """Run if there is a reason to. Gives the seconds until there may be another one."""
        now = self._runner.dependencies.clock()
        self.asked = [asked for asked in self.asked if not asked.done()]
        progress = await self._load_progress(now)
        slot_at = self.job.schedule.due(now, progress.slot_at)
        left = progress.claim is not None and (
            self._take_over or progress.claim.owner == self._runner.owner or progress.claim.until <= now
        )
        unfinished = self._take_over and progress.plan is not None
        if left or unfinished or self.asked or slot_at:
            await self._run_now("manual" if self.asked else "schedule", slot_at)
            return 0.0
        self._take_over = False
        return min(self.job.schedule.wait_s(now, progress.slot_at), MAX_SLEEP_S)

    async def _load_progress(self, now: datetime) -> ExportProgress:
        if not await self.progress_store.load():
            # It was configured behind our back; else `begin` was called before the configuration was stored.
            state = await self._runner.dependencies.source.state()
            await self.progress_store.begin(first_progress(self.job.schedule, state.last_sequence, now))
        return self.progress_store.progress

    async def _run_now(self, trigger: Trigger, slot_at: datetime | None) -> None:
        serving, self.asked = self.asked, []
        try:
            run = await self._runner.run(
                self.job,
                self.progress_store,
                trigger=trigger,
                signals=self.signals,
                slot_at=slot_at,
                take_over=self._take_over,
                on_start=self._on_start,
            )
        except BaseException:
            # They are served by the next run, ours or that of the lane which follows us.
            self.asked = serving + self.asked
            raise
        finally:
            self.current = None
        self._take_over = False
        for asked in serving:
            if not asked.done():
                asked.set_result(run)

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
    """Begin with the event after `last_sequence`, and with the slot after this one."""
    return ExportProgress(cursor=last_sequence, slot_at=schedule.slot(now))
