"""
Polls of remotes: one task (worker) a remote, which polls when that is due and once the configuration has changed.

`PullScheduler` runs a worker for every active remote, follows the configuration, and erases the state of deleted
remotes. No worker waits for another. A worker polls only while this replica holds the remote's lock (`remotes.lock`).
"""

import asyncio
import os
import random
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime, timedelta

import structlog
from msgspec.structs import replace

from ftp_gateway import SERVICE_NAME
from ftp_gateway.remotes.backoff import failure_after, first_poll_at, next_poll_at
from ftp_gateway.remotes.pull import Puller, RemoteJob
from ftp_gateway.remotes.remote import UnknownHostError
from ftp_gateway.remotes.state_store import RemoteStateStore
from shared.contracts import keys
from shared.contracts.alerts import AlertSender, PublishAlert
from shared.errors import MillraceError, UnavailableError
from shared.messaging.kv import KeyValueStore
from shared.runtime.reconciler import Reconciler
from shared.runtime.telemetry import Metrics

log = structlog.get_logger()

RemoteKey = tuple[str, str]
"""App and remote."""

LOCK_RETRY_S = 5.0
"""Seconds between two tries of a lock: the longest pause of a remote whose replica was killed."""
POLLS_AT_ONCE = 4
"""Polls of one app at a time. Each holds at most 1 MiB of a file. A slow server delays no other app."""
SPREAD_S = 15.0
"""Longest random delay of a poll, so that polls that are due together do not start together."""
CLOCK_CHECK_S = 60.0
"""Seconds until a change of the clock is noticed."""
POLL_TIMEOUT_S = 86_400.0
"""
The longest poll; the next poll pulls the files that are left. It ends a server that answers but makes no progress; each
single answer has a limit of its own. A file starts anew with each poll, so the limit fits 1 GiB at 100 kbit/s.
"""


