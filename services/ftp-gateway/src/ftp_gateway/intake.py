"""
What happens to a file once its upload is complete, exactly once:

    claim -> look at all of it -> publish its rows -> write the report -> tell -> remove

Each arrow may be where the process dies. Claim, report and removal are steps of the ticket on disk; how far the rows
and the event have come is read from their streams. So a restart goes on where it stopped, and repeats nothing.

Files of one app are processed one after the other, in the order in which they were closed; several apps at a time.
Replicas take turns: one has an app at a time, and an app whose replica died is free at once.
"""

import asyncio
import os
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing
from datetime import datetime, timedelta

import structlog
from msgspec import structs

from ftp_gateway import announcing, completion, publishing, reports
from ftp_gateway.completion import Due
from ftp_gateway.file_work import FileWork
from ftp_gateway.formats import FileKind, Rules
from ftp_gateway.lines import RowError
from ftp_gateway.paths import Place, is_sent_again, kind_of
from ftp_gateway.reports import Outcome, OutcomeName
from ftp_gateway.spool import Spool
from ftp_gateway.survey import Chunk, Survey
from ftp_gateway.uploads import Upload
from shared.bus import Bus
from shared.errors import BusyError, ConflictError, InvalidError, MillraceError
from shared.retry import Backoff
from shared.telemetry import Metrics

log = structlog.get_logger()

FILES_AT_ONCE = 4
"""Each is read by a process of its own; more of them than cores only help while acks are on their way."""
LOOK_S = 1.0
"""How long at most until what other replicas did is seen."""
PURGE_S = 60.0
COMPANION_KEPT = timedelta(hours=24)
"""How long a marker or checksum stays visible that was taken, until its file is done."""
GRACE_S = 5.0
"""How long a step in flight may take when the service stops. Cutting it is safe: any step may be where it all ends."""
AGAIN = Backoff(first_s=0.5, max_s=30.0)


class StoppedError(Exception):
    """The service stops; the file is left between two steps and goes on after a restart."""


