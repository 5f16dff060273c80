"""Batches, partial failure and order at a sink that fails, seen from the sink."""

from collections.abc import Sequence

import pytest

from hooks.delivery.concurrency_limit import START
from hooks.delivery.model import CallPolicy, Failed, Outcome, Record, Sent, SinkLimits
from hooks.matching.hook import BatchSettings
from shared.errors import (
    BusyError,
    CredentialsError,
    InvalidError,
    MillraceError,
    NotFoundError,
    UnavailableError,
)
from shared.runtime.retry import Backoff
from support.fakes.sink import NO_BACKOFF, Answer, MemorySink, MemoryTargetQueue, store_all

NEVER = Backoff(first_s=10**9, max_s=10**9)
PATIENT = CallPolicy(retry=NEVER, probe=NEVER)
"""A target that fails gets no further call within the test. Jitter may draw a short wait, with odds of one in 10**7."""


def refuse(error: MillraceError, *, stored: bool = False) -> Answer:
    """A call that fails as a whole, after it took effect or before."""

    def answer(sink: MemorySink, batch: Sequence[Record]) -> Sequence[Outcome]:
        if stored:
            store_all(sink, batch)
        raise error

    return answer


def fail_some(*failing: int, retryable: bool = True) -> Answer:
    """A call in which the records at these positions fail."""

    def answer(sink: MemorySink, batch: Sequence[Record]) -> Sequence[Outcome]:
        return [
            Failed("InternalFailure", "Internal Service Failure", retryable)
            if position in failing
            else sink.store(record)
            for position, record in enumerate(batch)
        ]

    return answer


def stored_of(sink: MemorySink, user: str) -> list[str]:
    """List a user's records in the stream, in its order there."""
    return [record.source for record in sink.stored if record.key == user]


async def test_records_of_many_users_travel_in_one_call() -> None:
    sink = MemorySink()
    async with MemoryTargetQueue(sink) as bench:
        for number in range(100):
            bench.put(f"user-{number}")
        await bench.wait_finished(100)

    assert [100] == [len(batch) for batch in sink.batches]


async def test_a_call_holds_no_more_than_the_sink_accepts() -> None:
    sink = MemorySink(limits=SinkLimits(call_records=10, call_bytes=100, record_bytes=90))
    async with MemoryTargetQueue(sink) as bench:
        for number in range(25):
            bench.put(f"small-{number}", "")
        for number in range(4):
            bench.put(f"big-{number}", "x" * 60)
        await bench.wait_finished(29)

    assert 10 == max(len(batch) for batch in sink.batches)
    assert all(sum(record.size for record in batch) <= 100 for batch in sink.batches)


async def test_more_and_more_calls_run_at_once_and_no_more_than_the_policy_says() -> None:
    at_once: list[int] = []

    def note(sink: MemorySink, batch: Sequence[Record]) -> Sequence[Outcome]:
        at_once.append(sink.calls)
        return store_all(sink, batch)

    limits = SinkLimits(call_records=1, call_bytes=1000, record_bytes=1000)
    sink = MemorySink(*[note] * 400, limits=limits, turns=3)
    async with MemoryTargetQueue(sink) as bench:
        for number in range(400):
            bench.put(f"user-{number}")
        await bench.wait_finished(400)

    assert START == at_once[0]
    assert NO_BACKOFF.calls == sink.most_at_once == 16


async def test_only_the_failed_records_are_sent_again() -> None:
    sink = MemorySink(fail_some(1, 3))
    async with MemoryTargetQueue(sink) as bench:
        records = [bench.put(f"user-{number}") for number in range(5)]
        await bench.wait_finished(5)

    assert [records, [records[1], records[3]]] == sink.batches
    assert (5, 2) == (bench.counters.sent, bench.counters.failed)


async def test_later_records_of_a_user_wait_for_the_failed_one() -> None:
    sink = MemorySink(fail_some(0), fail_some(0), fail_some(0))
    async with MemoryTargetQueue(sink) as bench:
        wanted = [bench.put("ann").source for _ in range(4)]
        bench.put("bob")
        await bench.wait_finished(5)

    assert wanted == stored_of(sink, "ann")


async def test_a_call_whose_partition_is_lost_as_it_begins_sends_nothing() -> None:
    sink = MemorySink()
    async with MemoryTargetQueue(sink) as bench:

        def lose() -> None:
            bench.before_call = lambda: None
            bench.queue.release(lambda record: record.key == "lost")

        bench.before_call = lose
        bench.put("lost")
        kept = bench.put("kept")
        await bench.wait_finished(1)

    assert [[kept]] == sink.batches


async def test_an_answer_of_another_length_counts_as_none() -> None:
    def too_short(sink: MemorySink, batch: Sequence[Record]) -> Sequence[Outcome]:
        return store_all(sink, batch)[1:]

    sink = MemorySink(too_short)
    async with MemoryTargetQueue(sink) as bench:
        records = [bench.put("ann"), bench.put("bob")]
        await bench.wait_finished(2)

    assert [*records, *records] == sink.stored
    assert records == bench.finished


