"""A sink in memory that obeys the port's contract and fails on demand. No test lives here."""

import asyncio
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from itertools import count
from typing import Self

from hooks.delivery.counters import HookCounters
from hooks.delivery.model import PLAIN, CallPolicy, Outcome, Record, Sent, Sink, SinkLimits, size_of
from hooks.delivery.target_queue import TargetQueue
from hooks.matching.hook import BatchSettings
from hooks.matching.rule import Target
from shared.errors import MillraceError
from shared.runtime.retry import Backoff
from shared.runtime.telemetry import Metrics

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
TARGET = Target("shop", "orders")
NO_LINGER = BatchSettings(linger_ms=0)
NO_BACKOFF = CallPolicy(retry=Backoff(first_s=0, max_s=0), probe=Backoff(first_s=0, max_s=0))

Answer = Callable[["MemorySink", Sequence[Record]], Sequence[Outcome]]
"""One call: it stores records by `MemorySink.store`, and returns the outcomes or raises."""


def store_all(sink: "MemorySink", batch: Sequence[Record]) -> Sequence[Outcome]:
    """A call that succeeds."""
    return [sink.store(record) for record in batch]


def make_record(
    *,
    key: str,
    data: bytes,
    hook_id: str,
    source: str,
    counters: HookCounters,
    done: Callable[[Record], None],
    batch: BatchSettings = PLAIN,
    at_ns: int = 0,
    partition: int | None = None,
) -> Record:
    """A record of its own size."""
    return Record(
        key=key,
        data=data,
        size=size_of(key, data, batch),
        hook_id=hook_id,
        source=source,
        counters=counters,
        done=done,
        batch=batch,
        at_ns=at_ns,
        partition=partition,
    )


class MemorySink:
    """
    Satisfies `hooks.delivery.model.Sink`. A call takes the next of `answers`, and `store_all` when there is none left.
    """

    def __init__(self, *answers: Answer, limits: SinkLimits | None = None, turns: int = 1) -> None:
        self.limits = limits or SinkLimits(call_records=500, call_bytes=5 << 20, record_bytes=1 << 20)
        self.answers = list(answers)
        self.turns = turns
        self.stored: list[Record] = []
        self.batches: list[list[Record]] = []
        self.most_at_once = 0
        self.gate = asyncio.Event()
        self.gate.set()
        self.misused: list[str] = []
        """Violations of the port by the caller."""
        self._in_flight: list[str] = []
        self.calls = 0
        self._sequence = count(1)

    async def send(self, batch: Sequence[Record]) -> Sequence[Outcome]:
        keys = [record.key for record in batch]
        self._demand(len(set(keys)) == len(keys), "two records of a user in one call")
        self._demand(not set(keys) & set(self._in_flight), "two records of a user in flight")
        self._demand(1 <= len(batch) <= self.limits.call_records, "too many records in a call, or none")
        size = sum(record.size for record in batch)
        self._demand(size <= self.limits.call_bytes or len(batch) == 1, "a call that is too large")
        self._in_flight += keys
        self.calls += 1
        self.most_at_once = max(self.most_at_once, self.calls)
        self.batches.append(list(batch))
        answer = self.answers.pop(0) if self.answers else store_all
        try:
            for _ in range(self.turns):
                await asyncio.sleep(0)
            await self.gate.wait()
            return answer(self, batch)
        finally:
            self.calls -= 1
            for key in keys:
                self._in_flight.remove(key)

    async def ping(self) -> None:
        """Always there."""

    def _demand(self, holds: bool, otherwise: str) -> None:
        # The target queue takes an exception for a bug of the sink, and tries again.
        if not holds:
            self.misused.append(otherwise)

    def store(self, record: Record) -> Sent:
        """The record reaches the stream."""
        self.stored.append(record)
        return Sent("shard-0", str(next(self._sequence)))


class RecordingObserver:
    """Satisfies `hooks.delivery.model.DeliveryObserver`: records what is reported to operators."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def paused(self, target: Target, error: MillraceError) -> None:
        self.said.append(f"paused {target.stream_name}: {error.code}")

    def resumed(self, target: Target) -> None:
        self.said.append(f"resumed {target.stream_name}")

    def throttled(self, target: Target, message: str) -> None:
        self.said.append(f"throttled {target.stream_name}: {message}")

    def rejects(self, target: Target, message: str) -> None:
        self.said.append(f"rejects {target.stream_name}: {message}")


class RecordingDeadLetters:
    """Satisfies `hooks.delivery.model.DeadLetters`."""

    def __init__(self) -> None:
        self.put: list[tuple[str, str]] = []

    async def put_record(self, target: Target, record: Record, reason: str, message: str) -> None:
        await asyncio.sleep(0)
        self.put.append((record.source, reason))


class TargetQueueHarness:
    """
    A target queue over any sink, with its other ports in memory, as an async context manager. `finished` are the
    records that are done; they are numbered from `first` on. `before_call` is called before each call.
    """

    def __init__(self, sink: Sink, policy: CallPolicy, *, first: int = 0) -> None:
        self.before_call: Callable[[], None] = lambda: None
        self.heard = RecordingObserver()
        self.letters = RecordingDeadLetters()
        self.metrics = Metrics()
        self.counters = HookCounters(lambda: NOW)
        self.finished: list[Record] = []
        self._sources = count(first)
        self._tasks = asyncio.TaskGroup()
        self.queue = TargetQueue(
            TARGET,
            sink,
            policy,
            spawn=self._tasks.create_task,
            before_call=lambda: self.before_call(),
            observer=self.heard,
            dead_letters=self.letters,
            metrics=self.metrics,
        )

    async def __aenter__(self) -> Self:
        await self._tasks.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.queue.close()
        await self._tasks.__aexit__(None, None, None)

    def put(self, user: str, data: str = "x", hook_id: str = "hook", batch: BatchSettings = NO_LINGER) -> Record:
        """One more record of a user."""
        record = make_record(
            key=user,
            data=data.encode(),
            hook_id=hook_id,
            source=f"EVENTS:{next(self._sources)}:0",
            counters=self.counters,
            done=self._done,
            batch=batch,
        )
        self.queue.put(record)
        return record

    async def wait_finished(self, number: int) -> None:
        """Wait until so many records are done."""
        await self.wait(lambda: len(self.finished) >= number)

    async def wait(self, condition: Callable[[], bool]) -> None:
        """Wait for a condition, checked at every turn of the event loop."""
        while not condition():
            await asyncio.sleep(0)

    async def turn(self, times: int) -> None:
        """Let the event loop turn so often."""
        for _ in range(times):
            await asyncio.sleep(0)

    def _done(self, record: Record) -> None:
        self.finished.append(record)


class MemoryTargetQueue(TargetQueueHarness):
    """A target queue over a sink in memory. A violation of the sink's port fails the test."""

    def __init__(self, sink: MemorySink, policy: CallPolicy = NO_BACKOFF, *, first: int = 0) -> None:
        super().__init__(sink, policy, first=first)
        self.sink = sink

    async def __aexit__(self, *_: object) -> None:
        await super().__aexit__()
        assert [] == self.sink.misused
