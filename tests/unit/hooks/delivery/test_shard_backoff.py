"""Backoff of a shard: its length, and the records that wait for it."""

import asyncio
from collections.abc import Sequence

import pytest

from hooks.delivery.counters import HookCounters
from hooks.delivery.model import CallPolicy, Failed, Outcome, Record, Sent
from hooks.delivery.shard_backoff import USERS_REMEMBERED, ShardBackoff
from shared.runtime.retry import Backoff
from support.fakes.sink import NO_BACKOFF, NOW, MemorySink, MemoryTargetQueue, make_record
from support.virtual_time import run_virtually
from support.waiting import until

NEVER = Backoff(first_s=10**9, max_s=10**9)
"""Jitter may draw a short wait, with odds of one in 10**7."""
PATIENT = CallPolicy(retry=NEVER, probe=NEVER)
FULL = "ProvisionedThroughputExceededException"


def unreported(message: str) -> None:
    raise AssertionError(message)


class ShardedSink(MemorySink):
    """A user's shard is its first letter. The shards in `full` take nothing and say so by name, or without one."""

    def __init__(self, *full: str, named: bool = True) -> None:
        super().__init__(*[self._answer] * 999)
        self.full = set(full)
        self.named = named

    def _answer(self, sink: MemorySink, batch: Sequence[Record]) -> Sequence[Outcome]:
        return [self._put(record) for record in batch]

    def _put(self, record: Record) -> Outcome:
        number = ord(record.key[0]) - ord("a")
        shard = f"shardId-{number:012d}"
        if record.key[0] in self.full:
            told = f"shard {shard} in stream orders under account 111122223333." if self.named else "a shard."
            return Failed(FULL, f"Rate exceeded for {told}", throttled=True)
        return Sent(shard, self.store(record).sequence)


def record(key: str) -> Record:
    return make_record(
        key=key, data=b"1", hook_id="hook", source="EVENTS:1:0", counters=HookCounters(lambda: NOW), done=lambda _: None
    )


def users(sink: MemorySink) -> set[str]:
    return {record.key for record in sink.stored}


async def test_a_full_shard_holds_up_no_other() -> None:
    sink = ShardedSink("a")
    async with MemoryTargetQueue(sink, PATIENT) as bench:
        bench.put("ann")
        for _ in range(50):
            bench.put("bob")
            bench.put("cid")
        await bench.wait_finished(100)

    assert {"bob", "cid"} == users(sink)
    assert 1 == sum(record.key == "ann" for batch in sink.batches for record in batch)


def refusal(shard: int = 0) -> Failed:
    return Failed(FULL, f"Rate exceeded for shard shardId-{shard:012d} in stream orders under account 111122223333.")


async def test_one_refusal_holds_up_no_other_user_and_a_second_one_its_shard() -> None:
    back: list[Record] = []
    shards = ShardBackoff(NO_BACKOFF.retry, asyncio.get_running_loop(), back.extend, unreported)
    ann, abe, bob = record("ann"), record("abe"), record("bob")
    shards.record_outcomes([abe, bob], [Sent("shardId-000000000000", "1"), Sent("shardId-000000000001", "2")])

    shards.record_refusals([(ann, refusal())])
    assert (0, False) == (shards.blocked, shards.hold_back(abe))
    await until(lambda: back == [ann])
    shards.record_refusals([(ann, refusal())])
    assert (1, True, False) == (shards.blocked, shards.hold_back(abe), shards.hold_back(bob))
    await until(lambda: back == [ann, ann, abe])
    assert 0 == shards.blocked


async def test_any_record_that_gets_through_resets_its_shard_and_no_other() -> None:
    back: list[Record] = []
    shards = ShardBackoff(NO_BACKOFF.retry, asyncio.get_running_loop(), back.extend, unreported)
    for round_ in (1, 2):
        shards.record_refusals([(record("ann"), refusal(0)), (record("bob"), refusal(1))])
        if round_ == 1:
            await until(lambda: len(back) == 2)
    assert 2 == shards.blocked

    shards.record_outcomes([record("abe")], [Sent("shardId-000000000000", "1")])

    assert 1 == shards.blocked
    shards.clear()
    assert [0, []] == [shards.blocked, list(shards.waiting)]


async def test_a_wait_is_not_prolonged_by_the_calls_that_ran_beside() -> None:
    shards = ShardBackoff(NEVER, asyncio.get_running_loop(), lambda _: None, unreported)

    for _ in range(5):
        shards.record_refusals([(record("ann"), refusal())])

    assert (0, 5) == (shards.blocked, len(list(shards.waiting)))
    shards.clear()


