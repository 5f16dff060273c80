"""
One run of a lane of an export, from its claim to its record.

A run first finishes the window that an earlier run planned. It then writes windows until all events that were in the
stream at its start are delivered. `exporter.exports.worker` decides when a run begins.
"""

import asyncio
from collections.abc import Callable
from datetime import datetime

import structlog
from msgspec.structs import replace

from exporter import SERVICE_NAME
from exporter.exports.claims import hold_claim
from exporter.exports.failures.failure import FailedAttempt, fault_of
from exporter.exports.failures.notices import KINDS
from exporter.exports.job import ExportJob
from exporter.exports.progress import Claim, ExportProgress, Trigger, lease_until, may_claim
from exporter.exports.progress_store import ClaimedElsewhereError, ProgressStore, UnreadableProgressError
from exporter.exports.retry_budget import RetryBudget, RunCancelled, Signals, StopRequested
from exporter.exports.run_store import ERROR_CHARACTERS, Run, RunError, counted, with_dropped
from exporter.exports.runs.requests import follow_requests
from exporter.exports.runs.run_record import RunRecord, going_on
from exporter.exports.watching.tracker import Change, FailureTracker
from exporter.exports.window_writer import WindowWriter, WriterDependencies
from exporter.pipeline.lane import Lane
from shared.contracts.alerts import AlertSender, PublishAlert
from shared.errors import MillraceError, NotFoundError
from shared.ids import make_ulid
from shared.messaging.bus import StreamState
from shared.runtime.telemetry import Metrics

log = structlog.get_logger()


