"""
Each user's events reach each stream in order, for any failure, any kill and any owner of the partition. Tests check the
streams. All of the service runs but the servers around it, on a clock that jumps.
"""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from itertools import pairwise
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Struct

from hooks.backlog.checkpoints import Checkpoints
from hooks.backlog.reader import BacklogReaders
from hooks.dead_letters.writer import DeadLetterWriter
from hooks.delivery.ack_window import Bounds
from hooks.delivery.counters import DeliveryCounters
from hooks.delivery.model import CallPolicy, Outcome, Record, Sent, SinkLimits
from hooks.delivery.packing import PackedRecord
from hooks.delivery.targets import ActiveConnector, Targets
from hooks.matching.hook import BatchSettings, Hook
from hooks.matching.rule import HookIndex, Rule, Target
from hooks.partitions.consumer import PartitionConsumer
from hooks.partitions.pool import ConsumerPool
from shared.contracts.messages import Event, encode
from shared.contracts.subjects import events as subject_of
from shared.contracts.subjects import partition_of
from shared.errors import DeniedError
from shared.messaging.bus import Published
from shared.runtime import logs
from shared.runtime.telemetry import Metrics
from support.fakes.bucket import MemoryBucket
from support.fakes.events import MemoryEvents
from support.fakes.random_sink import chaos
from support.fakes.sink import NOW, MemorySink, RecordingDeadLetters, RecordingObserver
from support.virtual_time import run_virtually

PARTITION = 3
USERS = [name for number in range(200) if partition_of(name := f"user-{number}") == PARTITION][:6]
CODES = ("view", "buy")
HOOKS = {"all": "*", "bought": "buy"}
"""Hooks, each with a stream of its own name, and the code that it wants."""
BOUNDS = Bounds(records=12, bytes=1 << 20, messages=20)

Ending = Literal["killed", "lost", "given", "stopped", "split"]
"""
Ends of an owner. `lost` learns in time that its lease is over, and `given` and `stopped` get a request to leave.
`split` learns of its end only when another owner has long begun, which leases rule out.
"""


class Change(Struct, frozen=True):
    """The owner does its work for a while, then ends, and another replica is the owner."""

    after_s: float
    ending: Ending
    successor: int


class Arrived(Struct, frozen=True):
    """A record that a stream has stored, and the ownership under which it was sent."""

    stint: int
    record: Record


class World:
    """State outside of every process: `EVENTS`, the bucket, the streams."""

    def __init__(self, dice: random.Random, faults: int, batch: BatchSettings) -> None:
        self.dice = dice
        self.batch = batch
        self.events = MemoryEvents(subject_of("shop", PARTITION))
        self.bucket = MemoryBucket()
        self.answers = {name: [chaos(dice) for _ in range(faults)] for name in HOOKS}
        self.blocked: set[str] = set()
        self.stored: dict[str, list[Arrived]] = {name: [] for name in HOOKS}
        self.under_way: list[tuple[str, int, list[Record]]] = []
        """Calls whose sender has broken them off: they arrive later, or never."""
        self.stint = 0
        self.numbers: dict[str, int] = {}
        self.posted: list[Event] = []

    def post(self, users: Sequence[int]) -> None:
        """Some events, as messages of a few."""
        left = list(users)
        while left:
            some = [left.pop(0) for _ in range(min(len(left), self.dice.randint(1, 3)))]
            message = []
            for index, user in enumerate(some):
                number = len(self.posted)
                event = Event(
                    id=f"e{number}",
                    app_key="shop",
                    code=self.dice.choice(CODES),
                    user_id=USERS[user],
                    occurred_at=number,
                )
                self.posted.append(event)
                self.numbers[f"EVENTS:{self.events.last + 1}:{index}"] = number
                message.append(event)
            self.events.publish(encode(message))

    def arrive(self) -> None:
        """Let some of the calls arrive that were under way when their sender ended."""
        late = self.under_way
        self.under_way = []
        for stream, stint, batch in late:
            lot = self.dice.choice(["arrives", "arrives in part", "is lost", "is later still"])
            if lot == "is later still":
                self.under_way.append((stream, stint, batch))
            elif lot != "is lost":
                odds = 1.0 if lot == "arrives" else 0.5
                self.stored[stream] += [Arrived(stint, record) for record in batch if self.dice.random() < odds]

    async def wait(self, condition: Callable[[], bool]) -> None:
        """Wait until the condition holds, within an hour."""
        async with asyncio.timeout(3600):
            while not condition():
                await asyncio.sleep(1)
                self.arrive()