async def test_a_record_stored_before_an_earlier_one_of_its_user_is_counted_in_its_shard_alone() -> None:
    shards = ShardBackoff(NEVER, asyncio.get_running_loop(), lambda _: None, unreported)
    told = [("a", "5"), ("a", "6"), ("a", "6"), ("a", "10"), ("a", "9"), ("b", "1"), ("b", "2"), ("", "1"), ("b", "1")]

    found = [shards.record_outcomes([record("ann")], [Sent(shard, sequence)]) for shard, sequence in told]

    assert [0, 0, 1, 0, 1, 0, 0, 0, 1] == found


async def test_what_is_remembered_of_users_is_bounded() -> None:
    shards = ShardBackoff(NEVER, asyncio.get_running_loop(), lambda _: None, unreported)
    shards.record_outcomes([record("first")], [Sent("a", "9")])

    for number in range(3 * USERS_REMEMBERED):
        shards.record_outcomes([record(f"user-{number}")], [Sent("a", str(number))])

    assert 0 == shards.record_outcomes([record("first")], [Sent("a", "1")]), "forgotten"
    assert 1 == shards.record_outcomes([record(f"user-{number}")], [Sent("a", "1")]), "known"


@pytest.mark.parametrize("named", [True, False])
async def test_all_records_arrive_when_the_shard_accepts_records_again(named: bool) -> None:
    sink = ShardedSink("a", named=named)
    async with MemoryTargetQueue(sink, NO_BACKOFF) as bench:
        records = [bench.put(user) for user in ("ann", "abe", "bob", "ann", "abe", "bob")]
        await bench.wait(lambda: bench.counters.failed >= 20)
        sink.full = set()
        await bench.wait_finished(6)

    assert set(records) == set(bench.finished)
    assert b"millrace_hooks_order_inversions_total 0.0" in bench.metrics.render()


async def test_a_change_of_the_configuration_ends_every_wait() -> None:
    sink = ShardedSink("a")
    async with MemoryTargetQueue(sink, PATIENT) as bench:
        bench.put("ann")
        await bench.wait(lambda: bench.counters.failed == 1)
        sink.full = set()
        bench.queue.renew(sink)
        await bench.wait_finished(1)

    assert {"ann"} == users(sink)


async def test_what_waits_for_a_shard_can_be_released() -> None:
    sink = ShardedSink("a")
    async with MemoryTargetQueue(sink, PATIENT) as bench:
        records = [bench.put("ann"), bench.put("ann")]
        await bench.wait(lambda: bench.counters.failed == 1)
        released = bench.queue.release(lambda _: True)

    assert records == released


class LimitedSink(MemorySink):
    """Four shards, each of which stores `rate` records in a second of the loop's clock, as Kinesis does."""

    def __init__(self, rate: int) -> None:
        super().__init__(*[self._answer] * 100_000)
        self.rate = rate
        self.attempts = 0
        self.generation = 0
        self._second: dict[tuple[int, int], int] = {}

    def _answer(self, sink: MemorySink, batch: Sequence[Record]) -> Sequence[Outcome]:
        return [self._put(record) for record in batch]

    def _put(self, record: Record) -> Outcome:
        self.attempts += 1
        shard = int(record.key) % 4
        second = shard, int(asyncio.get_running_loop().time())
        self._second[second] = self._second.get(second, 0) + 1
        name = f"shardId-{self.generation * 4 + shard:012d}"
        if self._second[second] > self.rate:
            return Failed(FULL, f"Rate exceeded for shard {name} in stream s.", throttled=True)
        return Sent(name, self.store(record).sequence)


def test_a_throttled_shard_is_asked_some_two_times_for_each_record_that_it_stores() -> None:
    sink, said = LimitedSink(rate=25), []

    async def load() -> None:
        async with MemoryTargetQueue(sink, CallPolicy()) as bench:
            for second in range(300):
                for number in range(600 if second < 60 else 0):
                    bench.put(str((second * 600 + number) % 4000))
                await asyncio.sleep(1)
            said.extend(bench.heard.said)
            assert "Rate exceeded" in str(bench.queue.waits_because)

    run_virtually(load())

    assert sink.attempts < 2.2 * len(sink.stored)
    assert len(sink.stored) > 300 * 4 * 25 * 0.6, "most of what the shards can take"
    assert 1 == len(said), said
    assert said[0].startswith(f"throttled orders: {FULL}: Rate exceeded for shard ")


@pytest.mark.parametrize("split", [False, True])
def test_a_shard_that_takes_everything_again_is_soon_at_full_speed(split: bool) -> None:
    """A split shard: other shards store what its users send."""
    sink = LimitedSink(rate=10)

    async def load() -> None:
        async with MemoryTargetQueue(sink, CallPolicy()) as bench:
            for number in range(8000):
                bench.put(str(number % 4000))
            await asyncio.sleep(30)
            sink.rate = 1000
            sink.generation = int(split)
            async with asyncio.timeout(20):
                while len(bench.finished) < 8000:
                    await asyncio.sleep(0.1)
            assert None is bench.queue.waits_because

    run_virtually(load())
