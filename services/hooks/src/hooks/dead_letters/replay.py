"""
Dead letters sent again: the rendered records as they are, not rendered anew, through the lanes of their hooks' present
targets. Beside live records, so that a user has one record under way, whoever put it.

A letter is taken out of `DLQ` once its record is confirmed, or stored as a new letter, and never before: whatever
breaks off in between, it may be sent twice and cannot be lost.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from datetime import datetime

from msgspec import Struct

from hooks.dead_letters.store import DeadLetterFilter, DeadLetterStore, StoredDeadLetter
from hooks.dead_letters.writer import ENTRANCE, ReplayedRecord
from hooks.delivery.counters import DeliveryCounters, HookCounters
from hooks.delivery.model import PAUSING, Record, size_of
from hooks.delivery.targets import Targets
from hooks.matching.rule import Target
from shared.errors import ConflictError, InvalidError
from shared.runtime.telemetry import Metrics

READ_BYTES = 8 << 20
"""Of the letters that one call holds in memory, about."""
WORK_S = 25.0
"""How long one call takes at most, because somebody waits for its answer."""
AT_ONCE = 500
"""Records of a replay in the lanes at a time: live ones share them."""


class ReplayReply(Struct, frozen=True, kw_only=True):
    """
    What became of the letters that were looked at, or would be sent by a call that is no dry run (`replayable`).

    `sent` are confirmed and `dead_lettered` refused again; both are gone from where they were. All others stay.
    `not_replayable` are those of `entrance`, which were no events, and those whose body is cut; `inactive` those of a
    hook or connector that is gone or inactive; `oversize` those that the target still does not take; `waiting` those
    that were not confirmed in time, or whose target is paused.

    `next`, as `after` of the next call, goes on behind what is finished. Letters that wait hold it back, because order
    would be lost behind them. It ends at the letters that there were at the first call.
    """

    letters: int
    replayable: int
    sent: int = 0
    dead_lettered: int = 0
    not_replayable: int = 0
    inactive: int = 0
    oversize: int = 0
    waiting: int = 0
    last_error: str | None = None
    next: str | None = None


class Replays:
    """One replay of an app at a time. The intake of the service, as far as it concerns replays."""

    def __init__(
        self,
        letters: DeadLetterStore,
        targets: Targets,
        delivery_counters: DeliveryCounters,
        metrics: Metrics,
        clock: Callable[[], datetime],
        *,
        work_s: float = WORK_S,
    ) -> None:
        self._store = letters
        self._targets = targets
        self._delivery_counters = delivery_counters
        self._metrics = metrics
        self._clock = clock
        self._work_s = work_s
        self._running: dict[str, _Replay | None] = {}
        self._ended = asyncio.Event()
        self._closed = False

    async def run(
        self, wanted: DeadLetterFilter, *, after: str | None, limit: int, per_second: float, dry_run: bool
    ) -> ReplayReply:
        """
        Send up to `limit` letters again, not faster than `per_second`.

        Each user's go in the order of their events, as far as one call reads them. A call reads about 8 MiB and takes
        25 s at most, and `next` tells where to go on.

        Raises:
            ConflictError: One runs for the app already.
            InvalidError: `after` is none that was given.
        """
        if wanted.app_key in self._running:
            raise ConflictError("a replay of this app is running")
        self._running[wanted.app_key] = None
        try:
            start, through = _parse(after) if after is not None else (0, await self._store.newest())
            letters, following = await self._store.read(
                wanted, after=start, through=through, limit=limit, max_bytes=READ_BYTES
            )
            replay = self._running[wanted.app_key] = _Replay(wanted.app_key, self._store, self._targets, self._clock)
            if self._closed:
                replay.close()
            if dry_run:
                replay.count(letters)
            else:
                try:
                    await replay.send(letters, per_second, self._work_s)
                finally:
                    self._count(wanted.app_key, replay)
            return replay.reply(len(letters), following, through)
        finally:
            del self._running[wanted.app_key]
            self._ended.set()

    def close(self) -> None:
        """Send no more."""
        self._closed = True
        for replay in self._running.values():
            if replay is not None:
                replay.close()

    async def join(self) -> None:
        """Until no replay runs."""
        while self._running:
            self._ended.clear()
            await self._ended.wait()

    def _count(self, app_key: str, replay: "_Replay") -> None:
        for hook_id, sent in replay.sent_of.items():
            self._delivery_counters.of(app_key, hook_id).replayed += sent
        for outcome, records in (("sent", replay.sent), ("dead_lettered", replay.dead_lettered)):
            self._metrics.count("millrace_hooks_replayed_total", records, outcome=outcome)


class _Replay:
    """One call: which letters are under way, and what became of the others."""

    def __init__(self, app_key: str, letters: DeadLetterStore, targets: Targets, clock: Callable[[], datetime]) -> None:
        self._app_key = app_key
        self._store = letters
        self._targets = targets
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._sending: dict[int, ReplayedRecord] = {}
        self._settled: list[ReplayedRecord] = []
        self._changed = asyncio.Event()
        self._closed = False
        self._held_hooks: set[str] = set()
        self._unfinished: list[int] = []
        self.replayable = self.sent = self.dead_lettered = 0
        self.not_replayable = self.inactive = self.oversize = 0
        self.last_error: str | None = None
        self.sent_of: dict[str, int] = {}

    def close(self) -> None:
        self._closed = True
        self._changed.set()

    def count(self, letters: list[StoredDeadLetter]) -> None:
        """Count, and send nothing."""
        for dead_letter in letters:
            self._target(dead_letter)

    async def send(self, letters: list[StoredDeadLetter], per_second: float, work_s: float) -> None:
        """Put everything that can go into the lanes, and take out what has arrived."""
        ordered = deque(sorted(letters, key=_event_position))
        try:
            async with asyncio.timeout(work_s):
                while ordered and not self._closed:
                    due = self._loop.time() + 1 / per_second
                    if self._put(ordered.popleft()):
                        await asyncio.sleep(due - self._loop.time())
                    await self._remove()
                    while len(self._sending) >= AT_ONCE and not self._closed:
                        await self._wait()
                while self._sending and not self._closed:
                    await self._wait()
        except TimeoutError:
            pass
        finally:
            if self._sending:
                self._targets.withdraw(set(self._sending.values()))
            for record in self._sending.values():
                self.last_error = record.counters.last_error or self.last_error
            self._unfinished += [*self._sending, *(dead_letter.id for dead_letter in ordered)]
            self._sending.clear()
        await self._remove()

    def reply(self, letters: int, following: int | None, through: int) -> ReplayReply:
        """What is known at the end."""
        after = min(self._unfinished) - 1 if self._unfinished else following
        return ReplayReply(
            letters=letters,
            replayable=self.replayable,
            sent=self.sent,
            dead_lettered=self.dead_lettered,
            not_replayable=self.not_replayable,
            inactive=self.inactive,
            oversize=self.oversize,
            waiting=len(self._unfinished),
            last_error=self.last_error,
            next=f"{after}-{through}" if after is not None else None,
        )

    def _target(self, dead_letter: StoredDeadLetter) -> Target | None:
        """Where it would go; None where it cannot go, which is counted."""
        if dead_letter.hook == ENTRANCE or dead_letter.cut or not dead_letter.key:
            self.not_replayable += 1
            return None
        rule = self._targets.index.rules.get((self._app_key, dead_letter.hook))
        queue = self._targets.find(rule.target) if rule is not None else None
        if rule is None or queue is None:
            self.inactive += 1
            return None
        most = min(rule.hook.max_record_bytes, queue.limits.record_bytes)
        if len(dead_letter.body.encode()) + len(dead_letter.key.encode()) > most:
            self.oversize += 1
            return None
        self.replayable += 1
        return rule.target

    def _put(self, dead_letter: StoredDeadLetter) -> bool:
        """False where the letter stays where it is."""
        target = self._target(dead_letter)
        if target is None:
            return False
        queue = self._targets.find(target)
        assert queue is not None
        error = queue.error if isinstance(queue.error, PAUSING) else None
        if error is not None or dead_letter.hook in self._held_hooks:
            # Those behind it would overtake it.
            self._held_hooks.add(dead_letter.hook)
            self._unfinished.append(dead_letter.id)
            self.last_error = error.message if error is not None else self.last_error
            return False
        data = dead_letter.body.encode()
        record = ReplayedRecord(
            dead_letter_id=dead_letter.id,
            key=dead_letter.key,
            data=data,
            size=size_of(dead_letter.key, data),
            hook_id=dead_letter.hook,
            source=dead_letter.source,
            attempts=dead_letter.attempts,
            # Its own, and not the hook's: it tells what became of this very record.
            counters=HookCounters(self._clock),
            done=self._done,
        )
        self._sending[dead_letter.id] = record
        queue.put(record)
        return True

    def _done(self, record: Record) -> None:
        assert isinstance(record, ReplayedRecord)
        if self._sending.pop(record.dead_letter_id, None) is None:
            return
        counters = record.counters
        self.last_error = counters.last_error or self.last_error
        if counters.sent:
            self.sent += 1
            self.sent_of[record.hook_id] = self.sent_of.get(record.hook_id, 0) + 1
            self._settled.append(record)
        elif counters.dead_lettered:
            self.dead_lettered += 1
            self._settled.append(record)
        else:
            # Let go, because its hook or connector is inactive since.
            self._held_hooks.add(record.hook_id)
            self._unfinished.append(record.dead_letter_id)
        self._changed.set()

    async def _wait(self) -> None:
        await self._changed.wait()
        # Before, and not after, what is settled is taken out: more may settle meanwhile.
        self._changed.clear()
        await self._remove()

    async def _remove(self) -> None:
        settled = list(self._settled)
        await self._store.remove([record.dead_letter_id for record in settled])
        # Only now: where the time is up in between, they are taken out at the end.
        del self._settled[: len(settled)]


def _event_position(dead_letter: StoredDeadLetter) -> tuple[int, int, int]:
    """Where the event lies in its stream. Letters come in the order in which their records failed, which is another."""
    _, *position = dead_letter.source.split(":")
    if len(position) == 2 and all(part.isdecimal() for part in position):
        return int(position[0]), int(position[1]), dead_letter.id
    return 0, 0, dead_letter.id


def _parse(after: str) -> tuple[int, int]:
    number, _, through = after.partition("-")
    if not (number.isdecimal() and through.isdecimal()):
        raise InvalidError("expected `next` of an earlier answer", field="after")
    return int(number), int(through)
