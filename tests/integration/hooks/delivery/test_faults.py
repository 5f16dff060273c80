"""Every fault of Kinesis at the real sink, and the order of a user's events in the end."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from itertools import pairwise

import pytest

from hooks.delivery.model import CallPolicy
from hooks.matching.hook import BatchSettings
from hooks.sinks.kinesis.config import KinesisConfig
from hooks.sinks.kinesis.sink import KinesisSink
from shared.config.secret import Secret
from shared.runtime.retry import Backoff
from support.fakes.sink import TargetQueueHarness
from support.outgoing import aws_clients
from support.servers.kinesis import CallFault, FaultyKinesis, Stored
from support.waiting import until

BATCH = BatchSettings(linger_ms=2)
QUICK = Backoff(first_s=0.01, max_s=0.05)
POLICY = CallPolicy(retry=QUICK, probe=QUICK)
KEY = "AKIAIOSFODNN7EXAMPLE"
USERS = 20


@pytest.fixture
def call_s() -> float:
    """Time for which the sink waits for an answer."""
    return 1.0


@pytest.fixture
async def harness(kinesis: FaultyKinesis, call_s: float) -> AsyncIterator[TargetQueueHarness]:
    """A target queue over the real sink."""
    async with aws_clients() as clients:
        sink = KinesisSink(config(kinesis).api(clients), "orders", call_s)
        async with TargetQueueHarness(sink, POLICY) as harness:
            yield harness


def config(kinesis: FaultyKinesis) -> KinesisConfig:
    return KinesisConfig(
        region="eu-west-1", api_key=KEY, secret_key=Secret("not-a-real-secret-key"), endpoint_url=kinesis.url
    )


async def put(harness: TargetQueueHarness, first: int, last: int, batch: BatchSettings = BATCH) -> None:
    """Numbered records, the users taking turns, a few at a time."""
    for number in range(first, last):
        harness.put(f"user-{number % USERS}", str(number), batch=batch)
        if number % 50 == 0:
            await asyncio.sleep(0)


def numbers(records: list[Stored], user: str) -> list[int]:
    """List a user's numbers in the stream, in the order of its shards. Opens packed records."""
    found: list[int] = []
    for record in records:
        if record.key == user:
            value = json.loads(record.data)
            found += value if isinstance(value, list) else [value]
    return found


def check(kinesis: FaultyKinesis, last: int) -> None:
    """Check that no record is lost, each user's order is kept, and a repetition follows the record that it repeats."""
    records = kinesis.records("orders")
    for user in range(USERS):
        stored = numbers(records, f"user-{user}")
        assert list(range(user, last, USERS)) == list(dict.fromkeys(stored))
        assert all(after - before in (0, USERS) for before, after in pairwise(stored))


@pytest.mark.parametrize(
    "fault",
    [
        "internal",
        "unavailable",
        "throttled",
        "limited",
        "slow_down",
        "denied",
        "expired",
        "unknown_key",
        "closed",
        "hanging",
        "late",
        "dropped",
        "short",
        "long",
    ],
)
async def test_a_call_that_fails_costs_neither_a_record_nor_the_order(
    harness: TargetQueueHarness, kinesis: FaultyKinesis, fault: CallFault
) -> None:
    kinesis.call_faults.extend([fault, "none", fault, fault])

    await put(harness, 0, 400)
    await harness.wait_finished(400)

    check(kinesis, 400)
    assert not kinesis.call_faults
    assert b"millrace_hooks_order_inversions_total 0.0" in harness.metrics.render()


@pytest.mark.parametrize(
    "code", ["InternalFailure", "ProvisionedThroughputExceededException", "KMSThrottlingException"]
)
@pytest.mark.parametrize("call_s", [60.0])
async def test_records_that_fail_cost_neither_a_record_nor_the_order(
    harness: TargetQueueHarness, kinesis: FaultyKinesis, code: str
) -> None:
    kinesis.record_failure_code, kinesis.record_failure_rate = code, 0.2

    await put(harness, 0, 1000)
    await harness.wait_finished(1000)

    check(kinesis, 1000)
    assert len(kinesis.records("orders")) == 1000, "only what failed went again"
    assert [] == harness.letters.put