class WorldSink(MemorySink):
    """A stream of the world, as one process reaches it."""

    def __init__(self, world: World, stream: str) -> None:
        super().__init__(limits=SinkLimits(call_records=6, call_bytes=4000, record_bytes=2000))
        self.answers = world.answers[stream]
        self.world = world
        self.stream = stream
        self.stint = 0

    async def send(self, batch: Sequence[Record]) -> Sequence[Outcome]:
        stint = self.stint
        try:
            if self.stream in self.world.blocked:
                raise DeniedError("not for you")
            await asyncio.sleep(self.world.dice.choice([0, 0, 0.02, 0.3]))
            return await super().send(batch)
        except asyncio.CancelledError:
            self.world.under_way.append((self.stream, stint, list(batch)))
            raise

    def store(self, record: Record) -> Sent:
        self.world.stored[self.stream].append(Arrived(self.stint, record))
        return super().store(record)


class Replica:
    """A process, but for the servers it talks to. Killed by `kill`."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.sinks: list[WorldSink] = []
        self.metrics = Metrics()
        self.bad_letters: list[str] = []
        self.stopped = False
        """Its queues are closed: what waited in them is gone with the process, and so are its counts."""
        self._ready = asyncio.Event()
        self._life = asyncio.create_task(self._live())

    async def own(self) -> None:
        """Begin as the partition's owner."""
        await self._ready.wait()
        self.world.stint += 1
        self._stint = self.world.stint
        for sink in self.sinks:
            sink.stint = self._stint
        self.partitions.open(PARTITION)

    async def kill(self) -> None:
        """Break the process off where it is."""
        assert not self._life.done(), self._life
        if not self.stopped:
            self._check_counters()
        self._life.cancel()
        await asyncio.wait((self._life,))
        assert [] == [told for sink in self.sinks for told in sink.misused]
        assert b"millrace_hooks_order_inversions_total 0.0" in self.metrics.render()
        assert [] == self.bad_letters

    def _check_counters(self) -> None:
        """Check that what was matched here was sent here, or waits here."""
        queues = self._targets.queues_of_app("shop")
        held = Counter(record.hook_id for _, queue in queues for record in queue.waiting())
        for (_, hook_id), counted in self._counters.all().items():
            assert counted.matched == counted.sent + counted.skipped_inactive + held[hook_id]

    async def _live(self) -> None:
        world = self.world
        letters = RecordingDeadLetters()
        targets = Targets(CallPolicy(), observer=RecordingObserver(), dead_letters=letters, metrics=self.metrics)
        delivery_counters = DeliveryCounters(lambda: NOW)
        self._targets, self._counters = targets, delivery_counters
        backlog_readers = BacklogReaders(world.events, Checkpoints(world.bucket), observer=Unheard(), clock=lambda: NOW)

        @asynccontextmanager
        async def open_partition(number: int) -> AsyncIterator[PartitionConsumer]:
            yield PartitionConsumer(
                number,
                world.events.pull(),
                targets=targets,
                dead_letters=DeadLetterWriter(self, self.metrics, lambda: NOW),
                delivery_counters=delivery_counters,
                profiles=None,
                metrics=self.metrics,
                bounds=BOUNDS,
                backlog_readers=backlog_readers,
            )

        async with targets, asyncio.TaskGroup() as tasks:
            rules = [
                Rule(
                    app_key="shop",
                    hook_id=name,
                    revision=1,
                    hook=Hook(name=name, stream_name=name, trigger_type="EVENT", event_code=code, batch=world.batch),
                )
                for name, code in HOOKS.items()
            ]
            connector = ActiveConnector(revision=1, open=self._open_sink)
            targets.apply(HookIndex(rules), {rule.target: connector for rule in rules})
            self.partitions = ConsumerPool(
                open_partition, targets, self.metrics, lambda name, work: tasks.create_task(work)
            )
            self._ready.set()
            await asyncio.Event().wait()

    def _open_sink(self, stream: str) -> WorldSink:
        sink = WorldSink(self.world, stream)
        sink.stint = self._stint
        self.sinks.append(sink)
        return sink

    max_payload = 1 << 20

    async def publish(self, subject: str, data: bytes, *, message_id: str | None = None) -> Published:
        """Record a dead letter, of which there must be none."""
        self.bad_letters.append(subject)
        return Published(1, False)


class Unheard:
    """Observer of backlogs that must stay unused but for `caught_up`."""

    def far_behind(self, target: Target, since: object) -> None:
        raise AssertionError

    def caught_up(self, target: Target) -> None:
        """Accept the call."""

    def lost(self, target: Target, events: int) -> None:
        raise AssertionError


