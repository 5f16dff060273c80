"""
Choice of the next file to process, and retries of files that failed. `processing.pipeline` processes the file.

Files of one app are processed one after the other, in the order in which they were closed; several apps at a time, the
one whose last file began longest ago first. One replica holds the lock of an app; the lock of a replica that died is
free at once.
"""

import asyncio
import os
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from time import perf_counter

import structlog
from msgspec import structs

from ftp_gateway.model.rules import FileRules
from ftp_gateway.processing import completion, file_events
from ftp_gateway.processing.completion import UploadReadiness
from ftp_gateway.processing.pipeline import FilePipeline, StoppedError
from ftp_gateway.spool.store import Spool
from ftp_gateway.spool.upload import Upload
from shared.errors import BusyError, ConflictError, MillraceError
from shared.messaging.bus import Bus
from shared.runtime.retry import Backoff
from shared.runtime.slices import Slices, in_slices
from shared.runtime.telemetry import Metrics

log = structlog.get_logger()

FILES_AT_ONCE = 4
"""Each has a parser process of its own; more of them than cores only help during the wait for acks."""
SCAN_S = 1.0
"""Longest time until the changes of other replicas are seen."""
PURGE_S = 60.0
GRACE_S = 5.0
"""Seconds for a step in flight when the service stops. Cutting it is safe: a crash may come at any step."""
PAUSE = 4
"""Pause after a scan, in durations of the scan, so that scans do not delay sessions."""
RETRY = Backoff(first_s=0.5, max_s=30.0)


