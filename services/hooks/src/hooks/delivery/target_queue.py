"""
Delivery of records to one target: batches, partial failure, order.

Order: each user has a queue, of which only the head is ever in flight. The next record moves up when the head is
confirmed. So a call has at most one record of a user, whatever fails and however many calls run. A call without an
answer may have been stored: its records go again before anything newer, so a duplicate is adjacent and never late.

A call begins when it is full, or when any record has lingered as long as its hook allows. It takes all that is ready.

One file, because put, timer, call and outcome share the state of one target; its parts are beside it:
`hooks.delivery.user_queues` (order), `concurrency_limit` (calls at once), `shard_backoff` and `target_health` (waits).
"""

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Sequence
from functools import partial
from typing import Any

import structlog

from hooks.delivery.concurrency_limit import ConcurrencyLimit
from hooks.delivery.model import (
    CallPolicy,
    DeadLetters,
    DeliveryObserver,
    Failed,
    Outcome,
    Record,
    Sink,
    SinkLimits,
)
from hooks.delivery.packing import PackedRecord, unpack
from hooks.delivery.shard_backoff import ShardBackoff
from hooks.delivery.target_health import TargetHealth
from hooks.delivery.user_queues import UserQueues
from hooks.matching.hook import BatchSettings
from hooks.matching.rule import Target
from shared.errors import InvalidError, MillraceError, TooLargeError, UnavailableError
from shared.runtime.telemetry import Metrics

log = structlog.get_logger()

Spawn = Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]]