async def test_a_shard_at_its_limit_slows_its_own_users_alone(
    harness: TargetQueueHarness, kinesis: FaultyKinesis
) -> None:
    kinesis.shard_records_per_s, kinesis.shard_bytes_per_s = 40, 1 << 20
    kinesis.create_stream("orders", shards=2)
    began = time.monotonic()

    # One user, and with it one shard, has far more than its share.
    for number in range(100):
        harness.put("hot", str(number))
    await harness.wait_finished(40)
    for number in range(USERS):
        harness.put(f"user-{number}", str(number))
    await harness.wait_finished(100 + USERS)

    assert list(range(100)) == numbers(kinesis.records("orders"), "hot")
    assert time.monotonic() - began < 10
    assert harness.queue.error is None


async def test_a_packed_hot_user_is_not_bound_to_one_event_a_round_trip(
    harness: TargetQueueHarness, kinesis: FaultyKinesis
) -> None:
    kinesis.delay_s = 0.05

    for number in range(3000):
        harness.put("hot", str(number), batch=BatchSettings(linger_ms=2, format="json_array"))
    await harness.wait_finished(3000)

    assert list(range(3000)) == list(dict.fromkeys(numbers(kinesis.records("orders"), "hot")))
    assert kinesis.calls <= 5


async def test_packs_keep_the_order_while_calls_and_records_fail(
    harness: TargetQueueHarness, kinesis: FaultyKinesis
) -> None:
    kinesis.record_failure_rate = 0.2
    kinesis.call_faults.extend(["none", "dropped", "short", "internal", "late", "none", "long"])

    for first in range(0, 2000, 200):
        await put(harness, first, first + 200, BatchSettings(linger_ms=2, format="json_array"))
        await harness.wait_finished(first // 2)
    await harness.wait_finished(2000)

    records = kinesis.records("orders")
    for user in range(USERS):
        assert list(range(user, 2000, USERS)) == list(dict.fromkeys(numbers(records, f"user-{user}")))


async def test_shards_that_are_split_meanwhile_change_nothing(
    harness: TargetQueueHarness, kinesis: FaultyKinesis
) -> None:
    kinesis.record_failure_rate = 0.1
    for round_ in range(8):
        await put(harness, round_ * 200, round_ * 200 + 200)
        await harness.wait_finished(round_ * 150)
        kinesis.split("orders", round_)
    await harness.wait_finished(1600)

    check(kinesis, 1600)
    assert len({record.shard for record in kinesis.records("orders")}) > 8
    assert b"millrace_hooks_order_inversions_total 0.0" in harness.metrics.render()


async def test_an_outage_of_kinesis_costs_nothing(harness: TargetQueueHarness, kinesis: FaultyKinesis) -> None:
    kinesis.delay_s = 0.01
    for round_ in range(3):
        await put(harness, round_ * 300, round_ * 300 + 300)
        await harness.wait_finished(round_ * 300 + 1)
        await kinesis.stop()
        await until(lambda: harness.queue.error is not None)
        await kinesis.start()
    await harness.wait_finished(900)

    check(kinesis, 900)


async def test_keys_revoked_and_restored_are_reported_once_and_lose_nothing(
    harness: TargetQueueHarness, kinesis: FaultyKinesis
) -> None:
    await put(harness, 0, 200)
    await harness.wait_finished(20)
    kinesis.known_keys = {"AKIAOTHEROTHEREXAMPL"}
    await put(harness, 200, 400)
    await harness.wait(lambda: harness.counters.failed >= 20 and harness.queue.error is not None)
    assert ["paused orders: credentials"] == harness.heard.said
    kinesis.known_keys = {KEY}
    await harness.wait_finished(400)

    check(kinesis, 400)
    assert ["paused orders: credentials", "resumed orders"] == harness.heard.said


async def test_a_round_trip_of_20_ms_is_made_up_for_by_calls_at_once(
    harness: TargetQueueHarness, kinesis: FaultyKinesis
) -> None:
    kinesis.delay_s = 0.02
    for number in range(20_000):
        harness.put(f"user-{number % 10_000}", "1")
    await harness.wait_finished(20_000)

    assert kinesis.most_at_once > 4
