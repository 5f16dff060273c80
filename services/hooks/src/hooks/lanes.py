"""
How records reach one target: batches, partial failure, order, back-off.

Order. Each user has a lane. Only the head of a lane is ever in flight, and the next record moves up when the head is
confirmed, so a call takes at most one record of a user, whatever fails and however many calls run. A call that ended
without a word may have landed: its records go again before anything newer, so a duplicate is adjacent, never late.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Sequence
from itertools import count
from typing import Any

import structlog

from hooks.delivery import (
    DeadLetters,
    Failed,
    Limits,
    Outcome,
    Policy,
    Record,
    Sent,
    Sink,
    Watcher,
)
from hooks.triggers import Target
from hooks.trouble import Trouble, wait_s
from shared.errors import InvalidError, MillraceError, TooLargeError, UnavailableError
from shared.telemetry import Metrics

log = structlog.get_logger()

USERS_REMEMBERED = 1024
"""Users per target whose last sequence number is kept, to notice a record that was stored before an earlier one."""

Spawn = Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]]


class Lanes:
    """
    The records that wait for one target, and the calls that carry them. One event loop, no locks.

    A lane is a chain of records from its head (ready, in a call, or waiting to be tried again) to its tail.
    """

    def __init__(
        self,
        target: Target,
        sink: Sink,
        policy: Policy,
        *,
        spawn: Spawn,
        watcher: Watcher,
        dead_letters: DeadLetters,
        metrics: Metrics,
    ) -> None:
        self._target = target
        self._sink = sink
        self._policy = policy
        self._spawn = spawn
        self._dead_letters = dead_letters
        self._metrics = metrics
        self._loop = asyncio.get_running_loop()
        self._tails: dict[str, Record] = {}
        self._ready: deque[Record] = deque()
        self._suspects: deque[Record] = deque()
        self._calls: dict[asyncio.Task[None], list[Record]] = {}
        self._again: dict[int, list[Record]] = {}
        self._numbers = count()
        self._timer: asyncio.TimerHandle | None = None
        self._changed = asyncio.Event()
        self._last: dict[str, Sent] = {}
        self._trouble = Trouble(target, policy, watcher, self._loop.time)

    @property
    def limits(self) -> Limits:
        """The sink's. A record over `record_bytes` must not be put."""
        return self._sink.limits

    @property
    def error(self) -> MillraceError | None:
        """Why nothing goes out at present; None while the target answers."""
        return self._trouble.error

    @property
    def failing(self) -> bool:
        """Whether the target, or some record, waits to be tried again."""
        return self.error is not None or bool(self._again)

    def holds(self, picks: Callable[[Record], bool]) -> bool:
        """Whether a record that `picks` picks is in here."""
        return any(map(picks, self._records()))

    def put(self, record: Record) -> None:
        """Append to the user's lane. Does not wait; whoever puts bounds what is in here."""
        tail = self._tails.get(record.key)
        self._tails[record.key] = record
        if tail is not None:
            tail.next = record
            return
        self._ready.append(record)
        self._wake()

    def renew(self, sink: Sink) -> None:
        """The configuration changed: go on at once with `sink`. Calls in flight end with the sink they began with."""
        self._sink = sink
        self._trouble.renewed()
        self._look_again(0.0)

    def release(self, leaves: Callable[[Record], bool]) -> list[Record]:
        """
        Take out the records that `leaves` picks, each user's in order, and keep the rest.

        Where one leaves, calls in flight are broken off, so what stays may be sent twice, in order.
        """
        records = self._records()
        if not any(map(leaves, records)):
            return []
        self._clear()
        released: list[Record] = []
        for record in records:
            record.next = None
            if leaves(record):
                released.append(record)
            else:
                self.put(record)
        self._changed.set()
        return released

    def part(self, leaves: Callable[[Record], bool]) -> tuple[list[Record], list[Record]]:
        """
        Take out the waiting records that `leaves` picks, without breaking off a call, so that nothing is sent twice.

        Gives:
            What was taken out, each user's in order, and what `leaves` picks and is in a call: it stays in here.
        """
        flying = [record for batch in self._calls.values() for record in batch]
        in_calls = set(flying)
        waiting = [record for record in self._records() if record not in in_calls]
        for held in (self._again, self._suspects, self._ready, self._tails):
            held.clear()
        for record in flying:
            record.next = None
            self._tails[record.key] = record
        parted: list[Record] = []
        for record in waiting:
            record.next = None
            if leaves(record):
                parted.append(record)
            else:
                self.put(record)
        self._changed.set()
        return parted, [record for record in flying if leaves(record)]

    def _records(self) -> list[Record]:
        held = (*self._calls.values(), *self._again.values(), self._suspects, self._ready)
        return [record for batch in held for head in batch for record in _chain(head)]

    async def drain(self) -> None:
        """
        Send what waits, as long as the target answers, then begin nothing more.

        What a silent or paused target leaves goes out after the next start. Nothing may be put any more.
        """
        self._pump()
        while self._tails and (self._calls or self.error is None):
            self._changed.clear()
            await self._changed.wait()
        self.close()

    def close(self) -> None:
        """Break off what is in flight and begin nothing more. What is not done comes again after the next start."""
        self._clear()
        if self._timer is not None:
            self._timer.cancel()

    def _clear(self) -> None:
        for call in self._calls:
            call.cancel()
        for held in (self._calls, self._again, self._suspects, self._ready, self._tails):
            held.clear()

    def _wake(self) -> None:
        if len(self._calls) >= self._slots:
            return
        if len(self._ready) >= self.limits.call_records and self._trouble.wait_s <= 0:
            self._pump()
        elif self._timer is None:
            self._look_again(self._policy.linger_s)

    @property
    def _slots(self) -> int:
        # While the target is in trouble one call asks for all.
        return 1 if self.error is not None else self._policy.calls

    def _look_again(self, delay_s: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(delay_s, self._pump)

    def _pump(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if (delay_s := self._trouble.wait_s) > 0:
            self._look_again(delay_s)
            return
        while (self._ready or self._suspects) and len(self._calls) < self._slots:
            batch = self._take()
            self._calls[self._spawn(self._call(batch))] = batch

    def _take(self) -> list[Record]:
        batch: list[Record] = []
        if self._suspects:
            batch.append(self._suspects.popleft())
        else:
            ready, most, room = self._ready, self.limits.call_records, self.limits.call_bytes
            while ready and len(batch) < most and (not batch or ready[0].size <= room):
                room -= ready[0].size
                batch.append(ready.popleft())
        for record in batch:
            record.attempts += 1
        return batch

    async def _call(self, batch: list[Record]) -> None:
        sink = self._sink
        try:
            outcomes = await sink.send(batch)
            if len(outcomes) != len(batch):
                raise UnavailableError(f"{len(outcomes)} outcomes for {len(batch)} records")
        except MillraceError as error:
            await self._whole_call_failed(batch, error, sink)
        except Exception as error:
            log.exception("sink_bug", app_key=self._target.app_key, stream_name=self._target.stream_name)
            self._metrics.count("millrace_bugs_total", where="sink")
            await self._whole_call_failed(batch, UnavailableError(f"internal: {type(error).__name__}"), sink)
        else:
            await self._settle(batch, outcomes)
        task = asyncio.current_task()
        assert task is not None
        del self._calls[task]
        self._changed.set()
        if self._calls:
            self._wake()
        else:
            # What gathered while the call ran has lingered enough.
            self._pump()

    async def _settle(self, batch: list[Record], outcomes: Sequence[Outcome]) -> None:
        failed: list[Record] = []
        refused: list[tuple[Record, Failed]] = []
        for record, outcome in zip(batch, outcomes, strict=True):
            if type(outcome) is Sent:
                self._confirm(record, outcome)
                continue
            assert isinstance(outcome, Failed)
            record.tally.fail(f"{outcome.code}: {outcome.message}")
            if outcome.retryable:
                failed.append(record)
            else:
                refused.append((record, outcome))
        if len(failed) + len(refused) < len(batch):
            self._trouble.answered()
        if failed:
            self._try_again(failed)
        self._count("sent", len(batch) - len(failed) - len(refused))
        self._count("failed", len(failed))
        self._count("refused", len(refused))
        # Whoever breaks the call off from here on finds only what is not finished.
        batch[:] = [record for record, _ in refused]
        for record, outcome in refused:
            await self._bury(record, outcome.message)
            batch.remove(record)

    def _confirm(self, record: Record, sent: Sent) -> None:
        if sent.shard:
            self._check_order(record.key, sent)
        record.tally.sent += 1
        self._finish(record)

    def _check_order(self, key: str, sent: Sent) -> None:
        last = self._last.pop(key, None)
        if last is not None and last.shard == sent.shard and sent.sequence <= last.sequence:
            self._metrics.count("millrace_hooks_order_inversions_total")
        self._last[key] = sent
        if len(self._last) > USERS_REMEMBERED:
            del self._last[next(iter(self._last))]

    def _finish(self, record: Record) -> None:
        following = record.next
        if following is None:
            del self._tails[record.key]
        else:
            self._ready.append(following)
        record.done(record)

    async def _bury(self, record: Record, message: str) -> None:
        await self._dead_letters.put_record(self._target, record, "rejected", message)
        self._finish(record)

    def _try_again(self, failed: list[Record]) -> None:
        number = next(self._numbers)
        self._again[number] = failed
        delay_s = wait_s(self._policy.retry, min(record.attempts for record in failed))
        self._loop.call_later(delay_s, self._back, number)

    def _back(self, number: int) -> None:
        # Nothing is there when the records were released while they waited.
        self._ready.extendleft(reversed(self._again.pop(number, ())))
        self._wake()

    async def _whole_call_failed(self, batch: list[Record], error: MillraceError, sink: Sink) -> None:
        self._count(error.code, len(batch))
        for record in batch:
            record.tally.fail(error.message)
        if sink is not self._sink:
            pass  # The connector has changed since: its new values are tried at once.
        elif not isinstance(error, InvalidError | TooLargeError):
            self._trouble.failed(error)
        elif len(batch) > 1:
            self._suspects.extend(batch)
            batch.clear()
        else:
            await self._bury(batch[0], error.message)
            return
        self._ready.extendleft(reversed(batch))
        batch.clear()

    def _count(self, outcome: str, records: int) -> None:
        if records:
            self._metrics.count(
                "millrace_hooks_records_total", records, stream=self._target.stream_name, outcome=outcome
            )


def _chain(head: Record) -> Iterable[Record]:
    record: Record | None = head
    while record is not None:
        # Whoever takes the record out of the chain clears `next`.
        following = record.next
        yield record
        record = following
