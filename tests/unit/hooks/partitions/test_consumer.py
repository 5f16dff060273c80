"""One partition: the messages that it takes, holds back and acknowledges."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import datetime

from hooks.backlog.checkpoints import Checkpoints, StoredCheckpoint
from hooks.backlog.reader import BacklogReaders, EventScan
from hooks.dead_letters.writer import DeadLetterWriter
from hooks.delivery.ack_window import Bounds
from hooks.delivery.counters import DeliveryCounters
from hooks.delivery.model import CallPolicy
from hooks.delivery.targets import ActiveConnector, Targets
from hooks.matching.hook import Hook
from hooks.matching.rule import HookIndex, Rule, Target
from hooks.partitions.consumer import PartitionConsumer
from hooks.partitions.dispatcher import ProfileStore
from hooks.partitions.pool import ConsumerPool
from shared.contracts.messages import Event, encode, make_attributes, make_profile_attributes
from shared.contracts.subjects import partition_of
from shared.errors import InvalidError, UnavailableError
from shared.messaging.bus import Published, StreamState
from shared.messaging.message import Message
from shared.messaging.pull import ClosedError
from shared.profiles.store import Profile
from shared.runtime.telemetry import Metrics
from support.fakes.sink import NOW, MemorySink, RecordingDeadLetters, RecordingObserver

USER = "u1"
RULE = Rule(
    app_key="shop",
    hook_id="all",
    revision=1,
    hook=Hook(name="all", stream_name="orders", trigger_type="EVENT", event_code="*"),
)


class Stream:
    """A pull over messages in memory, which remembers what was acknowledged."""

    def __init__(self, *messages: bytes) -> None:
        self._left = [
            Message(f"events.shop.{partition_of(USER)}", data, sequence=place, at_ns=0)
            for place, data in enumerate(messages, start=1)
        ]
        self._closed = asyncio.Event()
        self.handed_out = 0
        self.acked = 0

    async def next(self, most: int) -> list[Message]:
        if not self._left:
            await self._closed.wait()
        if self._closed.is_set():
            raise ClosedError
        batch, self._left = self._left[:1], self._left[1:]
        self.handed_out += 1
        await asyncio.sleep(0)
        return batch

    async def ack(self, message: Message) -> None:
        self.acked = message.sequence

    async def ack_sync(self, message: Message) -> None:
        self.acked = message.sequence

    async def check(self) -> None:
        """Succeed always."""

    def close(self) -> None:
        self._closed.set()


class Bus:
    """A bus that records the subjects of dead letters."""

    max_payload = 1 << 20

    def __init__(self) -> None:
        self.subjects: list[str] = []
        self.gate = asyncio.Event()
        self.gate.set()

    async def publish(self, subject: str, data: bytes, *, message_id: str | None = None) -> Published:
        self.subjects.append(subject)
        await self.gate.wait()
        return Published(1, False)


def message(*ids: str) -> bytes:
    return encode([Event(id=name, app_key="shop", code="c", user_id=USER, ext_id="x", occurred_at=1) for name in ids])


class NoEvents:
    """`EVENTS`, where nothing has to be read again."""

    def scan(self, app_key: str, partition: int, start: int) -> AbstractAsyncContextManager[EventScan]:
        raise AssertionError

    async def state(self) -> StreamState:
        raise AssertionError


class NoCheckpoints(Checkpoints):
    """Checkpoints of a bucket in which no target is detached."""

    def __init__(self) -> None:
        pass

    async def take_over(self, partition: int, owner: str) -> list[StoredCheckpoint]:
        return []


class Unheard:
    """Observer that must stay unused."""

    def far_behind(self, target: Target, since: datetime) -> None:
        raise AssertionError

    def caught_up(self, target: Target) -> None:
        raise AssertionError

    def lost(self, target: Target, events: int) -> None:
        raise AssertionError


class Scene:
    def __init__(self, stream: Stream, bounds: Bounds, profiles: ProfileStore | None) -> None:
        self.stream = stream
        self.sink = MemorySink()
        self.bus = Bus()
        self.delivery_counters = DeliveryCounters(lambda: NOW)
        self.targets = Targets(
            CallPolicy(), observer=RecordingObserver(), dead_letters=RecordingDeadLetters(), metrics=Metrics()
        )
        self.partition = PartitionConsumer(
            partition_of(USER),
            stream,
            targets=self.targets,
            dead_letters=DeadLetterWriter(self.bus, Metrics(), lambda: NOW),
            delivery_counters=self.delivery_counters,
            profiles=profiles,
            metrics=Metrics(),
            bounds=bounds,
            backlog_readers=BacklogReaders(NoEvents(), NoCheckpoints(), observer=Unheard(), clock=lambda: NOW),
        )

    def serve(self) -> None:
        connector = ActiveConnector(revision=1, open=lambda _: self.sink)
        self.targets.apply(HookIndex([RULE]), {RULE.target: connector})

    async def wait(self, condition: Callable[[], bool]) -> None:
        while not condition():
            await asyncio.sleep(0)

    async def rest(self) -> None:
        """Let all tasks run as far as they can."""
        for _ in range(100):
            await asyncio.sleep(0)


@asynccontextmanager
async def scene(
    *messages: bytes, bounds: Bounds | None = None, profiles: ProfileStore | None = None, served: bool = True
) -> AsyncIterator[Scene]:
    """A partition that is being read."""
    scene = Scene(Stream(*messages), bounds or Bounds(), profiles)
    async with scene.targets, asyncio.TaskGroup() as tasks:
        if served:
            scene.serve()
        else:
            scene.targets.apply(HookIndex([RULE]), {})
        running = tasks.create_task(scene.partition.run())
        yield scene
        running.cancel()


async def test_a_full_ack_window_pulls_no_more() -> None:
    bounds = Bounds(records=3, bytes=1 << 20, messages=100)
    async with scene(*(message(f"e{number}") for number in range(20)), bounds=bounds) as told:
        told.sink.gate.clear()
        await told.rest()
        held = told.stream.handed_out
        told.sink.gate.set()
        await told.wait(lambda: len(told.sink.stored) == 20)

    assert held == 4, "three in the window, and the one that waits for room"


async def test_a_message_larger_than_the_window_goes_through_piece_by_piece() -> None:
    bounds = Bounds(records=3, bytes=1 << 20, messages=100)
    async with scene(message(*(f"e{number}" for number in range(50))), bounds=bounds) as told:
        await told.wait(lambda: len(told.sink.stored) == 50)
        await told.partition.settle()

    assert 1 == told.stream.acked


async def test_closing_ends_the_reading_although_the_window_is_full() -> None:
    bounds = Bounds(records=1, bytes=1 << 20, messages=100)
    async with scene(message("a", "b", "c"), message("d"), bounds=bounds) as told:
        told.sink.gate.clear()
        await told.rest()
        told.partition.close()
        await told.partition.wait_ended()
        await told.partition.settle()

    assert 0 == told.stream.acked


async def test_nothing_is_sent_and_nothing_held_without_a_connector() -> None:
    async with scene(message("a", "b"), message("c"), served=False) as told:
        await told.wait(lambda: told.delivery_counters.of("shop", "all").skipped_inactive == 3)
        await told.partition.settle()

    assert 2 == told.stream.acked
    assert [] == told.sink.stored


async def test_bad_parts_are_put_aside_before_the_message_is_acknowledged() -> None:
    good = message("a")
    async with scene(b"nonsense", good[:-1] + b",7]") as told:
        await told.wait(lambda: len(told.sink.stored) == 1)
        await told.rest()
        await told.partition.settle()

    assert ["dlq.hooks.shop.entrance.invalid"] * 2 == told.bus.subjects
    assert 2 == told.stream.acked


class FailingProfiles:
    """Profiles that fail in every way that a store may, then answer."""

    def __init__(self) -> None:
        self.asked = 0

    async def get(self, app_key: str, ext_id: str) -> Profile | None:
        self.asked += 1
        if self.asked == 1:
            raise UnavailableError("NATS does not answer")
        if self.asked == 3:
            raise InvalidError("the profile is broken")
        return Profile(ext_id=ext_id, attributes=make_profile_attributes({"city": "Izmir"}))


async def test_an_unreachable_profile_is_waited_for_and_a_broken_one_is_not() -> None:
    async with scene(message("waits"), message("broken"), profiles=FailingProfiles()) as told:
        await told.wait(lambda: len(told.sink.stored) == 2)

    assert b'"city":"Izmir"' in told.sink.stored[0].data
    assert b'"attributes":{}' in told.sink.stored[1].data


async def test_nothing_of_a_lost_partition_is_sent_or_acknowledged() -> None:
    bounds = Bounds(records=3, bytes=1 << 20, messages=100)
    async with scene(*(message(f"e{number}") for number in range(9)), bounds=bounds) as told:
        told.sink.gate.clear()
        await told.rest()
        told.partition.abort()
        told.targets.drop_partition(partition_of(USER))
        told.sink.gate.set()
        await told.rest()
        await told.partition.settle()

    assert [] == told.sink.stored
    assert 0 == told.stream.acked
    assert 0 == told.delivery_counters.of("shop", "all").matched


async def test_an_oversize_record_of_a_lost_partition_is_taken_back_from_matched() -> None:
    large = Event(
        id="large",
        app_key="shop",
        code="c",
        user_id=USER,
        occurred_at=1,
        attributes=make_attributes({"a": "x" * (2 << 20)}),
    )
    async with partitions(message("small"), encode([large, large])) as (open_ones, told, _):
        told.bus.gate.clear()
        await told.wait(lambda: bool(told.bus.subjects))
        counted = told.delivery_counters.of("shop", "all")
        before = counted.matched
        open_ones.drop(partition_of(USER))
        await told.rest()

    assert (2, 0) == (before, counted.dead_lettered)
    assert counted.sent == counted.matched


async def test_a_profile_that_comes_too_late_sends_nothing() -> None:
    profiles = SlowProfiles()
    async with scene(message("a"), profiles=profiles) as told:
        await profiles.asked.wait()
        told.partition.abort()
        told.targets.drop_partition(partition_of(USER))
        profiles.answer.set()
        await told.rest()

    assert [] == told.sink.stored


class SlowProfiles:
    """Profiles without users, which answer when the test lets them."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.answer = asyncio.Event()

    async def get(self, app_key: str, ext_id: str) -> Profile | None:
        self.asked.set()
        await self.answer.wait()
        return None