class FileScheduler:
    """
    The loop that starts the files that are due. `close` and `join` are those of `shared.service.Intake`.

    Args:
        rules_of: The rules of an app as they are now.
        clock: Aware UTC.
    """

    def __init__(
        self,
        *,
        spool: Spool,
        bus: Bus,
        rules_of: Callable[[str], FileRules],
        pipeline: FilePipeline,
        metrics: Metrics,
        clock: Callable[[], datetime],
    ) -> None:
        self._spool = spool
        self._bus = bus
        self._rules_of = rules_of
        self._pipeline = pipeline
        self._metrics = metrics
        self._clock = clock
        self._closing = False
        self._finished = asyncio.Event()
        self._app_locks: dict[str, int] = {}
        self._turns: dict[str, int] = {}
        self._last_turn = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._delayed: dict[str, tuple[datetime, Iterator[float]]] = {}
        bus.reconnected.append(spool.changed.set)

    async def run(self) -> None:
        """Run until `close`. A failure of the spool's disk ends it, and with it the service."""
        try:
            async with asyncio.TaskGroup() as tasks:
                purge_at = self._clock()
                while not self._closing:
                    self._spool.changed.clear()
                    if self._clock() >= purge_at:
                        await in_slices(self._spool.purge_steps())
                        self._forget_deleted()
                        purge_at = self._clock() + timedelta(seconds=PURGE_S)
                    began = perf_counter()
                    await in_slices(self._spool.scan_steps())
                    wait_s = await self._start_due(tasks)
                    pause_s = min(SCAN_S, PAUSE * (perf_counter() - began))
                    if self._bus.connected:
                        await self._publish_partials()
                    try:
                        async with asyncio.timeout(wait_s):
                            await self._spool.changed.wait()
                    except TimeoutError:
                        pass
                    await asyncio.sleep(pause_s)
        finally:
            self._finished.set()

    def close(self) -> None:
        """Start no other file; files in progress stop between two steps."""
        self._closing = True
        self._pipeline.stop()
        self._spool.changed.set()

    async def join(self) -> None:
        """Wait until no file is in progress. After `GRACE_S`, waits for others, such as a broker, are cancelled."""
        try:
            async with asyncio.timeout(GRACE_S):
                await self._finished.wait()
        except TimeoutError:
            for task in self._tasks:
                task.cancel("the service stops")
            await self._finished.wait()

    async def _start_due(self, tasks: asyncio.TaskGroup) -> float:
        """Start the files that are due. Returns the seconds until the next may be due."""
        now = self._clock()
        next_at = now + timedelta(seconds=SCAN_S)
        for app_key in await self._waiting_apps():
            if app_key in self._app_locks:
                continue
            found = await self._next(app_key)
            if found is None:
                continue
            if found[1].at > now:
                next_at = min(next_at, found[1].at)
            elif self._bus.connected and len(self._app_locks) < FILES_AT_ONCE:
                await self._start(tasks, app_key)
        return max(0.0, (next_at - now).total_seconds())

    async def _waiting_apps(self) -> list[str]:
        """Return the apps with waiting files: the one whose turn was longest ago first, then by their oldest file."""
        slices = Slices()
        found: list[tuple[int, datetime, str]] = []
        for app_key in self._spool.app_keys():
            since = [upload.info.closed_at or upload.info.opened_at for upload in self._spool.waiting(app_key)]
            if since:
                found.append((self._turns.get(app_key, 0), min(since), app_key))
            await slices.turn()
        return [app_key for _, _, app_key in sorted(found)]

    async def _next(self, app_key: str) -> tuple[Upload, UploadReadiness] | None:
        """
        Return the next file of an app: of the files that are due, the one that was closed first. Nothing changes
        between the look at a file that is due and the return.
        """
        rules, now = self._rules_of(app_key), self._clock()
        later: tuple[Upload, UploadReadiness] | None = None
        slices = Slices()
        for upload in self._spool.uploads(app_key):
            await slices.turn()
            ready = completion.readiness_of(upload, rules, self._spool.find)
            if ready is None:
                continue
            if upload.id in self._delayed:
                ready = structs.replace(ready, at=max(ready.at, self._delayed[upload.id][0]))
            if ready.at <= now:
                return upload, ready
            if later is None or ready.at < later[1].at:
                later = upload, ready
        return later

    async def _start(self, tasks: asyncio.TaskGroup, app_key: str) -> None:
        lock = self._spool.try_lock_app(app_key)
        if lock is None:
            return
        self._app_locks[app_key] = lock
        # Chosen anew: the turn has shown what the replica that had it before has left.
        found = await self._next(app_key)
        if found is None or found[1].at > self._clock() or not self._claim(found[0]):
            os.close(self._app_locks.pop(app_key))
            return
        self._last_turn += 1
        self._turns[app_key] = self._last_turn
        task = tasks.create_task(self._work(*found), name=f"file {found[0].id}")
        self._tasks.add(task)
        task.add_done_callback(self._work_done)

    def _claim(self, upload: Upload) -> bool:
        try:
            self._spool.claim(upload)
        except (BusyError, ConflictError, OSError) as error:
            self._delay(upload, None)
            log.info("file_claim_failed", upload_id=upload.id, app_key=upload.info.app_key, message=str(error))
            return False
        return True

    async def _work(self, upload: Upload, ready: UploadReadiness) -> None:
        """Make one attempt; a file that failed waits for the next one."""
        app_key = upload.info.app_key
        try:
            await self._pipeline.process(upload, ready)
            self._delayed.pop(upload.id, None)
        except StoppedError:
            log.info("file_processing_stopped", upload_id=upload.id, app_key=app_key)
        except MillraceError as error:
            self._delay(upload, error.retry_after_s)
            log.warning("file_delayed", upload_id=upload.id, app_key=app_key, message=error.message)
        except Exception:
            self._delay(upload, None)
            log.exception("file_failed", upload_id=upload.id, app_key=app_key)
            self._metrics.count("millrace_bugs_total", where="intake")
        finally:
            self._spool.release(upload)
            os.close(self._app_locks.pop(app_key))

    def _work_done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._spool.changed.set()

    def _delay(self, upload: Upload, wait_s: float | None) -> None:
        _, delays = self._delayed.get(upload.id, (None, RETRY.delays()))
        wait_s = next(delays) if wait_s is None else wait_s
        self._delayed[upload.id] = (self._clock() + timedelta(seconds=wait_s), delays)

    def _forget_deleted(self) -> None:
        """Forget delayed files that another replica has processed, or that were removed, and turns of idle apps."""
        uploads = list(self._spool.waiting())
        here, apps = {upload.id for upload in uploads}, {upload.info.app_key for upload in uploads}
        self._delayed = {upload_id: delay for upload_id, delay in self._delayed.items() if upload_id in here}
        self._turns = {app_key: turn for app_key, turn in self._turns.items() if app_key in apps}

    async def _publish_partials(self) -> None:
        slices = Slices()
        for upload in list(self._spool.waiting()):
            await slices.turn()
            broken = upload.state == "open" and upload.interrupted and not upload.writers
            if broken and not upload.partial_published and not upload.partly_pulled:
                try:
                    await file_events.publish_partial(self._bus, upload, self._clock())
                except MillraceError as error:
                    log.warning("partial_publish_failed", upload_id=upload.id, message=error.message)
                    return
                upload.partial_published = True
