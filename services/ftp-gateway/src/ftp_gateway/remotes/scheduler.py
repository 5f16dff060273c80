"""
One lane a remote: it looks at its remote when that is due, and as soon as its configuration has changed. No lane waits
for another.

`PullScheduler` keeps a lane for every active remote, follows the configuration, and forgets what was deleted. A worker
works only while this replica has the turn to pull from its remote (`remote_turn`).
"""

import asyncio
import contextlib
import os
import random
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime, timedelta

import structlog
from msgspec.structs import replace

from ftp_gateway.remotes.backoff import failure_after, first_poll_at, next_poll_at
from ftp_gateway.remotes.pull import Puller, RemoteJob
from ftp_gateway.remotes.remote import UnknownHostError
from ftp_gateway.remotes.state_store import RemoteStateStore
from shared.contracts import keys
from shared.contracts.alerts import AlertSender, PublishAlert
from shared.errors import MillraceError, UnavailableError
from shared.messaging.kv import KeyValueStore
from shared.runtime.telemetry import Metrics

log = structlog.get_logger()

RemoteKey = tuple[str, str]
"""App and remote."""

LOCK_RETRY_S = 5.0
"""How often to ask whether a remote is free: what a replica that is killed costs at most."""
POLLS_AT_ONCE = 4
"""Of one app. Each holds at most 1 MiB of a file, and one server that answers slowly holds up no other app's."""
ERASE_RETRY_S = 5.0
"""How soon to ask again what is to be erased, where NATS did not say."""
SPREAD_S = 15.0
"""How far at most looks that are due together are put apart."""
CLOCK_CHECK_S = 60.0
"""How long at most a change of the clock goes unnoticed."""
POLL_TIMEOUT_S = 86_400.0
"""
The longest look; what it has not taken by then is taken by the next. It ends a server that answers always and never
gets anywhere; each single answer has its own limit. A file begins anew with each look, so this is long enough for a
file of 1 GiB at 100 kbit/s.
"""