async def tell(world: World, parts: list[list[int]], changes: list[Change], blocked: str | None) -> None:
    """Let owners come and go while events come in. In the end no fault is left, and all is acknowledged."""
    replicas = [Replica(world) for _ in range(3)]
    owner = 0
    await replicas[owner].own()
    if blocked is not None:
        world.blocked = {blocked}
    for part, change in zip(parts, changes, strict=False):
        world.post(part)
        await asyncio.sleep(change.after_s)
        world.arrive()
        old, new = replicas[owner], change.successor
        if change.ending == "split":
            new = new if new != owner else (owner + 1) % 3
            await replicas[new].own()
            await asyncio.sleep(world.dice.choice([0, 0.1, 1, 20]))
            old.partitions.drop(PARTITION)
        else:
            await leave(world, replicas, owner, change.ending)
            if world.dice.random() < 0.5:
                await asyncio.sleep(4)
                world.arrive()
            await replicas[new].own()
        owner = new
        await asyncio.sleep(world.dice.choice([0, 0.05, 1]))
        world.arrive()
    world.post(parts[-1])
    world.blocked = set()
    await world.wait(lambda: world.events.floor == world.events.last)
    if any(change.ending == "split" for change in changes):
        # Of two owners at once one may leave an entry that the other does not know. The next one sees to it.
        replicas[owner].partitions.drop(PARTITION)
        await replicas[owner].own()
    await world.wait(lambda: not world.bucket.entries and not world.under_way)
    for replica in replicas:
        await replica.kill()


async def leave(world: World, replicas: list[Replica], owner: int, ending: Ending) -> None:
    """The owner ends, so that another one may begin."""
    partitions = replicas[owner].partitions
    if ending == "lost":
        partitions.drop(PARTITION)
    elif ending == "given":
        await partitions.release(PARTITION, 3.0)
    else:
        if ending == "stopped":
            replicas[owner].stopped = True
            partitions.close()
            with suppress(TimeoutError):
                async with asyncio.timeout(10):
                    await partitions.join()
        await replicas[owner].kill()
        replicas[owner] = Replica(world)


def spans(world: World, arrived: Sequence[Arrived], user: str) -> list[tuple[int, int, int]]:
    """Stint, first and last event of every record of a user, by its number; the two differ in a packed record."""
    found = []
    for one in arrived:
        if one.record.key == user:
            packed = one.record.records if isinstance(one.record, PackedRecord) else [one.record]
            found.append((one.stint, world.numbers[packed[0].source], world.numbers[packed[-1].source]))
    return found


def check(world: World) -> None:
    """Check that each stream has each user's events in order, and repetitions by one owner follow what they repeat."""
    for stream, code in HOOKS.items():
        for user in USERS:
            wanted = [
                number
                for number, event in enumerate(world.posted)
                if event.user_id == user and code in ("*", event.code)
            ]
            place = {number: place for place, number in enumerate(wanted)}
            arrived = spans(world, world.stored[stream], user)
            every = [number for _, first, last in arrived for number in wanted[place[first] : place[last] + 1]]
            assert wanted == list(dict.fromkeys(every)), f"the first successes of {stream} are in order"
            for stint in {stint for stint, _, _ in arrived}:
                sent = [(first, last) for of, first, last in arrived if of == stint]
                for before, after in pairwise(sent):
                    assert after[0] == before[0] or place[after[0]] == place[before[1]] + 1, "a duplicate is adjacent"


@pytest.mark.timeout(180)
@settings(max_examples=300, deadline=None)
@given(
    parts=st.lists(st.lists(st.integers(0, len(USERS) - 1), max_size=40), min_size=1, max_size=6),
    changes=st.lists(
        st.builds(
            Change,
            after_s=st.sampled_from([0, 0.01, 0.06, 0.5, 2, 8, 40]),
            ending=st.sampled_from(["killed", "lost", "given", "stopped", "split"]),
            successor=st.integers(0, 2),
        ),
        max_size=5,
    ),
    faults=st.integers(0, 30),
    blocked=st.sampled_from([None, "all", "bought"]),
    batch=st.builds(
        BatchSettings,
        linger_ms=st.sampled_from([0, 20]),
        format=st.sampled_from(["single", "json_array", "ndjson"]),
        max_records=st.integers(1, 9),
    ),
    seed=st.integers(0, 1 << 32),
)
def test_each_users_events_arrive_in_order_through_failures_and_changes_of_owner(
    parts: list[list[int]],
    changes: list[Change],
    faults: int,
    blocked: str | None,
    batch: BatchSettings,
    seed: int,
) -> None:
    """The dice are not hypothesis's own: a story rolls more of them than it has room for."""
    logs.configure(service="test", level="critical", format="console")
    world = World(random.Random(seed), faults, batch)

    run_virtually(tell(world, parts, changes, blocked))
    check(world)
