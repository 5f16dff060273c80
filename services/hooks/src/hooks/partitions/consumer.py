"""
One partition of `EVENTS`: pull -> match -> deliver -> ack floor. It holds no rules of matching, order or retry.

`hooks.assignment.leases` decides which partitions are open. Two owners of one partition would still keep each
user's order. Each sends in order from an ack floor on, so the first arrivals of the events are in order; only the
repetitions would be further apart.
"""

import asyncio
from collections.abc import Sequence
from typing import Protocol

import structlog

from hooks.backlog.detachment import TargetDetachment
from hooks.backlog.reader import BacklogReaders
from hooks.backlog.routing import ReaderRouting
from hooks.dead_letters.writer import ENTRANCE, DeadLetterWriter
from hooks.delivery.ack_window import AckWindow, Bounds
from hooks.delivery.counters import DeliveryCounters
from hooks.delivery.targets import Targets
from hooks.events.decoding import DecodedMessage, read_each, read_whole
from hooks.partitions.dispatcher import Dispatcher, ProfileStore
from shared.contracts.streams import EVENTS
from shared.contracts.subjects import app_of_events, hooks_consumer
from shared.errors import MillraceError
from shared.messaging.message import Message
from shared.messaging.pull import ClosedError
from shared.runtime.slices import Slices
from shared.runtime.telemetry import Metrics

log = structlog.get_logger()

MESSAGES_AT_ONCE = 256
EVENTS_BETWEEN_CHECKS = 32
"""Events after which the time is asked, because asking costs a tenth of matching an event. A power of two."""
FIELDS_LOGGED = 1000
"""Unknown fields that are logged, each once: their names come from outside."""
ACK_EVERY_S = 0.05
PULL_CHECK_S = 10.0
"""Interval at which the state of the pull is compared with that of the server."""


class PartitionPull(Protocol):
    """The part of `shared.messaging.pull.Pull` that is needed here."""

    async def next(self, most: int) -> list[Message]: ...

    async def ack(self, message: Message) -> None: ...

    async def ack_sync(self, message: Message) -> None: ...

    async def check(self) -> None: ...

    def close(self) -> None: ...