class PullScheduler:
    """
    The lanes of this process. Satisfies `shared.service.Intake`.

    Args:
        take: The turn to pull from a remote, until the handle is closed; None while another replica has it.
        jobs: The active remotes now, by key.
        is_deleted: Whether a remote is deleted for certain: what is known of it is erased then.
        puller: A new one for a job.
    """

    def __init__(
        self,
        *,
        lock: Callable[[RemoteKey], int | None],
        store: KeyValueStore,
        jobs: Callable[[], Mapping[RemoteKey, RemoteJob]],
        is_deleted: Callable[[RemoteKey], Awaitable[bool]],
        puller: Callable[[RemoteJob, RemoteStateStore], Puller],
        tell: PublishAlert,
        metrics: Metrics,
        clock: Callable[[], datetime],
    ) -> None:
        self._lock = lock
        self._store = store
        self._jobs = jobs
        self._is_deleted = is_deleted
        self._puller = puller
        self._alerts = AlertSender("ftp-gateway", tell, clock)
        self._metrics = metrics
        self._clock = clock
        self._workers: dict[RemoteKey, tuple[int, asyncio.Task[None]]] = {}
        self._slots = defaultdict[str, asyncio.Semaphore](lambda: asyncio.Semaphore(POLLS_AT_ONCE))
        self._changed = asyncio.Event()
        self._finished = asyncio.Event()
        self._closing = False

    def changed(self) -> None:
        """The configuration is another one."""
        self._changed.set()

    def close(self) -> None:
        """Begin nothing, and leave off: what is half downloaded comes again."""
        self._closing = True
        self._changed.set()

    async def join(self) -> None:
        """Wait until the lanes have ended, and others may go on with their remotes."""
        await self._finished.wait()

    async def keep(self) -> None:
        """Follow the configuration, for the life of the service."""
        known: set[RemoteKey] | None = None
        try:
            async with asyncio.TaskGroup() as tasks:
                while not self._closing:
                    self._changed.clear()
                    jobs = self._jobs()
                    await self._follow(jobs, tasks)
                    if known is None:
                        known = await self._stored_remotes()
                    if known is not None:
                        known = await self._erase(known - jobs.keys()) | jobs.keys()
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(ERASE_RETRY_S if known is None else None):
                            await self._changed.wait()
                await self._follow({}, tasks)
        finally:
            self._finished.set()

    def state_of(self, app_key: str, remote_id: str) -> RemoteStateStore:
        """What is known of a remote."""
        return RemoteStateStore(self._store, app_key, remote_id)

    async def _follow(self, jobs: Mapping[RemoteKey, RemoteJob], tasks: asyncio.TaskGroup) -> None:
        """A lane for every job, at its revision."""
        ending = []
        for key, (revision, worker) in list(self._workers.items()):
            if key not in jobs or jobs[key].revision != revision:
                del self._workers[key]
                ending.append(worker)
        left = set(ending)
        while left:
            # Said again until it is heard: see `shared.service`.
            for worker in left:
                worker.cancel()
            _, left = await asyncio.wait(left, timeout=0.5)
        for key, job in jobs.items():
            if key not in self._workers:
                self._workers[key] = job.revision, tasks.create_task(self._work(job), name=f"remote {'.'.join(key)}")

    async def _work(self, job: RemoteJob) -> None:
        """Look at one remote for as long as it is as it is, whenever it is this replica's turn."""
        while True:
            try:
                lock = self._lock((job.app_key, job.id))
                if lock is not None:
                    try:
                        await self._poll_forever(job)
                    finally:
                        os.close(lock)
            except MillraceError as error:
                log.warning("remote_waits", app_key=job.app_key, remote=job.id, message=error.message)
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
            # Apart from each other, and from those who look at the full minute.
            at += timedelta(seconds=min((at - now).total_seconds() / 10, SPREAD_S) * random.random())
            await self._record(job, state, error, at)

    async def _sleep_until(self, at: datetime) -> None:
        # In steps, because the clock may be set.
        left_s = (at - self._clock()).total_seconds()
        while left_s > 0:
            await asyncio.sleep(min(left_s, CLOCK_CHECK_S))
            left_s = (at - self._clock()).total_seconds()

    async def _poll(self, puller: Puller) -> tuple[MillraceError | None, bool]:
        """Why it failed, and whether it has left something for soon."""
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
        """What came of a look, for whoever asks, and for the operator where it is news."""
        now = self._clock()
        before, tell, trouble = state.progress.trouble, False, None
        if error is not None:
            trouble, tell = failure_after(before, error, now, job.revision)
            log.warning("remote_fails", app_key=job.app_key, remote=job.id, code=error.code, message=error.message)
        if isinstance(error, UnknownHostError) and error.offered is not None:
            await state.put_offered(error.offered)
        # Told before it is noted: an alert that is told twice is better than none.
        if tell and error is not None:
            kind = "remote-unknown-host" if isinstance(error, UnknownHostError) else "remote-failing"
            await self._alerts.send(job.app_key, kind, job.id, error.message)
        elif error is None and before is not None and before.told_revision:
            await self._alerts.send(job.app_key, "remote-recovered", job.id, "files are pulled from there again")
        progress = replace(state.progress, looked_at=now, trouble=trouble)
        await state.put_progress(replace(progress, next_look_at=next_look_at, revision=job.revision))

    async def _stored_remotes(self) -> set[RemoteKey] | None:
        """Every remote of which something is known, configured or only tested. None: it cannot be read."""
        try:
            stored = [
                *await self._store.scan(keys.EVERY_PULL_PROGRESS),
                *await self._store.scan(keys.EVERY_OFFERED_HOST_KEY),
            ]
        except MillraceError as error:
            log.warning("remotes_not_erased", message=error.message)
            return None
        return {keys.remote_of_key(one.key) for one in stored}

    async def _erase(self, candidates: set[RemoteKey]) -> set[RemoteKey]:
        """Forget what was deleted, and give the rest: a remote that is only inactive keeps what it knows."""
        left = set(candidates)
        for key in candidates:
            try:
                if await self._is_deleted(key):
                    await self.state_of(*key).erase()
                    left.discard(key)
                    log.info("remote_erased", app_key=key[0], remote=key[1])
            except MillraceError as error:
                # Tried again with the next change.
                log.warning("remote_not_erased", app_key=key[0], remote=key[1], message=error.message)
        return left
