"""Each user's events reach the sink in order, for any failures in any order. Seen from the sink."""

import random
from collections.abc import Sequence
from itertools import pairwise

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from hooks.delivery.model import Record, SinkLimits
from hooks.delivery.packing import PackedRecord
from hooks.matching.hook import BatchSettings
from support.fakes.random_sink import chaos
from support.fakes.sink import NO_BACKOFF, MemorySink, MemoryTargetQueue

FORMATS = st.sampled_from(["single", "json_array", "ndjson"])


def spans(records: Sequence[Record], user: str) -> list[tuple[int, int]]:
    """First and last number of every record of a user in the stream; they differ where several are packed."""
    found = [
        record.records if isinstance(record, PackedRecord) else [record] for record in records if record.key == user
    ]
    return [(number_of(packed[0]), number_of(packed[-1])) for packed in found]


def number_of(record: Record) -> int:
    return int(record.source.split(":")[1])


@settings(max_examples=200, deadline=None)
@given(
    users=st.lists(st.integers(0, 7), min_size=1, max_size=60),
    batch=st.builds(
        BatchSettings, linger_ms=st.just(0), format=FORMATS, max_records=st.integers(1, 9), max_bytes=st.integers(1, 60)
    ),
    calls=st.integers(1, 6),
    per_call=st.integers(1, 6),
    faults=st.integers(0, 40),
    renewals=st.sets(st.integers(0, 59), max_size=3),
    restarts=st.sets(st.integers(0, 59), max_size=4),
    releases=st.sets(st.integers(0, 59), max_size=2),
    partings=st.sets(st.integers(0, 59), max_size=3),
    seed=st.integers(0, 1 << 32),
)
async def test_each_users_records_arrive_in_order_whatever_fails(
    users: list[int],
    batch: BatchSettings,
    calls: int,
    per_call: int,
    faults: int,
    renewals: set[int],
    restarts: set[int],
    releases: set[int],
    partings: set[int],
    seed: int,
) -> None:
    """
    A restart is a process that was killed. The next one gets all records from the oldest unfinished one on, and knows
    nothing else.
    """
    dice = random.Random(seed)
    limits = SinkLimits(call_records=per_call, call_bytes=1000, record_bytes=30)
    sink = MemorySink(*[chaos(dice) for _ in range(faults)], limits=limits, turns=dice.randint(0, 3))
    policy = msgspec.structs.replace(NO_BACKOFF, calls=calls)
    floor, done, begins = 0, set[int](), []
    while floor < len(users):
        begins.append(len(sink.stored))
        async with MemoryTargetQueue(sink, policy, first=floor) as bench:
            for number in range(floor, len(users)):
                bench.put(name(users[number]), str(number), hook_id=f"hook-{users[number] % 2}", batch=batch)
                if number in renewals:
                    bench.queue.renew(sink)
                if number in releases:
                    for record in bench.queue.release(lambda record: record.hook_id == "hook-1"):
                        bench.queue.put(record)
                if number in partings:
                    parted, _ = bench.queue.withdraw_waiting(lambda record: record.hook_id == "hook-1")
                    for record in parted:
                        bench.queue.put(record)
                await bench.turn(dice.choice([0, 0, 1, 9]))
                if number in restarts:
                    restarts.remove(number)
                    break
            else:
                await bench.wait_finished(len(users) - floor)
        assert len(set(bench.finished)) == len(bench.finished), "each is finished once"
        assert b"millrace_hooks_order_inversions_total 0.0" in bench.metrics.render()
        done |= {number_of(record) for record in bench.finished}
        floor = next((number for number in range(len(users)) if number not in done), len(users))

    for user in set(users):
        posted = [number for number, of in enumerate(users) if of == user]
        place = {number: place for place, number in enumerate(posted)}
        stored = spans(sink.stored, name(user))
        every = [number for first, last in stored for number in posted[place[first] : place[last] + 1]]
        assert posted == list(dict.fromkeys(every)), "the first successes are in order"
        for begin, end in pairwise([*begins, len(sink.stored)]):
            for before, after in pairwise(spans(sink.stored[begin:end], name(user))):
                assert after[0] == before[0] or place[after[0]] == place[before[1]] + 1, "a duplicate is adjacent"


def name(user: int) -> str:
    """Return a name that has another length for every user."""
    return f"user-{user}" + "x" * user