class PartitionConsumer:
    """Reads one partition, in order. `run` is a task for as long as this replica holds the lease."""

    def __init__(
        self,
        number: int,
        pull: PartitionPull,
        *,
        targets: Targets,
        dead_letters: DeadLetterWriter,
        delivery_counters: DeliveryCounters,
        profiles: ProfileStore | None,
        metrics: Metrics,
        bounds: Bounds,
        backlog_readers: BacklogReaders,
    ) -> None:
        self._number = number
        self._pull = pull
        self._targets = targets
        self._dead_letters = dead_letters
        self._metrics = metrics
        self._window = AckWindow(bounds)
        routing = ReaderRouting(metrics)
        self._dispatcher = Dispatcher(
            number,
            routing,
            targets=targets,
            dead_letters=dead_letters,
            delivery_counters=delivery_counters,
            profiles=profiles,
            metrics=metrics,
        )
        self._detachment = TargetDetachment(
            number,
            self._window,
            routing,
            backlog_readers,
            targets=targets,
            delivery_counters=delivery_counters,
            dispatch=self._dispatcher.dispatch,
            metrics=metrics,
        )
        self._slices = Slices()
        self._unknown: set[tuple[str, str]] = set()
        self._matched = 0
        self._unmatched = 0
        self._closed = False
        self._lost = False
        self._ended = asyncio.Event()

    async def run(self) -> None:
        """Read until closed; acknowledge until cancelled."""
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._acknowledge())
                tasks.create_task(self._check_pull())
                try:
                    await self._detachment.load(tasks.create_task)
                    tasks.create_task(self._detachment.watch())
                    tasks.create_task(self._detachment.write_checkpoints())
                    await self._read()
                    await self._detachment.wait_readers_ended()
                finally:
                    self._ended.set()
        finally:
            self._detachment.deregister_all()

    def close(self) -> None:
        """Pull no more messages."""
        self._closed = True
        self._detachment.close()
        self._window.close()
        self._pull.close()

    def abort(self) -> None:
        """Stop at once, because the lease is lost: nothing more is queued, and nothing acknowledged."""
        self._lost = self._dispatcher.lost = True
        self.close()

    async def wait_ended(self) -> None:
        """Wait until no more records are queued."""
        await self._ended.wait()

    @property
    def waiting(self) -> int:
        """Number of unfinished records."""
        return self._window.records

    @property
    def oldest_ns(self) -> int | None:
        """Time at which the oldest incomplete message was stored; None where nothing waits."""
        return self._window.oldest_ns

    async def wait_empty(self) -> None:
        """Wait until no more records are queued and the queued ones are finished."""
        await self._ended.wait()
        await self._window.wait_empty()
        await self._detachment.wait_empty()

    async def settle(self) -> None:
        """Acknowledge complete messages and wait for the confirmation; others are redelivered after the next start."""
        if self._lost:
            return
        await self._detachment.settle()
        if self._window.floor is None:
            return
        try:
            await self._pull.ack_sync(self._window.floor)
        except MillraceError as error:
            log.warning("last_ack_failed", partition=self._number, message=error.message)

    async def _read(self) -> None:
        while True:
            try:
                messages = await self._pull.next(MESSAGES_AT_ONCE)
            except ClosedError:
                return
            for message in messages:
                if self._closed or (self._window.full and not await self._wait_room()):
                    return
                await self._dispatch_message(message)
            self._count_matched()
            self._metrics.gauge(
                "millrace_bus_lag_messages", messages[-1].pending, consumer=hooks_consumer(self._number)
            )

    async def _wait_room(self) -> bool:
        self._count_matched()
        return await self._window.wait_room()

    async def _acknowledge(self) -> None:
        while True:
            await self._window.moved.wait()
            await asyncio.sleep(ACK_EVERY_S)
            self._window.moved.clear()
            if self._lost:
                return
            assert self._window.floor is not None
            await self._pull.ack(self._window.floor)

    async def _check_pull(self) -> None:
        while not self._closed:
            await asyncio.sleep(PULL_CHECK_S)
            try:
                await self._pull.check()
            except MillraceError as error:
                log.info("pull_check_failed", partition=self._number, message=error.message)

    async def _dispatch_message(self, message: Message) -> None:
        pending = self._window.add(message)
        app_key = app_of_events(message.subject)
        whole = read_whole(message.data, app_key, self._number)
        decoded = (
            DecodedMessage(enumerate(whole))
            if whole is not None
            else await read_each(message.data, app_key, self._number)
        )
        # An ack does not need the body, and a window full of bodies would double the memory.
        message.data = b""
        place = f"{EVENTS.name}:{message.sequence}"
        for refusal in decoded.refused:
            source = place if refusal.index is None else f"{place}:{refusal.index}"
            await self._dead_letters.put(
                app_key, ENTRANCE, refusal.reason, message=refusal.message, source=source, body=refusal.body
            )
        if decoded.unknown:
            self._report_unknown(app_key, message.sequence, decoded.unknown)
        for index, event in decoded.events:
            if not index & (EVENTS_BETWEEN_CHECKS - 1):
                await self._slices.turn()
            if index and self._window.full and not await self._wait_room():
                return
            rules = self._targets.index.match(event)
            if not rules:
                self._unmatched += 1
                continue
            self._matched += 1
            source = f"{place}:{index}"
            if event.ext_id is not None:
                await self._dispatcher.dispatch(pending, event, source)
            elif oversize := self._dispatcher.put_matched(rules, pending, event, source):
                await self._dispatcher.put_oversize(oversize)
        pending.close()

    def _report_unknown(self, app_key: str, sequence: int, fields: Sequence[str]) -> None:
        self._metrics.count("millrace_hooks_events_total", len(fields), outcome="unknown_field")
        for field in fields:
            if (app_key, field) not in self._unknown and len(self._unknown) < FIELDS_LOGGED:
                self._unknown.add((app_key, field))
                log.warning("unknown_field_passed_over", app_key=app_key, sequence=sequence, field=field)

    def _count_matched(self) -> None:
        """Count in sums, because each addition to a counter costs as much as matching an event."""
        for outcome, events in (("matched", self._matched), ("unmatched", self._unmatched)):
            if events:
                self._metrics.count("millrace_hooks_events_total", events, outcome=outcome)
        self._matched = self._unmatched = 0
