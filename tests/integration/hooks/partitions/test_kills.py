"""Replicas, Kinesis and NATS are killed under load: no event is lost, and each user's order is kept."""

import asyncio
import functools
import random
from asyncio.subprocess import Process
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from millrace.nats_servers.server import NatsServer
from shared.messaging.bus import Bus
from shared.runtime.settings import Settings
from shared.service import RunningService
from support.clients.hooks import HooksClient, by_user, events, first_successes, holds, open_client, wait_acknowledged
from support.servers.hooks_process import hooks_process
from support.servers.kinesis import CallFault, FaultyKinesis, Stored
from support.waiting import until


@pytest.fixture
def kinesis(kinesis: FaultyKinesis) -> FaultyKinesis:
    """A Kinesis that is slow, fails now and then, and has a second stream."""
    kinesis.create_stream("packed", shards=2)
    kinesis.delay_s = 0.02
    kinesis.record_failure_rate = 0.02
    return kinesis


class Fleet:
    """Replicas as processes, by number; each has a folder of its own, and leases that are over soon."""

    def __init__(self, settings: Settings, shop: dict[str, str], folder: Path, stack: AsyncExitStack) -> None:
        self._settings = settings
        self._shop = shop
        self._folder = folder
        self._stack = stack
        self._born = 0
        self._stacks: dict[int, AsyncExitStack] = {}
        self.alive: dict[int, tuple[Process, HooksClient]] = {}

    async def start(self, number: int | None = None) -> None:
        """Start a replica that was killed, or a new one."""
        if number is None:
            number, self._born = self._born, self._born + 1
        stack = self._stacks[number] = await self._stack.enter_async_context(AsyncExitStack())
        folder = self._folder / f"replica-{number}"
        starting = hooks_process(self._settings, folder, module="support.servers.quick_hooks")
        process, url = await stack.enter_async_context(starting)
        self.alive[number] = (process, await stack.enter_async_context(open_client(url, self._shop)))

    async def kill(self, number: int) -> None:
        process, _ = self.alive.pop(number)
        process.kill()
        await process.wait()
        await self._stacks[number].aclose()

    async def post(self, dice: random.Random, posted: list[dict[str, Any]]) -> None:
        """Post by any replica, until one has stored the events. Ids reveal those that were stored before."""
        while True:
            _, client = dice.choice(list(self.alive.values()))
            with suppress(aiohttp.ClientError):
                if (await client.ask("POST", "/events", posted))[0] == 202:
                    return
            await asyncio.sleep(0.02)


@pytest.mark.timeout(180)
@pytest.mark.parametrize("seed", [2026])
async def test_of_three_replicas_ten_killed_at_any_point_lose_nothing(
    settings: Settings, shop: dict[str, str], kinesis: FaultyKinesis, bus: Bus, tmp_path: Path, seed: int
) -> None:
    """A killed replica comes back as itself, or another one comes, whose leases begin when those have run out."""
    posted = events(5000, users=300)
    dice = random.Random(seed)
    stored_at_kills: list[int] = []
    faults: tuple[CallFault, ...] = ("none", "none", "dropped", "short", "internal", "closed", "throttled")
    kinesis.call_faults.extend(dice.choices(faults, k=300))

    async with AsyncExitStack() as stack:
        fleet = Fleet(settings, shop, tmp_path, stack)
        await asyncio.gather(*(fleet.start() for _ in range(3)))
        _, first = fleet.alive[0]
        await first.connect(kinesis)
        await first.hook("all")
        await first.hook("packed", stream_name="packed", batch={"format": "json_array"})
        starting: asyncio.Task[None] | None = None
        for place in range(0, 5000, 500):
            wanted = len(kinesis.records("orders")) + dice.randint(1, 300)
            for part in range(place, place + 500, 50):
                await fleet.post(dice, posted[part : part + 50])
            if starting is not None:
                await starting
            await until(functools.partial(has_more, kinesis, min(wanted, place)))
            victim = dice.choice(sorted(fleet.alive))
            stored_at_kills.append(len(first_ids(kinesis)))
            await fleet.kill(victim)
            starting = asyncio.create_task(fleet.start(dice.choice([victim, None])))
        assert starting is not None
        await starting
        records = await kinesis.wait_records("orders", holds(5000))
        # Not acknowledged is not all that waits: a stream that was blocked for long catches up beside the partition.
        packs = await kinesis.wait_records("packed", lambda packs: sum(map(len, packed_ids(packs).values())) == 5000)
        await wait_acknowledged(bus)

    assert by_user(posted) == first_successes(records)
    in_the_middle = sum(stored < 500 * kills for kills, stored in enumerate(stored_at_kills, start=1))
    assert in_the_middle >= 5, "most kills found nothing under way"
    assert by_user(posted) == packed_ids(packs)


def packed_ids(packs: list[Stored]) -> dict[str, list[str]]:
    """Each user's event ids in the order of the stream, repetitions left out."""
    found: dict[str, dict[str, None]] = {}
    for pack in packs:
        found.setdefault(pack.key, {}).update(dict.fromkeys(event["id"] for event in pack.value))
    return {user: list(ids) for user, ids in found.items()}


def has_more(kinesis: FaultyKinesis, wanted: int) -> bool:
    return len(kinesis.records("orders")) >= wanted


def first_ids(kinesis: FaultyKinesis) -> set[str]:
    return {record.value["id"] for record in kinesis.records("orders")}


async def test_kinesis_killed_under_load_costs_neither_events_nor_order(
    client: HooksClient, hooks: RunningService, kinesis: FaultyKinesis, bus: Bus
) -> None:
    posted = events(4000, users=100)
    await client.connect(kinesis)
    await client.hook("all")
    for round_ in range(4):
        for place in range(round_ * 1000, round_ * 1000 + 1000, 100):
            await client.post(posted[place : place + 100])
        await kinesis.stop()
        await asyncio.sleep(0.1)
        await kinesis.start()
    records = await kinesis.wait_records("orders", holds(4000))
    await wait_acknowledged(bus)

    assert by_user(posted) == first_successes(records)
    assert b"millrace_hooks_order_inversions_total 0.0" in hooks.mesh.metrics.render()


async def test_nats_killed_under_load_costs_neither_events_nor_order(
    client: HooksClient, kinesis: FaultyKinesis, bus: Bus, nats_server: NatsServer
) -> None:
    posted = events(4000, users=100)
    # One user is stuck, so that its partition has taken and not acknowledged far more than one pull asks for.
    kinesis.fails_record = lambda key, _: key == "user-7"
    await client.connect(kinesis)
    await client.hook("all")
    for place in range(0, 3000, 50):
        await client.post(posted[place : place + 50])
    await kinesis.wait_records("orders", lambda records: len(records) > 300)
    await nats_server.kill()
    await nats_server.restart()
    kinesis.fails_record = None
    for place in range(3000, 4000, 50):
        while (await client.ask("POST", "/events", posted[place : place + 50]))[0] == 503:
            await asyncio.sleep(0.05)
    records = await kinesis.wait_records("orders", holds(4000))
    await wait_acknowledged(bus)

    assert by_user(posted) == first_successes(records)