class Opened:
    """Opener of partitions, which always opens the partition of the one scene."""

    def __init__(self, told: Scene) -> None:
        self.told = told
        self.closed = asyncio.Event()

    @asynccontextmanager
    async def __call__(self, number: int) -> AsyncIterator[PartitionConsumer]:
        try:
            yield self.told.partition
        finally:
            self.closed.set()


@asynccontextmanager
async def partitions(*messages: bytes) -> AsyncIterator[tuple[ConsumerPool, Scene, Opened]]:
    """The partition of `USER`, open."""
    told = Scene(Stream(*messages), Bounds(), None)
    async with told.targets, asyncio.TaskGroup() as tasks:
        told.serve()
        opened = Opened(told)
        open_ones = ConsumerPool(opened, told.targets, Metrics(), lambda name, work: tasks.create_task(work))
        open_ones.open(partition_of(USER))
        await open_ones.wait_opened()
        yield open_ones, told, opened


async def test_a_partition_is_released_when_what_was_pulled_is_sent_and_acknowledged() -> None:
    async with partitions(message("a", "b"), message("c")) as (open_ones, told, opened):
        await told.wait(lambda: told.delivery_counters.of("shop", "all").matched == 3)
        await open_ones.release(partition_of(USER), 10)
        await opened.closed.wait()

    assert 3 == len(told.sink.stored)
    assert 2 == told.stream.acked


async def test_a_partition_is_released_without_what_its_target_does_not_accept() -> None:
    async with partitions(message("a", "b"), message("c")) as (open_ones, told, opened):
        told.sink.gate.clear()
        await told.wait(lambda: told.delivery_counters.of("shop", "all").matched == 3)
        await open_ones.release(partition_of(USER), 0.01)
        await opened.closed.wait()
        told.sink.gate.set()
        await told.rest()

    assert [] == told.sink.stored
    assert 0 == told.stream.acked


async def test_a_lost_partition_is_closed() -> None:
    async with partitions(message("a")) as (open_ones, _, opened):
        open_ones.drop(partition_of(USER))
        open_ones.drop(partition_of(USER))
        await opened.closed.wait()
