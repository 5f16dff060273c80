"""Hooks over three nodes of NATS, of which the one that leads is killed."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from millrace.nats_servers.cluster import NatsCluster
from shared.messaging.bus import Bus
from shared.runtime.settings import Settings
from shared.service import RunningService
from support.clients.hooks import HooksClient, by_user, events, first_successes, holds, wait_acknowledged
from support.servers.kinesis import FaultyKinesis


@pytest.fixture
async def nats_server(tmp_path: Path) -> AsyncIterator[NatsCluster]:
    """Three nodes where the other tests have one server."""
    async with NatsCluster(tmp_path / "nats", sync_interval="2m") as cluster:
        yield cluster


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return msgspec.structs.replace(settings, nats_replicas=3, events_max_bytes=64 << 20)


async def leader(bus: Bus) -> int:
    """The node that leads `EVENTS`, from 0."""
    info = await bus.js.stream_info("EVENTS")
    assert info.cluster is not None
    assert info.cluster.leader is not None
    return int(info.cluster.leader.removeprefix("nats-")) - 1


async def test_the_leader_killed_under_load_costs_neither_events_nor_order(
    client: HooksClient, hooks: RunningService, kinesis: FaultyKinesis, bus: Bus, nats_server: NatsCluster
) -> None:
    posted = events(3000, users=100)
    kinesis.delay_s = 0.02
    kinesis.record_failure_rate = 0.02
    await client.connect(kinesis)
    await client.hook("all")
    for place in range(0, 2000, 100):
        await client.post(posted[place : place + 100])
    await kinesis.wait_records("orders", lambda records: len(records) > 300)
    await nats_server.kill(await leader(bus))
    for place in range(2000, 3000, 100):
        # A repetition is known by the ids of its events.
        while (await client.ask("POST", "/events", posted[place : place + 100]))[0] == 503:
            await asyncio.sleep(0.05)
    async with asyncio.timeout(60):
        records = await kinesis.wait_records("orders", holds(3000))
    await wait_acknowledged(bus)

    assert by_user(posted) == first_successes(records)
    assert b"millrace_hooks_order_inversions_total 0.0" in hooks.mesh.metrics.render()