async def test_a_silent_call_that_landed_makes_an_adjacent_duplicate() -> None:
    sink = MemorySink(refuse(UnavailableError("timeout"), stored=True))
    async with MemoryTargetQueue(sink) as bench:
        first, second = bench.put("ann").source, bench.put("ann").source
        await bench.wait_finished(2)

    assert [first, first, second] == stored_of(sink, "ann")


async def test_a_failing_target_is_probed_by_one_call_at_a_time() -> None:
    at_once: list[int] = []
    most: list[int] = []

    def still_busy(sink: MemorySink, batch: Sequence[Record]) -> Sequence[Outcome]:
        at_once.append(sink.calls)
        most.append(sink.most_at_once)
        raise BusyError("throttled")

    limits = SinkLimits(call_records=1, call_bytes=99, record_bytes=99)
    sink = MemorySink(*[refuse(BusyError("throttled"))] * START, *[still_busy] * 5, limits=limits)
    async with MemoryTargetQueue(sink) as bench:
        for number in range(20):
            bench.put(f"user-{number}")
        await bench.wait_finished(20)

    assert [1] * 5 == at_once
    assert [START] * 5 == most


@pytest.mark.parametrize("error", [CredentialsError("revoked"), NotFoundError("no such stream")])
async def test_a_pause_keeps_the_records_and_is_reported_once(error: MillraceError) -> None:
    sink = MemorySink(refuse(error), refuse(error), refuse(error))
    async with MemoryTargetQueue(sink) as bench:
        record = bench.put("ann")
        await bench.wait_finished(1)

    assert [record] == sink.stored
    assert 4 == record.attempts
    assert [f"paused orders: {error.code}", "resumed orders"] == bench.heard.said


async def test_a_pause_sends_nothing_until_the_configuration_changes() -> None:
    broken = MemorySink(refuse(CredentialsError("revoked")))
    mended = MemorySink()
    async with MemoryTargetQueue(broken, PATIENT) as bench:
        records = [bench.put("ann"), bench.put("ann")]
        await bench.wait(lambda: bench.queue.error is not None)
        bench.put("bob")
        bench.queue.renew(mended)
        await bench.wait_finished(3)

    assert 1 == len(broken.batches)
    assert records == [record for record in mended.stored if record.key == "ann"]
    assert ["paused orders: credentials", "resumed orders"] == bench.heard.said


async def test_a_call_that_began_with_the_old_keys_does_not_pause_the_new_ones() -> None:
    old, new = MemorySink(refuse(CredentialsError("revoked"))), MemorySink()
    old.gate.clear()
    async with MemoryTargetQueue(old, PATIENT) as bench:
        bench.put("ann")
        await bench.wait(lambda: bool(old.batches))
        bench.queue.renew(new)
        old.gate.set()
        await bench.wait_finished(1)

    assert 1 == len(new.stored)
    assert [] == bench.heard.said


async def test_a_refused_call_is_split_and_the_guilty_record_dead_lettered() -> None:
    def refuse_poison(sink: MemorySink, batch: Sequence[Record]) -> Sequence[Outcome]:
        if any(record.data == b"poison" for record in batch):
            raise InvalidError("validation failed")
        return store_all(sink, batch)

    sink = MemorySink(*[refuse_poison] * 50)
    async with MemoryTargetQueue(sink) as bench:
        for number in range(10):
            bench.put(f"user-{number}")
        poison = bench.put("mallory", "poison")
        after = bench.put("mallory")
        await bench.wait_finished(12)

    assert [(poison.source, "rejected")] == bench.letters.put
    assert [after.source] == stored_of(sink, "mallory")
    assert 11 == len(sink.stored)


async def test_a_record_refused_for_good_is_dead_lettered_and_holds_up_no_other() -> None:
    sink = MemorySink(fail_some(0, retryable=False))
    async with MemoryTargetQueue(sink) as bench:
        refused, following, other = bench.put("ann"), bench.put("ann"), bench.put("bob")
        await bench.wait_finished(3)

    assert [(refused.source, "rejected")] == bench.letters.put
    assert {following, other} == set(sink.stored)


async def test_a_bug_of_a_sink_is_counted_and_loses_nothing() -> None:
    def bug(sink: MemorySink, batch: Sequence[Record]) -> Sequence[Outcome]:
        raise ZeroDivisionError

    sink = MemorySink(bug)
    async with MemoryTargetQueue(sink) as bench:
        record = bench.put("ann")
        await bench.wait_finished(1)

    assert [record] == sink.stored
    assert b'millrace_bugs_total{where="sink"} 1.0' in bench.metrics.render()