class PullScheduler:
    """
    The workers of this process. Satisfies `shared.service.Intake`.

    Args:
        lock: Locks a remote until the handle is closed; None while another replica holds the lock.
        store: The bucket `REMOTES`.
        jobs: The active remotes now, by key.
        is_deleted: Whether a remote is certainly deleted; its state is erased then.
        puller: Makes the puller of a job.
    """

    def __init__(
        self,
        *,
        lock: Callable[[RemoteKey], int | None],
        store: KeyValueStore,
        jobs: Callable[[], Mapping[RemoteKey, RemoteJob]],
        is_deleted: Callable[[RemoteKey], Awaitable[bool]],
        puller: Callable[[RemoteJob, RemoteStateStore], Puller],
        publish_alert: PublishAlert,
        metrics: Metrics,
        clock: Callable[[], datetime],
    ) -> None:
        self._lock = lock
        self._store = store
        self._is_deleted = is_deleted
        self._reconciler = Reconciler(
            "remote", jobs=jobs, stored_keys=self._stored_keys, erase_if_deleted=self._erase_if_deleted
        )
        self._puller = puller
        self._alerts = AlertSender(SERVICE_NAME, publish_alert, clock)
        self._metrics = metrics
        self._clock = clock
        self._workers: dict[RemoteKey, tuple[int, asyncio.Task[None]]] = {}
        self._slots = defaultdict[str, asyncio.Semaphore](lambda: asyncio.Semaphore(POLLS_AT_ONCE))
        self._finished = asyncio.Event()

    def changed(self) -> None:
        """Follow the changed configuration."""
        self._reconciler.changed()

    def close(self) -> None:
        """End all workers. A download that is cut short starts anew later."""
        self._reconciler.close()

    async def join(self) -> None:
        """Wait until the workers have ended and other replicas may lock their remotes."""
        await self._finished.wait()

    async def run(self) -> None:
        """Follow the configuration, for the life of the service."""
        try:
            async with asyncio.TaskGroup() as tasks:
                await self._reconciler.run(lambda jobs: self._follow(jobs, tasks))
                await self._follow({}, tasks)
        finally:
            self._finished.set()

    def state_of(self, app_key: str, remote_id: str) -> RemoteStateStore:
        """The stored state of a remote."""
        return RemoteStateStore(self._store, app_key, remote_id)

    async def _follow(self, jobs: Mapping[RemoteKey, RemoteJob], tasks: asyncio.TaskGroup) -> None:
        """Run a worker for every job at its revision, and no other."""
        ending = []
        for key, (revision, worker) in list(self._workers.items()):
            if key not in jobs or jobs[key].revision != revision:
                del self._workers[key]
                ending.append(worker)
        left = set(ending)
        while left:
            # A task may swallow a cancellation: see `shared.lifecycle`.
            for worker in left:
                worker.cancel()
            _, left = await asyncio.wait(left, timeout=0.5)
        for key, job in jobs.items():
            if key not in self._workers:
                self._workers[key] = job.revision, tasks.create_task(self._work(job), name=f"remote {'.'.join(key)}")

    async def _work(self, job: RemoteJob) -> None:
        """Poll one remote at one revision, whenever this replica holds its lock."""
        while True:
            try:
                lock = self._lock((job.app_key, job.id))
                if lock is not None:
                    try:
                        await self._poll_forever(job)
                    finally:
                        os.close(lock)
            except MillraceError as error:
                log.warning("remote_lock_failed", app_key=job.app_key, remote=job.id, message=error.message)
            except Exception:
                log.exception("remote_failed", app_key=job.app_key, remote=job.id)
                self._metrics.count("millrace_bugs_total", where="remotes")
            await asyncio.sleep(LOCK_RETRY_S)

    async def _poll_forever(self, job: RemoteJob) -> None:
        state = self.state_of(job.app_key, job.id)
        await state.load()
        puller = self._puller(job, state)
        failures = 0
        at = first_poll_at(job.remote, job.revision, state.progress, self._clock())
        if at > self._clock():
            await state.put_progress(replace(state.progress, next_look_at=at, revision=job.revision))
        while True:
            await self._sleep_until(at)
            async with self._slots[job.app_key]:
                error, unfinished = await self._poll(puller)
            failures = failures + 1 if error else 0
            now = self._clock()
            at = next_poll_at(job.remote, now, failures=failures, unfinished=unfinished)
            # Polls must not start together, nor all at the full minute.
            at += timedelta(seconds=min((at - now).total_seconds() / 10, SPREAD_S) * random.random())
            await self._record(job, state, error, at)

    async def _sleep_until(self, at: datetime) -> None:
        # Sleep in steps, because the clock may be set.
        left_s = (at - self._clock()).total_seconds()
        while left_s > 0:
            await asyncio.sleep(min(left_s, CLOCK_CHECK_S))
            left_s = (at - self._clock()).total_seconds()

    async def _poll(self, puller: Puller) -> tuple[MillraceError | None, bool]:
        """Poll once. Returns the failure, or whether an early poll would find more to do."""
        try:
            async with asyncio.timeout(POLL_TIMEOUT_S):
                return None, await puller.poll()
        except MillraceError as error:
            return error, False
        except TimeoutError:
            return UnavailableError(f"the server was not done within {POLL_TIMEOUT_S / 3600:g} h"), False

    async def _record(
        self, job: RemoteJob, state: RemoteStateStore, error: MillraceError | None, next_look_at: datetime
    ) -> None:
        """Store the result of a poll, and alert the operator where it is news."""
        now = self._clock()
        before, alert_now, failure = state.progress.trouble, False, None
        if error is not None:
            failure, alert_now = failure_after(before, error, now, job.revision)
            log.warning(
                "remote_poll_failed", app_key=job.app_key, remote=job.id, code=error.code, message=error.message
            )
        if isinstance(error, UnknownHostError) and error.offered is not None:
            await state.put_offered(error.offered)
        # The alert goes out before the state is stored: a second alert is better than none.
        if alert_now and error is not None:
            kind = "remote-unknown-host" if isinstance(error, UnknownHostError) else "remote-failing"
            await self._alerts.send(job.app_key, kind, job.id, error.message)
        elif error is None and before is not None and before.told_revision:
            await self._alerts.send(job.app_key, "remote-recovered", job.id, "files are pulled from there again")
        progress = replace(state.progress, looked_at=now, trouble=failure)
        await state.put_progress(replace(progress, next_look_at=next_look_at, revision=job.revision))

    async def _stored_keys(self) -> set[RemoteKey]:
        """Returns the key of every remote that has stored state, configured or only tested."""
        stored = [
            *await self._store.scan(keys.EVERY_PULL_PROGRESS),
            *await self._store.scan(keys.EVERY_OFFERED_HOST_KEY),
        ]
        return {keys.remote_of_key(one.key) for one in stored}

    async def _erase_if_deleted(self, key: RemoteKey) -> bool:
        """Erase the state of a deleted remote. An inactive one keeps its state."""
        if not await self._is_deleted(key):
            return False
        await self.state_of(*key).erase()
        log.info("remote_erased", app_key=key[0], remote=key[1])
        return True
