"""The service is killed between the publish of records to Kinesis and the ack of their events in JetStream."""

from collections import Counter
from pathlib import Path

import pytest

from shared.messaging.bus import Bus
from shared.runtime.settings import Settings
from support.clients.hooks import by_user, events, first_successes, holds, open_client, wait_acknowledged
from support.servers.hooks_process import hooks_process
from support.servers.kinesis import FaultyKinesis
from support.waiting import until


@pytest.fixture
def kinesis(kinesis: FaultyKinesis) -> FaultyKinesis:
    """A Kinesis that is slow, so that calls are in flight when the service is killed."""
    kinesis.delay_s = 0.02
    return kinesis


async def test_a_kill_between_publish_and_ack_publishes_again_in_order(
    settings: Settings, shop: dict[str, str], kinesis: FaultyKinesis, bus: Bus, tmp_path: Path
) -> None:
    """Kinesis stores the records of a call and does not answer, so that the service cannot have acknowledged them."""
    posted = events(1000, users=100)
    folder = tmp_path / "replica"
    async with hooks_process(settings, folder) as (process, url), open_client(url, shop) as client:
        await client.connect(kinesis)
        await client.hook("all")
        await client.post(posted[:500])
        await kinesis.wait_records("orders", holds(500))
        kinesis.call_faults.append("late")
        await client.post(posted[500:])
        await until(lambda: not kinesis.call_faults)
        process.kill()
        await process.wait()
    published = {record.value["id"] for record in kinesis.records("orders")[500:]}
    async with hooks_process(settings, folder):
        records = await kinesis.wait_records("orders", holds(1000))
        await wait_acknowledged(bus)

    times = Counter(record.value["id"] for record in records)
    assert published, "nothing was published before the kill"
    assert any(times[event_id] > 1 for event_id in published), "nothing was published again"
    assert by_user(posted) == first_successes(records)


async def test_a_kill_under_load_goes_on_at_the_ack_floor(
    settings: Settings, shop: dict[str, str], kinesis: FaultyKinesis, bus: Bus, tmp_path: Path
) -> None:
    kinesis.record_failure_rate = 0.02
    posted = events(4000, users=100)
    folder = tmp_path / "replica"
    async with hooks_process(settings, folder) as (process, url), open_client(url, shop) as client:
        await client.connect(kinesis)
        await client.hook("all")
        for place in range(0, 4000, 50):
            await client.post(posted[place : place + 50])
        await kinesis.wait_records("orders", lambda records: len(records) > 300)
        process.kill()
        await process.wait()
    stored_before = len(kinesis.records("orders"))
    async with hooks_process(settings, folder):
        records = await kinesis.wait_records("orders", holds(4000))
        await wait_acknowledged(bus)

    assert stored_before < 4000
    assert by_user(posted) == first_successes(records)
