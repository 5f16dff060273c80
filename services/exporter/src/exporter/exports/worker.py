"""
The worker of one export: a task that begins the runs that are due, one after the other.
"""

import asyncio
from datetime import datetime

import structlog

from exporter.exports.job import ExportJob
from exporter.exports.progress import ExportProgress, Trigger
from exporter.exports.progress_store import ProgressStore, TakenError
from exporter.exports.retry_budget import Signals
from exporter.exports.run_store import Run
from exporter.exports.runner import Runner
from exporter.exports.schedule import Schedule
from shared.errors import MillraceError
from shared.runtime.retry import Backoff
from shared.runtime.telemetry import Metrics

log = structlog.get_logger()

TAKEN_S = 2.0
"""How long to leave an export to the process that works on it, before looking again."""

Key = tuple[str, str]
"""App and export."""
LOOK_S = 60.0
"""The longest sleep, because a clock may be set while we sleep."""
BACKOFF = Backoff(first_s=0.5, max_s=60.0)


class ExportWorker:
    """The life of one export at one revision of its configuration."""

    def __init__(self, job: ExportJob, ledger: ProgressStore, runner: Runner, metrics: Metrics, *, adopt: bool) -> None:
        self.job = job
        self.asked: list[asyncio.Future[Run]] = []
        """Who waits for a run that begins from now on."""
        self.current: Run | None = None
        self.signals = Signals()
        self.ledger = ledger
        self._runner = runner
        self._metrics = metrics
        self._adopt = adopt

    async def flush(self) -> Run:
        """Run now, or behind the run in progress, and give the record. Everything published before is in it."""
        asked: asyncio.Future[Run] = asyncio.get_running_loop().create_future()
        self.asked.append(asked)
        self.signals.nudge.set()
        return await asked

    async def keep(self) -> None:
        """Run for as long as the export is as it is. Ends when the service stops."""
        delays = BACKOFF.delays()
        while not self.signals.stopping:
            try:
                wait_s = await self._turn()
                delays = BACKOFF.delays()
            except TakenError:
                wait_s = TAKEN_S
            except MillraceError as error:
                wait_s = next(delays)
                log.warning("lane_failed", app_key=self.job.app_key, export=self.job.export_id, message=error.message)
            except Exception:
                wait_s = next(delays)
                log.exception("lane_failed", app_key=self.job.app_key, export=self.job.export_id)
                self._metrics.count("millrace_bugs_total", where="export")
            await self._rest(wait_s)

    async def _turn(self) -> float:
        """Run if there is a reason to. Gives the seconds until there may be another one."""
        now = self._runner.shop.clock()
        self.asked = [asked for asked in self.asked if not asked.done()]
        progress = await self._progress(now)
        slot_at = self.job.schedule.due(now, progress.slot_at)
        left = progress.claim is not None and (
            self._adopt or progress.claim.owner == self._runner.owner or progress.claim.until <= now
        )
        unfinished = self._adopt and progress.plan is not None
        if left or unfinished or self.asked or slot_at:
            await self._run("manual" if self.asked else "schedule", slot_at)
            return 0.0
        self._adopt = False
        return min(self.job.schedule.wait_s(now, progress.slot_at), LOOK_S)

    async def _progress(self, now: datetime) -> ExportProgress:
        if not await self.ledger.load():
            # It was configured behind our back; else `begin` was called before the configuration was stored.
            state = await self._runner.shop.source.state()
            await self.ledger.begin(first_progress(self.job.schedule, state.last_sequence, now))
        return self.ledger.progress

    async def _run(self, trigger: Trigger, slot_at: datetime | None) -> None:
        serving, self.asked = self.asked, []
        try:
            run = await self._runner.run(
                self.job,
                self.ledger,
                trigger=trigger,
                signals=self.signals,
                slot_at=slot_at,
                adopt=self._adopt,
                on_start=self._started,
            )
        except BaseException:
            # They are served by the next run, ours or that of the lane which follows us.
            self.asked = serving + self.asked
            raise
        finally:
            self.current = None
        self._adopt = False
        for asked in serving:
            if not asked.done():
                asked.set_result(run)

    def _started(self, run: Run) -> None:
        self.current = run

    async def _rest(self, wait_s: float) -> None:
        if self.signals.stopping or wait_s <= 0:
            return
        try:
            async with asyncio.timeout(wait_s):
                await self.signals.nudge.wait()
        except TimeoutError:
            return
        self.signals.nudge.clear()


def first_progress(schedule: Schedule, last_sequence: int, now: datetime) -> ExportProgress:
    """Begin with the event after `last_sequence`, and with the slot after this one."""
    return ExportProgress(cursor=last_sequence, slot_at=schedule.slot(now))