class ExportRunner:
    """Runs exports. `owner` identifies this process among its replicas; `publish_alert` never raises."""

    def __init__(
        self, dependencies: WriterDependencies, *, owner: str, publish_alert: PublishAlert, metrics: Metrics
    ) -> None:
        self.dependencies = dependencies
        self.owner = owner
        self._alerts = AlertSender(SERVICE_NAME, publish_alert, dependencies.clock)
        self.failures = FailureTracker(dependencies.source, dependencies.clock, self._alerts)
        self._metrics = metrics
        self._lags: dict[tuple[str, str, Lane], int] = {}

    async def run(
        self,
        job: ExportJob,
        progress_store: ProgressStore,
        *,
        trigger: Trigger,
        signals: Signals,
        slot_at: datetime | None = None,
        on_start: Callable[[Run], None] = lambda run: None,
    ) -> Run:
        """
        Run an export once.

        Args:
            slot_at: The slot of this run. It counts as run from then on.
            on_start: Called with the record when the run has begun.

        Returns:
            The record, as it is in the run store.

        Raises:
            ClaimedElsewhereError: Another process works on this export.
            UnavailableError: The progress or the record cannot be written now. Nothing is lost; run again.
        """
        run = await self._begin(job, progress_store, trigger, slot_at)
        on_start(run)
        return await hold_claim(progress_store, self.dependencies.clock, self._work(job, progress_store, run, signals))

    async def _work(self, job: ExportJob, progress_store: ProgressStore, run: Run, signals: Signals) -> Run:
        """The rest of a run that has begun."""
        record = RunRecord(run, self.dependencies.run_store, progress_store, self.dependencies.clock)
        retry_budget = RetryBudget(job.schedule.every_s, signals, record)
        newest = reached = 0
        windows: WindowWriter | None = None
        attempt: FailedAttempt | None = None
        signals.cancelled = False
        following = asyncio.create_task(follow_requests(self.dependencies.run_store, run, signals))
        try:
            async with job.open_destination() as destination:
                windows = WindowWriter(self.dependencies, job, progress_store, destination, record, retry_budget)
                state = job.within(await retry_budget.run(self.dependencies.source.state))
                newest = state.last_sequence
                await windows.finish_planned()
                reached = await self._deliver_new(windows, record, progress_store, state, signals)
        except ClaimedElsewhereError:
            raise
        except StopRequested:
            run = replace(record.run, state="stopped", error=None)
        except RunCancelled:
            run = replace(record.run, state="cancelled", error=None)
        except MillraceError as error:
            run = _failed(record.run, error.code, error.message)
            attempt = _failed_attempt(job, error, windows)
        except Exception:
            log.exception("run_failed", app_key=job.app_key, export=job.export_id, run=run.id)
            self._metrics.count("millrace_bugs_total", where="export")
            run = _failed(record.run, MillraceError.code, "internal error")
            attempt = _failed_attempt(job, MillraceError("internal error"), windows)
        else:
            run = replace(record.run, state="completed", error=None)
        finally:
            following.cancel()
        run = replace(run, attempts=retry_budget.attempts)
        has_delivered = windows is not None and windows.has_delivered
        run = await self._finish(job, progress_store, run, reached, attempt, has_delivered)
        self._record_lag(job, newest - progress_store.progress.passed)
        return run

    async def alert_unreadable(self, job: ExportJob, error: UnreadableProgressError) -> None:
        """Alert that an export does not run, as its progress cannot be read."""
        await self._alerts.send(job.app_key, KINDS["failed"], job.export_id, error.message)

    def remove_lag(self, job: ExportJob) -> None:
        """Remove the lag of a lane that is not run any more."""
        self._lags.pop((job.app_key, job.export_id, job.lane), None)
        self._metrics.gauge("millrace_export_lag_messages", max(self._lags.values(), default=0))

    def _record_lag(self, job: ExportJob, lag: int) -> None:
        if job.span is not None:
            return
        self._lags[job.app_key, job.export_id, job.lane] = max(0, lag)
        self._metrics.gauge("millrace_export_lag_messages", max(self._lags.values()))

    async def _begin(
        self, job: ExportJob, progress_store: ProgressStore, trigger: Trigger, slot_at: datetime | None
    ) -> Run:
        """Claim the export. Returns the record of the run: a new one, or that of the run that was left unfinished."""
        now = self.dependencies.clock()
        unfinished = progress_store.progress.claim
        if not may_claim(progress_store.progress, self.owner, now):
            raise ClaimedElsewhereError("another process works on this export")
        claim = Claim(
            run_id=unfinished.run_id if unfinished else make_ulid(int(now.timestamp() * 1000)),
            owner=self.owner,
            trigger=unfinished.trigger if unfinished else trigger,
            started_at=unfinished.started_at if unfinished else now,
            until=lease_until(now),
        )
        await progress_store.change(
            lambda progress: replace(progress, claim=claim, slot_at=max(progress.slot_at, slot_at or progress.slot_at))
        )
        await self.failures.tell(progress_store)
        run = Run(
            id=claim.run_id,
            app_key=job.app_key,
            export_id=job.export_id,
            lane=job.lane,
            trigger=claim.trigger,
            started_at=claim.started_at,
            first_sequence=progress_store.progress.passed + 1,
        )
        if unfinished is not None:
            try:
                found = await self.dependencies.run_store.get(job.app_key, job.export_id, claim.run_id)
                if found.is_open and found.next_try_at is None:
                    return found
                run = going_on(found)
            except NotFoundError:
                log.warning("run_record_not_found", run=claim.run_id)
        await self.dependencies.run_store.put(run)
        return run

    async def _deliver_new(
        self,
        windows: WindowWriter,
        record: RunRecord,
        progress_store: ProgressStore,
        state: StreamState,
        signals: Signals,
    ) -> int:
        """
        Deliver every event that the stream held when the run began, up to the end of the lane.

        Returns:
            The sequence up to which all are delivered.
        """
        cursor = progress_store.progress.passed
        if cursor > state.last_sequence:
            log.error("stream_recreated", cursor=cursor, last_sequence=state.last_sequence)
            # An end that the lane was given was one in the stream before.
            first = state.first_sequence - 1
            await progress_store.change(lambda progress: replace(progress, cursor=first, until=None, dropped_until=0))
        elif cursor + 1 < state.first_sequence:
            record.run = counted(record.run, rows_dropped=state.first_sequence - 1 - cursor)
            await progress_store.change(lambda progress: replace(progress, cursor=state.first_sequence - 1))
        until = progress_store.progress.until
        end = state.last_sequence if until is None else min(until, state.last_sequence)
        if progress_store.progress.passed < end:
            behind = False
            while await windows.next_window(end, behind=behind):
                # One window was not enough, so the following ones are larger.
                behind = True
                signals.check()
        return end

    async def _finish(
        self,
        job: ExportJob,
        progress_store: ProgressStore,
        run: Run,
        reached: int,
        attempt: FailedAttempt | None,
        has_delivered: bool,
    ) -> Run:
        """Write the record, release the claim, and follow the failure. Alerts where the run dropped events."""
        now = self.dependencies.clock()
        await progress_store.check_claim(now)
        cursor = max(progress_store.progress.cursor, reached)
        run = replace(run, finished_at=now, last_sequence=cursor, next_try_at=None)
        if run.first_sequence is not None and run.first_sequence > cursor:
            run = replace(run, first_sequence=None, last_sequence=None)
        followed: Change = _unchanged
        if attempt is not None:
            followed, dropped = await self.failures.failed(job, progress_store.progress, attempt, f"run {run.id}")
            run = with_dropped(run, dropped) if dropped is not None else run
        elif run.state == "completed":
            follow = self.failures.passed if has_delivered else self.failures.idle
            followed = follow(job, progress_store.progress, f"run {run.id}")
        elif run.state == "cancelled":
            followed = self.failures.cancelled(job, progress_store.progress)
        lost = run.rows_dropped - (run.dropped.events if run.dropped else 0)
        if lost:
            text = f"run {run.id}: up to {lost} messages could not be exported: expired, or no events"
            await self._alerts.send(job.app_key, KINDS["dropped"], job.export_id, text)

        # The record first: after a crash in between the run is continued and its record written again.
        await self.dependencies.run_store.put(run)
        await progress_store.change(lambda progress: replace(followed(progress), claim=None, cursor=cursor))
        await self.failures.tell(progress_store)
        self._record_metrics(run)
        return run

    def _record_metrics(self, run: Run) -> None:
        log.info(
            "run_ended",
            app_key=run.app_key,
            export=run.export_id,
            run=run.id,
            state=run.state,
            rows_out=run.rows_out,
            files=len(run.files),
            code=run.error.code if run.error else None,
        )
        self._metrics.count("millrace_export_runs_total", outcome=run.state)
        self._metrics.count("millrace_export_rows_total", run.rows_out, outcome="exported")
        self._metrics.count("millrace_export_rows_total", run.rows_filtered, outcome="filtered")
        self._metrics.count("millrace_export_rows_total", run.rows_dropped, outcome="dropped")
        self._metrics.count("millrace_export_bytes_total", run.size_bytes)


def _failed(run: Run, code: str, message: str) -> Run:
    return replace(run, state="failed", error=RunError(code=code, message=message[:ERROR_CHARACTERS]))


def _failed_attempt(job: ExportJob, error: MillraceError, windows: WindowWriter | None) -> FailedAttempt:
    """The attempt of a run that failed. Opening a destination asks it nothing, so that is not its failure."""
    of_destination = windows is not None and windows.destination_error is error
    return FailedAttempt(
        kind="run",
        code=error.code,
        message=error.message,
        fault=fault_of(error, job.operator, has_our_keys=job.has_our_keys) if of_destination else "platform",
        temporary=error.retryable,
        of_destination=of_destination,
        revision=job.revision,
        every_s=job.schedule.every_s,
        has_delivered=windows is not None and windows.has_delivered,
    )


def _unchanged(progress: ExportProgress) -> ExportProgress:
    return progress