class Intake:
    """
    The loop that takes what is due. `close` and `join` are those of `shared.service.Intake`.

    Args:
        rules_of: The rules of an app as they are now.
        clock: Aware UTC.
    """

    def __init__(
        self,
        *,
        spool: Spool,
        bus: Bus,
        rules_of: Callable[[str], Rules],
        file_work: FileWork,
        metrics: Metrics,
        clock: Callable[[], datetime],
    ) -> None:
        self._spool = spool
        self._bus = bus
        self._rules_of = rules_of
        self._file_work = file_work
        self._metrics = metrics
        self._clock = clock
        self._closing = False
        self._finished = asyncio.Event()
        self._turns: dict[str, int] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._delayed: dict[str, tuple[datetime, Iterator[float]]] = {}
        bus.reconnected.append(spool.changed.set)

    async def run(self) -> None:
        """Until `close`. A failure of the spool's disk ends it, and with it the service."""
        try:
            async with asyncio.TaskGroup() as tasks:
                purge_at = self._clock()
                while not self._closing:
                    self._spool.changed.clear()
                    if self._clock() >= purge_at:
                        self._spool.purge()
                        purge_at = self._clock() + timedelta(seconds=PURGE_S)
                    self._spool.look()
                    if self._bus.connected:
                        await self._tell_partials()
                    wait_s = self._start_due(tasks)
                    try:
                        async with asyncio.timeout(wait_s):
                            await self._spool.changed.wait()
                    except TimeoutError:
                        continue
        finally:
            self._finished.set()

    def close(self) -> None:
        """Begin no other file; one that is being processed stops between two steps."""
        self._closing = True
        self._spool.changed.set()

    async def join(self) -> None:
        """Wait until nothing is being processed. What waits for others, such as a broker that is away, is cut short."""
        try:
            async with asyncio.timeout(GRACE_S):
                await self._finished.wait()
        except TimeoutError:
            for task in self._tasks:
                task.cancel("the service stops")
            await self._finished.wait()

    def _start_due(self, tasks: asyncio.TaskGroup) -> float:
        """Start what is due; gives the seconds until the next may be."""
        now = self._clock()
        next_at = now + timedelta(seconds=LOOK_S)
        for app_key in dict.fromkeys(upload.ticket.app_key for upload in self._spool.uploads()):
            if app_key in self._turns:
                continue
            found = self._next(app_key)
            if found is None:
                continue
            if found[1].at > now:
                next_at = min(next_at, found[1].at)
            elif self._bus.connected and len(self._turns) < FILES_AT_ONCE:
                self._start(tasks, app_key)
        return max(0.0, (next_at - now).total_seconds())

    def _next(self, app_key: str) -> tuple[Upload, Due] | None:
        """The file of an app that is due next: of those that are due already the one that was closed first."""
        rules, now = self._rules_of(app_key), self._clock()
        later: tuple[Upload, Due] | None = None
        for upload in self._spool.uploads(app_key):
            ready = completion.due(upload, rules, self._spool.find)
            if ready is None:
                continue
            if upload.id in self._delayed:
                ready = structs.replace(ready, at=max(ready.at, self._delayed[upload.id][0]))
            if ready.at <= now:
                return upload, ready
            if later is None or ready.at < later[1].at:
                later = upload, ready
        return later

    def _start(self, tasks: asyncio.TaskGroup, app_key: str) -> None:
        turn = self._spool.take_turn(app_key)
        if turn is None:
            return
        # Chosen anew: the turn has shown what the replica that had it before has left.
        found = self._next(app_key)
        if found is None or found[1].at > self._clock() or not self._claim(found[0]):
            os.close(turn)
            return
        self._turns[app_key] = turn
        task = tasks.create_task(self._work(*found), name=f"file {found[0].id}")
        self._tasks.add(task)
        task.add_done_callback(self._worked)

    def _claim(self, upload: Upload) -> bool:
        try:
            self._spool.claim(upload)
        except (BusyError, ConflictError, OSError) as error:
            self._delay(upload, None)
            log.info("file_not_claimed", upload_id=upload.id, app_key=upload.ticket.app_key, message=str(error))
            return False
        return True

    async def _work(self, upload: Upload, ready: Due) -> None:
        """One attempt; where it fails, the file waits for the next one."""
        app_key = upload.ticket.app_key
        try:
            await self._process(upload, ready)
            self._delayed.pop(upload.id, None)
        except StoppedError:
            log.info("file_left", upload_id=upload.id, app_key=app_key)
        except MillraceError as error:
            self._delay(upload, error.retry_after_s)
            log.warning("file_delayed", upload_id=upload.id, app_key=app_key, message=error.message)
        except Exception:
            self._delay(upload, None)
            log.exception("file_failed", upload_id=upload.id, app_key=app_key)
            self._metrics.count("millrace_bugs_total", where="intake")
        finally:
            self._spool.let_go(upload)
            os.close(self._turns.pop(app_key))

    def _worked(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._spool.changed.set()

    def _delay(self, upload: Upload, wait_s: float | None) -> None:
        _, delays = self._delayed.get(upload.id, (None, AGAIN.delays()))
        wait_s = next(delays) if wait_s is None else wait_s
        self._delayed[upload.id] = (self._clock() + timedelta(seconds=wait_s), delays)

    async def _process(self, upload: Upload, ready: Due) -> None:
        app_key = upload.ticket.app_key
        kind = kind_of(upload.place)
        if kind is None:
            raise InvalidError("only a candidate can be processed", field="name")
        if upload.ticket.rules is None:
            proof = completion.proof_of(self._spool, upload, ready)
            await self._spool.freeze(upload, ready.rules, proof)
        companion = upload.ticket.proof.companion
        if companion:
            await self._spool.finish_companion(app_key, companion, self._clock() + COMPANION_KEPT)
        outcome = upload.ticket.outcome
        if outcome is None:
            outcome = await self._apply(upload, kind)
            told_after = await announcing.last_told(self._bus, app_key, outcome.state)
            await self._spool.mark_reported(upload, outcome, told_after)
        await announcing.tell_outcome(self._bus, upload.id, upload.ticket, outcome, self._clock())
        settle_s = upload.ticket.rules.settle_s if upload.ticket.rules else 0.0
        visible_until = upload.changed_at + timedelta(seconds=settle_s)
        if companion:
            await self._spool.finish_companion(app_key, companion, visible_until)
        await self._spool.finish(upload, visible_until)
        self._metrics.count("millrace_ftp_files_total", kind=kind, outcome=outcome.state)
        self._metrics.count("millrace_ftp_rows_total", outcome.ok, kind=kind, outcome="accepted")
        self._metrics.count("millrace_ftp_rows_total", outcome.failed, kind=kind, outcome="rejected")
        log.info("file_done", app_key=app_key, file_id=outcome.file_id, outcome=outcome.outcome, rows=outcome.rows)

    async def _apply(self, upload: Upload, kind: FileKind) -> Outcome:
        """Look at the file, publish its rows, and leave the report. Safe to repeat from the start."""
        rules = upload.ticket.rules or Rules()
        app_key, name_given = upload.ticket.app_key, upload.ticket.name
        trailer = completion.find_trailer(self._spool, upload, rules)

        # An id of its own makes it another file everywhere, and the same name again a duplicate.
        again = name_given if is_sent_again(name_given) else ""
        until = trailer.start if trailer else None
        path = self._spool.path(upload)
        async with self._file_work.open(path, app_key, kind, rules, again=again, until=until) as file:
            survey = await file.survey()
            if survey.refused is None:
                rows = survey.ok + survey.bad
                survey.refused = await completion.refusal(rules, upload.ticket.proof, name_given, rows, trailer, path)
            await announcing.tell_received(self._bus, upload.id, upload.ticket, kind, survey, self._clock())
            name: OutcomeName
            if survey.refused is not None:
                reason = survey.refused.reason
                name = "empty" if reason == "empty" else "truncated" if reason == "truncated" else "rejected"
            else:
                point = await publishing.find_point(self._bus, kind, upload.id, upload.ticket, survey)
                if point.duplicate:
                    name = "duplicate"
                else:
                    async with aclosing(file.chunks(upload.ticket.name, point.line)) as chunks:
                        await publishing.publish_rows(
                            self._bus,
                            kind,
                            upload.id,
                            upload.ticket,
                            survey,
                            self._unless_closing(chunks),
                            point,
                        )
                    name = "done_with_errors" if survey.bad else "done"
        outcome = self._outcome(upload, kind, survey, name)
        await self._report(app_key, outcome, survey)
        return outcome

    async def _unless_closing(self, chunks: AsyncGenerator[Chunk, None]) -> AsyncGenerator[Chunk, None]:
        async for chunk in chunks:
            if self._closing:
                raise StoppedError
            yield chunk

    def _outcome(self, upload: Upload, kind: FileKind, survey: Survey, name: OutcomeName) -> Outcome:
        received_at = upload.ticket.closed_at or upload.ticket.opened_at
        rows = survey.ok + survey.bad
        taken = name in ("done", "done_with_errors")
        return Outcome(
            file_id=survey.file_id,
            file_name=upload.ticket.name,
            kind=kind,
            outcome=name,
            size_bytes=survey.size_bytes,
            rows=rows,
            ok=survey.ok if taken else 0,
            failed=survey.bad if taken or name == "duplicate" else rows,
            duplicates=survey.duplicates,
            duplicates_at_least=survey.duplicates_at_least,
            reason=survey.refused.reason if survey.refused else None,
            message=survey.refused.message if survey.refused else None,
            warnings=survey.warnings,
            received_at=received_at,
            seconds=round((self._clock() - received_at).total_seconds(), 3),
        )

    async def _report(self, app_key: str, outcome: Outcome, survey: Survey) -> None:
        errors = survey.errors
        if survey.refused is not None:
            whole = RowError(line=survey.refused.line, code=survey.refused.reason, message=survey.refused.message)
            errors = [whole, *errors]
        elif outcome.outcome == "duplicate":
            message = "the same content came within the last 24 hours; nothing was sent. A name in .resend.csv sends it"
            errors = [RowError(line=0, code="duplicate", message=message)]
        report = Place(app_key, "errors", reports.report_name(outcome.kind, outcome.file_name))
        if errors:
            total = max(len(errors), survey.bad)
            await self._spool.put_report(report, reports.render_report(errors, total))
        else:
            self._spool.drop_report(report)
        result = Place(app_key, "errors", reports.result_name(outcome.kind, outcome.file_name))
        await self._spool.put_report(result, reports.render_result(outcome))

    async def _tell_partials(self) -> None:
        for upload in self._spool.uploads():
            broken = upload.state == "open" and upload.broken and not upload.writers
            if broken and not upload.told_partial and not upload.half_pulled:
                try:
                    await announcing.tell_partial(self._bus, upload, self._clock())
                except MillraceError as error:
                    log.warning("partial_not_told", upload_id=upload.id, message=error.message)
                    return
                upload.told_partial = True
