"""A policy that grants kinesis:PutRecord and not kinesis:PutRecords: slower, reported, and still in order."""

from collections.abc import AsyncIterator
from itertools import pairwise

import pytest

from hooks.delivery.model import CallPolicy
from hooks.matching.hook import BatchSettings
from hooks.sinks.kinesis.config import KinesisConfig
from hooks.sinks.kinesis.put_record import ADVICE, AT_ONCE, RETRY_PUT_RECORDS_S
from shared.config.secret import Secret
from shared.contracts import streams
from shared.contracts.messages import Alert, decode
from shared.messaging.bus import Bus
from shared.messaging.consumers import open_scan
from shared.runtime.retry import Backoff
from support.clients.hooks import HooksClient, by_user, events, first_successes, wait_acknowledged
from support.fakes.sink import TargetQueueHarness
from support.outgoing import aws_clients
from support.servers.kinesis import CallFault, FaultyKinesis
from support.waiting import until

BATCH = BatchSettings(linger_ms=2)
QUICK = Backoff(first_s=0.01, max_s=0.05)
POLICY = CallPolicy(retry=QUICK, probe=QUICK)
USERS = 20


@pytest.fixture
def kinesis(kinesis: FaultyKinesis) -> FaultyKinesis:
    """A Kinesis that denies PutRecords."""
    kinesis.denied_operations = {"PutRecords"}
    return kinesis


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def advice() -> list[str | None]:
    """Advice that the sink gave, in its order."""
    return []


@pytest.fixture
def call_s() -> float:
    """Time for which the sink waits for an answer."""
    return 1.0


@pytest.fixture
async def harness(
    kinesis: FaultyKinesis, clock: Clock, advice: list[str | None], call_s: float
) -> AsyncIterator[TargetQueueHarness]:
    """A target queue over the sink."""
    config = KinesisConfig(
        region="eu-west-1",
        api_key="AKIAIOSFODNN7EXAMPLE",
        secret_key=Secret("not-a-real-secret-key"),
        endpoint_url=kinesis.url,
    )
    async with aws_clients() as clients:
        sink = config.open(clients, "orders", advice.append, call_s=call_s, clock=clock)
        async with TargetQueueHarness(sink, POLICY) as harness:
            yield harness


def put(harness: TargetQueueHarness, first: int, last: int) -> None:
    """Numbered records, the users taking turns."""
    for number in range(first, last):
        harness.put(f"user-{number % USERS}", str(number), batch=BATCH)


def check(kinesis: FaultyKinesis, last: int) -> None:
    """Check that no record is lost, each user's order is kept, and a repetition follows the record that it repeats."""
    records = kinesis.records("orders")
    for user in range(USERS):
        stored = [int(record.data) for record in records if record.key == f"user-{user}"]
        assert list(range(user, last, USERS)) == list(dict.fromkeys(stored))
        assert all(after - before in (0, USERS) for before, after in pairwise(stored))


@pytest.mark.parametrize(
    "fault",
    ["internal", "throttled", "limited", "denied", "expired", "closed", "hanging", "late", "dropped", "validation"],
)
async def test_a_single_call_that_fails_costs_neither_a_record_nor_the_order(
    harness: TargetQueueHarness, kinesis: FaultyKinesis, fault: CallFault
) -> None:
    put(harness, 0, 100)
    await harness.wait_finished(100)
    refused = 2 if fault == "validation" else 0
    kinesis.call_faults.extend([fault, "none", fault])

    put(harness, 100, 300)
    await harness.wait_finished(300)

    assert refused == len(harness.letters.put)
    if not refused:
        check(kinesis, 300)
    assert not kinesis.call_faults
    assert b"millrace_hooks_order_inversions_total 0.0" in harness.metrics.render()


@pytest.mark.parametrize("call_s", [60.0])
async def test_only_records_that_fail_go_again(harness: TargetQueueHarness, kinesis: FaultyKinesis) -> None:
    kinesis.record_failure_rate = 0.2

    put(harness, 0, 500)
    await harness.wait_finished(500)

    check(kinesis, 500)
    assert 500 == len(kinesis.records("orders"))
    assert kinesis.most_at_once <= AT_ONCE


