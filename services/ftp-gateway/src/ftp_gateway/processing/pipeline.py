"""
Steps of a file whose upload is complete, each exactly once:

    claim -> validate -> publish its rows -> write the error report -> publish the event -> remove

The process may die at each arrow. Claim, report and removal are stored in the upload's info file; the progress of the
rows and of the event is read from their streams. So a restart resumes where it stopped, and repeats nothing.

`processing.scheduler` chooses the file and claims it.
"""

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from datetime import datetime, timedelta

import structlog

from ftp_gateway.model.outcome import FileOutcome, OutcomeName, RowError, error_report_name, result_file_name
from ftp_gateway.model.rules import FileKind, FileRules
from ftp_gateway.model.virtual_paths import Place, is_sent_again, kind_in
from ftp_gateway.parsing.file_reader import RowChunk, ValidationResult
from ftp_gateway.parsing.worker_pool import ParserPool
from ftp_gateway.processing import completion, error_report, file_events, publisher
from ftp_gateway.processing.completion import UploadReadiness
from ftp_gateway.spool.store import Spool
from ftp_gateway.spool.upload import Upload
from shared.messaging.bus import Bus
from shared.runtime.telemetry import Metrics

log = structlog.get_logger()

COMPANION_KEPT = timedelta(hours=24)
"""Longest time that a used marker or checksum stays visible, until its file is done."""


class StoppedError(Exception):
    """The service stops; the file stops between two steps and resumes after a restart."""


class FilePipeline:
    """
    Processing of claimed files.

    Args:
        clock: Aware UTC.
    """

    def __init__(
        self, *, spool: Spool, bus: Bus, parsers: ParserPool, metrics: Metrics, clock: Callable[[], datetime]
    ) -> None:
        self._spool = spool
        self._bus = bus
        self._parsers = parsers
        self._metrics = metrics
        self._clock = clock
        self._stopped = False

    def stop(self) -> None:
        """Stop every file before its next pack of rows."""
        self._stopped = True

    async def process(self, upload: Upload, ready: UploadReadiness) -> None:
        """
        Process a claimed file. A failed attempt may be repeated.

        Raises:
            StoppedError: `stop` was called; the file stopped between two steps.
            MillraceError: A step failed.
        """
        app_key = upload.info.app_key
        kind = kind_in(upload.place.folder)
        if upload.info.rules is None:
            proof = completion.proof_of(self._spool, upload, ready)
            await self._spool.store_claim(upload, ready.rules, proof)
        companion = upload.info.proof.companion
        if companion:
            await self._spool.finish_companion(app_key, companion, self._clock() + COMPANION_KEPT)
        outcome = upload.info.outcome
        if outcome is None:
            outcome = await self._apply(upload, kind)
            told_after = await file_events.last_sequence(self._bus, app_key, outcome.state)
            await self._spool.mark_reported(upload, outcome, told_after)
        await file_events.publish_outcome(self._bus, upload.id, upload.info, outcome, self._clock())
        settle_s = upload.info.rules.settle_s if upload.info.rules else 0.0
        visible_until = upload.changed_at + timedelta(seconds=settle_s)
        if companion:
            await self._spool.finish_companion(app_key, companion, visible_until)
        await self._spool.finish(upload, visible_until)
        self._metrics.count("millrace_ftp_files_total", kind=kind, outcome=outcome.state)
        self._metrics.count("millrace_ftp_rows_total", outcome.ok, kind=kind, outcome="accepted")
        self._metrics.count("millrace_ftp_rows_total", outcome.failed, kind=kind, outcome="rejected")
        log.info("file_processed", app_key=app_key, file_id=outcome.file_id, outcome=outcome.outcome, rows=outcome.rows)

    async def _apply(self, upload: Upload, kind: FileKind) -> FileOutcome:
        """Look at the file, publish its rows, and leave the report. Safe to repeat from the start."""
        rules = upload.info.rules or FileRules()
        app_key, name_given = upload.info.app_key, upload.info.name
        trailer = completion.find_trailer(self._spool, upload, rules)

        # An id of its own makes it another file everywhere, and the same name again a duplicate.
        again = name_given if is_sent_again(name_given) else ""
        until = trailer.start if trailer else None
        path = self._spool.path(upload)
        async with self._parsers.open(path, app_key, kind, rules, again=again, until=until) as file:
            validation = await file.validate()
            if validation.refused is None:
                rows = validation.ok + validation.bad
                validation.refused = await completion.refusal(
                    rules, upload.info.proof, upload.place, rows, trailer, path
                )
            await file_events.publish_received(self._bus, upload.id, upload.info, kind, validation, self._clock())
            name: OutcomeName
            if validation.refused is not None:
                reason = validation.refused.reason
                name = "empty" if reason == "empty" else "truncated" if reason == "truncated" else "rejected"
            else:
                point = await publisher.find_resume_point(self._bus, kind, upload.id, upload.info, validation)
                if point.duplicate:
                    name = "duplicate"
                else:
                    async with aclosing(file.chunks(upload.info.name, point.line)) as chunks:
                        await publisher.publish_rows(
                            self._bus,
                            kind,
                            upload.id,
                            upload.info,
                            validation,
                            self._unless_stopped(chunks),
                            point,
                        )
                    name = "done_with_errors" if validation.bad else "done"
        outcome = self._outcome(upload, kind, validation, name)
        await self._report(app_key, outcome, validation)
        return outcome

    async def _unless_stopped(self, chunks: AsyncGenerator[RowChunk, None]) -> AsyncGenerator[RowChunk, None]:
        async for chunk in chunks:
            if self._stopped:
                raise StoppedError
            yield chunk

    def _outcome(self, upload: Upload, kind: FileKind, validation: ValidationResult, name: OutcomeName) -> FileOutcome:
        received_at = upload.info.closed_at or upload.info.opened_at
        rows = validation.ok + validation.bad
        accepted = name in ("done", "done_with_errors")
        return FileOutcome(
            file_id=validation.file_id,
            file_name=upload.info.name,
            kind=kind,
            outcome=name,
            size_bytes=validation.size_bytes,
            rows=rows,
            ok=validation.ok if accepted else 0,
            failed=validation.bad if accepted or name == "duplicate" else rows,
            duplicates=validation.duplicates,
            duplicates_at_least=validation.duplicates_at_least,
            reason=validation.refused.reason if validation.refused else None,
            message=validation.refused.message if validation.refused else None,
            warnings=validation.warnings,
            received_at=received_at,
            seconds=round((self._clock() - received_at).total_seconds(), 3),
        )

    async def _report(self, app_key: str, outcome: FileOutcome, validation: ValidationResult) -> None:
        errors = validation.errors
        if validation.refused is not None:
            whole = RowError(
                line=validation.refused.line, code=validation.refused.reason, message=validation.refused.message
            )
            errors = [whole, *errors]
        elif outcome.outcome == "duplicate":
            ending = f".resend.{outcome.file_name.rpartition('.')[2]}"
            message = f"the same content came within the last 24 hours; nothing was sent. A name in {ending} sends it"
            errors = [RowError(line=0, code="duplicate", message=message)]
        report = Place(app_key, "errors", error_report_name(outcome.kind, outcome.file_name))
        if errors:
            total = max(len(errors), validation.bad)
            await self._spool.reports.put(report, error_report.render_report(errors, total))
        else:
            self._spool.reports.delete(report)
        result = Place(app_key, "errors", result_file_name(outcome.kind, outcome.file_name))
        await self._spool.reports.put(result, error_report.render_result(outcome))
