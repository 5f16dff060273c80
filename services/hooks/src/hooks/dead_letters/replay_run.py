"""
One call of a replay. It sends the rendered records as they are, through the queues of their hooks' present targets.
They go beside live records, so that a user never has two records in flight.

A dead letter is removed from `DLQ` once its record is confirmed or stored as a new dead letter, and never before. A
call that breaks off in between may send it twice and cannot lose it.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from datetime import datetime

from msgspec import Struct

from hooks.dead_letters.store import DeadLetterStore, StoredDeadLetter
from hooks.dead_letters.writer import ENTRANCE, ReplayedRecord
from hooks.delivery.counters import HookCounters
from hooks.delivery.model import PAUSING, Record, size_of
from hooks.delivery.targets import Targets
from hooks.matching.rule import Target

AT_ONCE = 500
"""Most queued records of a replay at a time, because live records share the queues."""


class ReplayReply(Struct, frozen=True, kw_only=True):
    """
    Outcome of the dead letters that a call read. `replayable` are those that it sent, or would send without a dry run.

    `sent` are confirmed and `dead_lettered` refused again; both are removed. All others stay. `not_replayable` are
    those of `entrance`, which were no events, and those whose body is cut. `inactive` are those of a deleted or
    inactive hook or connector. `oversize` are those over the limit of the target. `waiting` are those that were not
    confirmed in time, or whose target is paused.

    `next`, as `after` of the next call, continues behind the finished ones. Waiting dead letters hold it back, because
    order would be lost behind them. It ends at the newest dead letter of the first call.
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


class ReplayRun:
    """One call: the records in flight, and the outcome of the others."""

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
        """Count the outcomes of a dry run, and send nothing."""
        for dead_letter in letters:
            self._target(dead_letter)

    async def send(self, letters: list[StoredDeadLetter], per_second: float, work_s: float) -> None:
        """Queue every record that can be sent, and remove the dead letters of those that are finished."""
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
        """Build the reply at the end."""
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
        """Find the target of a dead letter, or count why it has none and return None."""
        if dead_letter.hook == ENTRANCE or dead_letter.cut or not dead_letter.key:
            self.not_replayable += 1
            return None
        rule = self._targets.index.find(self._app_key, dead_letter.hook)
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
        """Queue a dead letter. Returns False where it stays in `DLQ`."""
        target = self._target(dead_letter)
        if target is None:
            return False
        queue = self._targets.find(target)
        assert queue is not None
        error = queue.error if isinstance(queue.error, PAUSING) else None
        if error is not None or dead_letter.hook in self._held_hooks:
            # Those behind it would overtake it, so its hook waits.
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
            # Counters of its own, and not the hook's: they show the outcome of this very record.
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
            # Withdrawn, because its hook or connector has become inactive.
            self._held_hooks.add(record.hook_id)
            self._unfinished.append(record.dead_letter_id)
        self._changed.set()

    async def _wait(self) -> None:
        await self._changed.wait()
        # Before `_remove` and not after it, because more records may finish meanwhile.
        self._changed.clear()
        await self._remove()

    async def _remove(self) -> None:
        settled = list(self._settled)
        await self._store.remove([record.dead_letter_id for record in settled])
        # Only now: where the time is up in between, they are removed at the end.
        del self._settled[: len(settled)]


def _event_position(dead_letter: StoredDeadLetter) -> tuple[int, int, int]:
    """Position of the event in its stream. Dead letters are stored in the order of failures, which is another."""
    _, *position = dead_letter.source.split(":")
    if len(position) == 2 and all(part.isdecimal() for part in position):
        return int(position[0]), int(position[1]), dead_letter.id
    return 0, 0, dead_letter.id