async def test_an_inversion_in_the_stream_is_counted() -> None:
    def numbered(number: int) -> Answer:
        return lambda sink, batch: [Sent("shard-0", str(number))]

    sink = MemorySink(numbered(7), numbered(8), numbered(8))
    async with MemoryTargetQueue(sink) as bench:
        for _ in range(3):
            bench.put("ann")
        await bench.wait_finished(3)

    assert b"millrace_hooks_order_inversions_total 1.0" in bench.metrics.render()


async def test_released_records_leave_in_order_and_the_rest_goes_on() -> None:
    sink = MemorySink()
    sink.gate.clear()
    async with MemoryTargetQueue(sink) as bench:
        moving = [bench.put("ann", hook_id="moving")]
        staying = [bench.put("ann", hook_id="staying")]
        moving += [bench.put("ann", hook_id="moving"), bench.put("bob", hook_id="moving")]
        staying += [bench.put("ann", hook_id="staying"), bench.put("cid", hook_id="staying")]
        await bench.wait(lambda: bool(sink.batches))
        released = bench.queue.release(lambda record: record.hook_id == "moving")
        sink.gate.set()
        await bench.wait_finished(3)

    assert moving == released
    assert staying == [record for record in sink.stored if record.key == "ann"] + [staying[-1]]


async def test_release_breaks_no_call_off_when_nothing_leaves() -> None:
    sink = MemorySink()
    sink.gate.clear()
    async with MemoryTargetQueue(sink) as bench:
        bench.put("ann")
        await bench.wait(lambda: bool(sink.batches))
        released = bench.queue.release(lambda record: record.hook_id == "another")
        sink.gate.set()
        await bench.wait_finished(1)

    assert [] == released
    assert 1 == len(sink.stored)


async def test_drain_sends_what_waits() -> None:
    sink = MemorySink(fail_some(0), limits=SinkLimits(call_records=3, call_bytes=1000, record_bytes=1000))
    async with MemoryTargetQueue(sink, CallPolicy(retry=Backoff(first_s=0, max_s=0))) as bench:
        for number in range(20):
            bench.put(f"user-{number % 7}")
        await bench.queue.drain()

    assert 20 == len(bench.finished)


async def test_drain_does_not_wait_for_a_failing_target() -> None:
    sink = MemorySink(refuse(CredentialsError("revoked")))
    async with MemoryTargetQueue(sink, PATIENT) as bench:
        bench.put("ann")
        await bench.wait(lambda: bench.queue.error is not None)
        await bench.queue.drain()

    assert [] == bench.finished


async def test_parting_takes_what_waits_and_breaks_off_no_call() -> None:
    sink = MemorySink()
    sink.gate.clear()
    async with MemoryTargetQueue(sink) as bench:
        first = [bench.put("ann", hook_id=hook) for hook in ("leaves", "leaves", "stays", "leaves")]
        second = bench.put("bob", hook_id="stays")
        await bench.wait(lambda: sink.calls > 0)
        parted, flying = bench.queue.withdraw_waiting(lambda record: record.hook_id == "leaves")
        sink.gate.set()
        await bench.wait_finished(3)

    assert ([first[1], first[3]], [first[0]]) == (parted, flying)
    assert [first[0], first[2]] == [record for record in sink.stored if record.key == "ann"]
    assert second in sink.stored
    assert 3 == len(sink.stored)


async def test_a_pack_in_a_call_stays_whole_when_others_part_and_comes_apart_when_it_is_refused() -> None:
    sink = MemorySink(refuse(InvalidError("no")))
    sink.gate.clear()
    packed = BatchSettings(linger_ms=0, format="json_array")
    async with MemoryTargetQueue(sink) as bench:
        flying = [bench.put("ann", hook_id="leaves", batch=packed) for _ in range(3)]
        await bench.wait(lambda: sink.calls > 0)
        waiting = [bench.put("ann", hook_id=hook, batch=packed) for hook in ("leaves", "stays", "leaves", "stays")]
        parted = bench.queue.withdraw_waiting(lambda record: record.hook_id == "leaves")
        sink.gate.set()
        await bench.wait_finished(5)

    assert ([waiting[0], waiting[2]], flying) == parted
    assert [record.source for record in (*flying, waiting[1])] == stored_of(sink, "ann")
    assert [*flying, waiting[1], waiting[3]] == bench.finished


async def test_parting_finds_what_waits_for_its_shard() -> None:
    sink = MemorySink(fail_some(0), fail_some(0))
    async with MemoryTargetQueue(sink, PATIENT) as bench:
        failed = bench.put("ann", hook_id="leaves")
        behind = bench.put("ann", hook_id="stays")
        await bench.wait(lambda: bench.queue.failing and not sink.calls)

        assert ([failed], []) == bench.queue.withdraw_waiting(lambda record: record.hook_id == "leaves")

        sink.answers.clear()
        await bench.wait_finished(1)

    assert [behind] == bench.finished