async def test_put_records_is_tried_again_after_a_while(
    harness: TargetQueueHarness, kinesis: FaultyKinesis, clock: Clock, advice: list[str | None]
) -> None:
    put(harness, 0, 20)
    await harness.wait_finished(20)
    kinesis.denied_operations = set()
    put(harness, 20, 40)
    await harness.wait_finished(40)
    assert ([ADVICE], 40) == (advice, kinesis.calls), "one call a record"

    clock.now_s = RETRY_PUT_RECORDS_S
    put(harness, 40, 60)
    await harness.wait_finished(60)

    assert ([ADVICE, None], 41) == (advice, kinesis.calls)
    check(kinesis, 60)


async def test_a_policy_that_grants_the_other_action_instead_is_noticed_at_once(
    harness: TargetQueueHarness, kinesis: FaultyKinesis, advice: list[str | None]
) -> None:
    put(harness, 0, 20)
    await harness.wait_finished(20)

    kinesis.denied_operations = {"PutRecord"}
    put(harness, 20, 40)
    await harness.wait_finished(40)

    assert [ADVICE, None] == advice
    check(kinesis, 40)


@pytest.fixture
async def client(client: HooksClient, kinesis: FaultyKinesis) -> HooksClient:
    """Tenant `shop` with a connector and a hook for everything."""
    await client.connect(kinesis)
    await client.hook("all")
    return client


async def alerts(bus: Bus, kind: str) -> list[Alert]:
    async with open_scan(bus, streams.ALERTS, subject=f"alerts.hooks.shop.{kind}") as scan:
        count = scan.pending_at_open
        found: list[Alert] = []
        while len(found) < count:
            found += [decode(message.data, Alert) for message in await scan.next(count)]
        return found


async def test_records_go_one_by_one_and_the_operator_is_notified_once(
    client: HooksClient, kinesis: FaultyKinesis, bus: Bus
) -> None:
    posted = events(200, users=20)
    await client.post(posted[:100])
    await client.connect(kinesis, region="eu-central-1")
    await client.post(posted[100:])
    await wait_acknowledged(bus)

    async def told() -> bool:
        return len(await alerts(bus, "target-advice")) > 0

    await until(told)
    assert by_user(posted) == first_successes(kinesis.records("orders"))
    status = await client.status("all")
    assert (200, 0, ADVICE, None) == (status["sent"], status["failed"], status["advice"], status["waits_because"])
    (alert,) = await alerts(bus, "target-advice")
    assert ("orders", ADVICE) == (alert.subject, alert.message)
    assert [] == await alerts(bus, "target-paused")


async def test_a_changed_connector_is_tried_with_put_records_first(
    client: HooksClient, kinesis: FaultyKinesis, bus: Bus
) -> None:
    await client.post(events(10, users=10))
    await wait_acknowledged(bus)
    assert ADVICE == (await client.status("all"))["advice"]

    kinesis.denied_operations = {"PutRecord"}
    await client.connect(kinesis, region="eu-central-1")
    await client.post(events(20, users=10)[10:])
    await wait_acknowledged(bus)

    assert (None, 20) == ((await client.status("all"))["advice"], len(kinesis.records("orders")))


async def test_a_test_record_that_goes_by_put_record_is_a_warning(client: HooksClient, kinesis: FaultyKinesis) -> None:
    _, told = await client.ask("POST", "/connectors/kinesis/test", {"stream_name": "orders", "test_record": True})

    (stored,) = kinesis.records("orders")
    step = told["steps"][2]
    assert ("warning", "warning", "AccessDeniedException") == (told["status"], step["status"], step["code"])
    assert f"{stored.value['id']} is in {stored.shard} as number {stored.sequence}, by PutRecord" in step["message"]
    assert "kinesis:PutRecords" in step["hint"]
