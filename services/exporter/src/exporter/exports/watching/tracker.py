"""
The failures of exports, followed from attempt to attempt: what is stored of them, dropped and told.

What is told is stored in one write with what it tells, and published after it. The alert has an id of its content, so
that one which is published again after a crash is dropped by the server: each is told once.
"""

from collections.abc import Callable
from datetime import datetime, timedelta

import structlog
from msgspec.structs import replace

from exporter.exports.failures.failure import (
    KEPT_S,
    DroppedEvents,
    ExportFailure,
    FailedAttempt,
    Notice,
    UndeliveredEvents,
    failed,
    fault_of,
    is_over,
    to_be_probed,
    trying,
    wait_s,
)
from exporter.exports.failures.notices import KINDS, text_of
from exporter.exports.job import ExportJob
from exporter.exports.progress import ExportProgress
from exporter.exports.progress_store import ProgressStore
from exporter.exports.watching.backlog import read_backlog
from exporter.exports.watching.probe import PROBE_S, probe
from exporter.pipeline.source import EventSource
from shared.contracts.alerts import AlertSender
from shared.contracts.messages import Alert
from shared.errors import MillraceError

log = structlog.get_logger()

Change = Callable[[ExportProgress], ExportProgress]
"""The change of a progress, to be stored together with others."""


class FailureTracker:
    """
    The failures of all exports of this process.

    Args:
        clock: Aware UTC.
    """

    def __init__(self, source: EventSource, clock: Callable[[], datetime], alerts: AlertSender) -> None:
        self._source = source
        self._clock = clock
        self._alerts = alerts

    async def failed(
        self, job: ExportJob, progress: ExportProgress, attempt: FailedAttempt, name: str
    ) -> tuple[Change, DroppedEvents | None]:
        """
        Follow an attempt that failed. Reads what waits, and finds what is to be dropped.

        Args:
            name: The attempt in words.

        Returns:
            The change of the progress, and the events that it drops.
        """
        now = self._clock()
        drop_before = now - timedelta(seconds=KEPT_S) if is_over(progress.failing, attempt, now) else None
        backlog = await self._backlog(job, progress, attempt, drop_before)
        failure, notices = failed(progress.failing, attempt, now, backlog)
        dropped = backlog.dropped if backlog is not None else None
        if dropped is not None:
            log.warning(
                "old_events_dropped",
                app_key=job.app_key,
                export=job.export_id,
                events=dropped.events,
                first_sequence=dropped.first_sequence,
                last_sequence=dropped.last_sequence,
                code=attempt.code,
            )
        alerts = self._made(job, notices, failure, now, name)
        dropped_until = dropped.last_sequence if dropped is not None else progress.dropped_until

        def change(progress: ExportProgress) -> ExportProgress:
            return replace(progress, failing=failure, dropped_until=dropped_until, alerts=(*progress.alerts, *alerts))

        return change, dropped

    def passed(self, job: ExportJob, progress: ExportProgress, name: str) -> Change:
        """Follow an attempt that has shown that the destination works."""
        now = self._clock()
        failure = progress.failing
        if failure is None:
            return lambda progress: replace(progress, checked_at=now)
        alerts = self._made(job, ["recovered"], failure, now, name)
        return lambda progress: replace(
            progress, failing=None, checked_at=now, recovered_at=now, alerts=(*progress.alerts, *alerts)
        )

    def idle(self, job: ExportJob, progress: ExportProgress, name: str) -> Change:
        """Follow a run that had nothing to deliver. Whether a destination that failed works is to be probed then."""
        failure = progress.failing
        if failure is None:
            return lambda progress: progress
        if not failure.of_destination:
            return self.passed(job, progress, name)
        probed = to_be_probed(failure, self._clock())
        return lambda progress: replace(progress, failing=probed)

    def cancelled(self, job: ExportJob, progress: ExportProgress) -> Change:
        """Follow a run that somebody has ended: the next attempt has its usual wait."""
        failure = progress.failing
        if failure is None:
            return lambda progress: progress
        later = trying(failure, job.revision, self._clock(), wait_s(max(1, failure.attempts), job.schedule.every_s))
        return lambda progress: replace(progress, failing=later)

    async def probe(self, job: ExportJob, progress_store: ProgressStore) -> None:
        """
        Probe the destination of an export that nobody works on.

        Raises:
            ClaimedElsewhereError: Another process works on it now.
        """
        now = self._clock()

        def begun(progress: ExportProgress) -> ExportProgress:
            failing = progress.failing
            failing = trying(failing, job.revision, now, 2 * PROBE_S) if failing is not None else None
            return replace(progress, checked_at=now, failing=failing)

        progress = await progress_store.change(begun)
        try:
            async with job.open_destination() as destination:
                await probe(destination, job.directory)
        except MillraceError as error:
            log.warning("destination_probe_failed", app_key=job.app_key, export=job.export_id, message=error.message)
            attempt = FailedAttempt(
                kind="probe",
                code=error.code,
                message=error.message,
                fault=fault_of(error, job.operator, has_our_keys=job.has_our_keys),
                temporary=error.retryable,
                of_destination=True,
                revision=job.revision,
                every_s=job.schedule.every_s,
            )
            change, _ = await self.failed(job, progress, attempt, "a probe of the destination")
        else:
            change = self.passed(job, progress, "a probe of the destination")
        await progress_store.change(change)
        await self.tell(progress_store)

    async def tell(self, progress_store: ProgressStore) -> None:
        """Publish the alerts that are stored. Never raises: what is not told now is told by the next attempt."""
        alerts = progress_store.progress.alerts
        if not alerts:
            return
        for alert in alerts:
            await self._alerts.publish(alert)
        try:
            await progress_store.change(
                lambda progress: replace(progress, alerts=tuple(one for one in progress.alerts if one not in alerts))
            )
        except MillraceError as error:
            log.warning("told_alerts_stay", message=error.message)

    async def _backlog(
        self, job: ExportJob, progress: ExportProgress, attempt: FailedAttempt, drop_before: datetime | None
    ) -> UndeliveredEvents | None:
        if attempt.kind == "probe":
            return UndeliveredEvents()
        if not attempt.of_destination or job.span is not None:
            # A replay sends old events, whose time is over from the beginning: it drops none.
            return None
        try:
            until = (await self._source.state()).last_sequence
            return await read_backlog(self._source, job, after=progress.passed, until=until, drop_before=drop_before)
        except MillraceError as error:
            # The next attempt drops it.
            log.warning("backlog_not_read", app_key=job.app_key, export=job.export_id, message=error.message)
            return None

    def _made(
        self, job: ExportJob, notices: list[Notice], failure: ExportFailure, now: datetime, name: str
    ) -> list[Alert]:
        return [
            self._alerts.make(job.app_key, KINDS[notice], job.export_id, text_of(notice, failure, now, name))
            for notice in notices
        ]
