"""Backoff of a shard: its length, and the records that wait for it."""

import asyncio
from collections.abc import Sequence

import pytest

from hooks.delivery.counters import HookCounters
from hooks.delivery.model import CallPolicy, Failed, Outcome, Record, Sent
from hooks.delivery.shard_backoff import USERS_REMEMBERED, ShardBackoff
from shared.runtime.retry import Backoff
from support.fakes.sink import NO_BACKOFF, NOW, MemorySink, MemoryTargetQueue, make_record
from support.waiting import until

NEVER = Backoff(first_s=10**9, max_s=10**9)
"""Jitter may draw a short wait, with odds of one in 10**7."""
PATIENT = CallPolicy(retry=NEVER, probe=NEVER)
FULL = "ProvisionedThroughputExceededException"


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
            return Failed(FULL, f"Rate exceeded for {told}")
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
    shards = ShardBackoff(NO_BACKOFF.retry, asyncio.get_running_loop(), back.extend)
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
    shards = ShardBackoff(NO_BACKOFF.retry, asyncio.get_running_loop(), back.extend)
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
    shards = ShardBackoff(NEVER, asyncio.get_running_loop(), lambda _: None)

    for _ in range(5):
        shards.record_refusals([(record("ann"), refusal())])

    assert (0, 5) == (shards.blocked, len(list(shards.waiting)))
    shards.clear()


async def test_a_record_stored_before_an_earlier_one_of_its_user_is_counted_in_its_shard_alone() -> None:
    shards = ShardBackoff(NEVER, asyncio.get_running_loop(), lambda _: None)
    told = [("a", "5"), ("a", "6"), ("a", "6"), ("a", "10"), ("a", "9"), ("b", "1"), ("b", "2"), ("", "1"), ("b", "1")]

    found = [shards.record_outcomes([record("ann")], [Sent(shard, sequence)]) for shard, sequence in told]

    assert [0, 0, 1, 0, 1, 0, 0, 0, 1] == found


async def test_what_is_remembered_of_users_is_bounded() -> None:
    shards = ShardBackoff(NEVER, asyncio.get_running_loop(), lambda _: None)
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