class TargetQueue:
    """The records that wait for one target, and the calls that carry them. One event loop, no locks."""

    def __init__(
        self,
        target: Target,
        sink: Sink,
        policy: CallPolicy,
        *,
        spawn: Spawn,
        before_call: Callable[[], None],
        observer: DeliveryObserver,
        dead_letters: DeadLetters,
        metrics: Metrics,
    ) -> None:
        self._target = target
        self._sink = sink
        self._policy = policy
        self._spawn = spawn
        self._before_call = before_call
        self._dead_letters = dead_letters
        self._metrics = metrics
        self._loop = asyncio.get_running_loop()
        self._user_queues = UserQueues()
        self._calls: dict[asyncio.Task[None], list[Record]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._lingering: BatchSettings | None = None
        self._overdue = False
        self._saturated = False
        """The concurrency limit is reached; the end of a call checks again."""
        self._changed = asyncio.Event()
        self._concurrency = ConcurrencyLimit(policy.calls)
        self._shard_backoff = ShardBackoff(policy.retry, self._loop, self._resume, partial(observer.throttled, target))
        self._health = TargetHealth(target, policy, observer, self._loop.time)

    @property
    def limits(self) -> SinkLimits:
        """Limits of the sink. A record over `record_bytes` must not be put."""
        return self._sink.limits

    @property
    def error(self) -> MillraceError | None:
        """The failure that stops delivery; None while the target answers."""
        return self._health.error

    @property
    def waits_because(self) -> str | None:
        """The reason for which records wait; None while none of them was refused."""
        return self.error.message if self.error is not None else self._shard_backoff.refusal

    @property
    def failing(self) -> bool:
        """Return whether the target, or some record, waits to be tried again."""
        return self.error is not None or bool(self._shard_backoff.waiting)

    def contains(self, matches: Callable[[Record], bool]) -> bool:
        """Return whether a record is queued or in flight for which `matches` is true."""
        return any(map(matches, self.waiting()))

    def put(self, record: Record) -> None:
        """Append to the user's queue. Does not wait: the caller's ack window bounds what is queued."""
        if not self._user_queues.put(record) or self._saturated:
            return
        # Most records find a timer that was set for another one of their hook.
        batch, ready = record.batch, len(self._user_queues.ready)
        if batch is not self._lingering or ready >= batch.max_records or ready >= self._sink.limits.call_records:
            self._wake(batch)

    def renew(self, sink: Sink) -> None:
        """Continue with the sink of a new configuration at once. Calls in flight end with the sink they began with."""
        self._sink = sink
        self._health.reset()
        self._shard_backoff.reset()
        self._schedule(0.0)

    def waiting(self) -> list[Record]:
        """Every record that is not finished, each user's in order."""
        in_calls = [head for batch in self._calls.values() for head in batch]
        return self._user_queues.all([*in_calls, *self._shard_backoff.waiting])

    def release(self, matches: Callable[[Record], bool]) -> list[Record]:
        """
        Remove and return the records for which `matches` is true, each user's in order.

        Where there is one, calls in flight are cancelled, so the records that stay may be sent twice, in order.
        """
        records = self.waiting()
        if not any(map(matches, records)):
            return []
        self._clear()
        released: list[Record] = []
        for record in records:
            record.next = None
            if matches(record):
                released.append(record)
            else:
                self.put(record)
        self._changed.set()
        return released

    def withdraw_waiting(self, matches: Callable[[Record], bool]) -> tuple[list[Record], list[Record]]:
        """
        Remove the waiting records for which `matches` is true. No call is cancelled, so nothing is sent twice.

        Returns:
            The removed records, each user's in order, and the ones in flight for which `matches` is true. These stay.
        """
        heads = [head for batch in self._calls.values() for head in batch]
        sending = list(unpack(heads))
        in_calls = set(sending)
        waiting = [record for record in self.waiting() if record not in in_calls]
        self._shard_backoff.clear()
        self._user_queues.retain_only(heads)
        withdrawn: list[Record] = []
        for record in waiting:
            record.next = None
            if matches(record):
                withdrawn.append(record)
            else:
                self.put(record)
        self._changed.set()
        return withdrawn, [record for record in sending if matches(record)]

    async def drain(self) -> None:
        """
        Send the waiting records as long as the target answers, then close. Nothing may be put meanwhile.

        Records that a silent or paused target leaves are sent after the next start.
        """
        self._start_calls()
        while self._user_queues and (self._calls or self.error is None):
            self._changed.clear()
            await self._changed.wait()
        self.close()

    def close(self) -> None:
        """Cancel the calls in flight and begin no other. Unfinished records are sent after the next start."""
        self._clear()
        self._stop_timer()

    def _clear(self) -> None:
        self._saturated = False
        for call in self._calls:
            call.cancel()
        for held in (self._calls, self._shard_backoff, self._user_queues):
            held.clear()

    def _wake(self, batch: BatchSettings) -> None:
        self._saturated = len(self._calls) >= self._max_calls
        if self._saturated:
            return
        wait_s = self._health.wait_s
        if wait_s <= 0 and len(self._user_queues.ready) >= min(batch.max_records, self.limits.call_records):
            self._start_calls()
            return
        delay_s = max(wait_s, batch.linger_ms / 1000)
        if self._timer is None or self._loop.time() + delay_s < self._timer.when():
            self._schedule(delay_s)
            self._lingering = batch

    @property
    def _max_calls(self) -> int:
        # While the target fails, one call probes it.
        return 1 if self.error is not None else self._concurrency.calls

    def _schedule(self, delay_s: float) -> None:
        self._saturated = False
        self._stop_timer()
        self._timer = self._loop.call_later(delay_s, self._start_calls)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._lingering = None

    def _start_calls(self) -> None:
        self._stop_timer()
        if (delay_s := self._health.wait_s) > 0:
            self._schedule(delay_s)
            return
        while not self._user_queues.idle and len(self._calls) < self._max_calls:
            batch, full = self._user_queues.take_batch(
                self.limits, self._shard_backoff.hold_back if self._shard_backoff.blocked else None
            )
            if batch:
                self._calls[self._spawn(self._call(batch, full))] = batch
        self._overdue = not self._user_queues.idle

    async def _call(self, batch: list[Record], full: bool) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._before_call()
        if task not in self._calls:
            return  # Some of its records are another replica's now. The others are queued again.
        sink, begun = self._sink, self._concurrency.begin()
        try:
            outcomes = await sink.send(batch)
            if len(outcomes) != len(batch):
                raise UnavailableError(f"{len(outcomes)} outcomes for {len(batch)} records")
        except MillraceError as error:
            self._concurrency.record_failure(begun)
            await self._call_failed(batch, error, sink)
        except Exception as error:
            log.exception("sink_crashed", app_key=self._target.app_key, stream_name=self._target.stream_name)
            self._metrics.count("millrace_bugs_total", where="sink")
            self._concurrency.record_failure(begun)
            await self._call_failed(batch, UnavailableError(f"internal: {type(error).__name__}"), sink)
        else:
            failed = await self._apply_outcomes(batch, outcomes)
            if failed * 2 > len(outcomes):
                self._concurrency.record_failure(begun)
            else:
                self._concurrency.record_success(full=full)
        del self._calls[task]
        self._changed.set()
        self._continue()

    def _continue(self) -> None:
        self._saturated = False
        # Records that gathered during the last call, or were due when no call was free, have lingered enough.
        if self._overdue or not self._calls:
            self._start_calls()
        elif self._user_queues.ready:
            self._wake(self._user_queues.ready[0].batch)

    async def _apply_outcomes(self, batch: list[Record], outcomes: Sequence[Outcome]) -> int:
        """Finish and requeue by outcome. Returns how many records failed for now."""
        if inversions := self._shard_backoff.record_outcomes(batch, outcomes):
            self._metrics.count("millrace_hooks_order_inversions_total", inversions)
        sent, rest = self._user_queues.confirm(batch, outcomes)
        failed: list[tuple[Record, Failed]] = []
        refused: list[tuple[Record, Failed]] = []
        for record, outcome in rest:
            record.counters.fail(f"{outcome.code}: {outcome.message}")
            (failed if outcome.retryable else refused).append((record, outcome))
        if len(rest) < len(batch):
            self._health.record_answer()
        self._shard_backoff.record_refusals(failed)
        self._count("sent", sent)
        self._count("failed", _events(record for record, _ in failed))
        self._count("refused", _events(record for record, _ in refused))
        # A cancellation from here on finds only unfinished records.
        batch[:] = [record for record, _ in refused]
        for record, outcome in refused:
            await self._reject(record, outcome.message)
            batch.remove(record)
        return len(failed)

    async def _reject(self, record: Record, message: str) -> None:
        """Store a refused record as a dead letter. The records of a packed one are sent one by one first."""
        if record.events > 1:
            self._user_queues.suspect([record])
            return
        single = record.records[0] if isinstance(record, PackedRecord) else record
        await self._dead_letters.put_record(self._target, single, "rejected", message)
        self._user_queues.finish(record)
        self._health.record_rejection(message)

    def _resume(self, records: Sequence[Record]) -> None:
        self._user_queues.requeue(records)
        self._continue()

    async def _call_failed(self, batch: list[Record], error: MillraceError, sink: Sink) -> None:
        self._count(error.code, _events(batch))
        for record in batch:
            record.counters.fail(error.message)
        if sink is not self._sink:
            pass  # The connector changed during the call: its new values are tried at once.
        elif not isinstance(error, InvalidError | TooLargeError):
            self._health.record_failure(error)
        elif len(batch) > 1:
            self._user_queues.suspect(batch)
            batch.clear()
        else:
            await self._reject(batch[0], error.message)
            return
        self._user_queues.requeue(batch)
        batch.clear()

    def _count(self, outcome: str, records: int) -> None:
        if records:
            self._metrics.count(
                "millrace_hooks_records_total", records, stream=self._target.stream_name, outcome=outcome
            )


def _events(records: Iterable[Record]) -> int:
    return sum(record.events for record in records)
