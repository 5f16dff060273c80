"""What is killed in the middle of the path from entrance to Kinesis loses nothing and turns no user's order round."""

import asyncio
import functools
import json
import random
import sys
from asyncio.subprocess import Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from hooks.app import SERVICE
from millrace.nats_server import NatsServer
from servers.hooks import by_user, events, first_successes, holds, open_client, wait_acknowledged
from servers.kinesis import FaultyKinesis
from servers.services import RunService
from servers.waiting import until
from shared.bus import Bus
from shared.settings import Settings, child_environment


@pytest.fixture
async def kinesis() -> AsyncIterator[FaultyKinesis]:
    async with FaultyKinesis(delay_s=0.02) as server:
        server.create_stream("orders", shards=4)
        server.create_stream("packed", shards=2)
        server.record_failure_rate = 0.02
        yield server


@asynccontextmanager
async def hooks_process(settings: Settings, announce: Path) -> AsyncIterator[tuple[Process, str]]:
    """The service as a real process, killed when the block is left; its URL is given once it is ready."""
    environment = child_environment(
        nats_url=settings.nats_url,
        secret_keys=settings.secret_keys,
        http_port=0,
        allow_private_endpoints=True,
        data_dir=settings.data_dir,
        announce_file=announce,
        log_level="warning",
    )
    process = await asyncio.create_subprocess_exec(sys.executable, "-m", "hooks", env=environment)
    try:
        while (url := announced(announce)) is None:
            assert process.returncode is None, "the service ended while it started"
            await asyncio.sleep(0.05)
        yield process, url
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


def announced(path: Path) -> str | None:
    """The URL that a process has announced; it is taken away, so that a later process is not mistaken for this one."""
    if not path.exists():
        return None
    url: str = json.loads(path.read_text())["http"]
    path.unlink()
    return url


async def test_a_service_killed_under_load_goes_on_where_its_floor_is(
    settings: Settings, shop: dict[str, str], kinesis: FaultyKinesis, bus: Bus, tmp_path: Path
) -> None:
    posted = events(4000, users=100)
    announce = tmp_path / "announce.json"
    async with hooks_process(settings, announce) as (process, url), open_client(url, shop) as client:
        await client.connect(kinesis)
        await client.hook("all")
        for place in range(0, 4000, 50):
            await client.post(posted[place : place + 50])
        await kinesis.wait_records("orders", lambda records: len(records) > 300)
        process.kill()
        await process.wait()
    stored_before = len(kinesis.records("orders"))
    async with hooks_process(settings, announce):
        records = await kinesis.wait_records("orders", holds(4000))
        await wait_acknowledged(bus)

    assert stored_before < 4000
    assert by_user(posted) == first_successes(records)


async def test_a_service_killed_ten_times_at_any_point_loses_nothing(
    settings: Settings, shop: dict[str, str], kinesis: FaultyKinesis, bus: Bus, tmp_path: Path
) -> None:
    posted = events(8000, users=300)
    announce = tmp_path / "announce.json"
    dice = random.Random(2026)
    place, stored = 0, [0]
    for round_ in range(10):
        async with hooks_process(settings, announce) as (process, url), open_client(url, shop) as client:
            if round_ == 0:
                await client.connect(kinesis)
                await client.hook("all")
                await client.hook("packed", stream_name="packed", batch={"format": "json_array"})
            for _ in range(8):
                await client.post(posted[place : place + 100])
                place += 100
            wanted = stored[-1] + dice.randint(1, 600)
            await until(functools.partial(has_more, kinesis, min(wanted, place)))
            process.kill()
            await process.wait()
        stored.append(len({record.value["id"] for record in kinesis.records("orders")}))
    async with hooks_process(settings, announce):
        records = await kinesis.wait_records("orders", holds(8000))
        await wait_acknowledged(bus)

    assert by_user(posted) == first_successes(records)
    assert sum(before < 800 * round_ for round_, before in enumerate(stored)) >= 3, "no kill was in the middle"
    packed: dict[str, dict[str, None]] = {}
    for record in kinesis.records("packed"):
        packed.setdefault(record.key, {}).update(dict.fromkeys(event["id"] for event in record.value))
    assert by_user(posted) == {user: list(ids) for user, ids in packed.items()}


def has_more(kinesis: FaultyKinesis, wanted: int) -> bool:
    return len(kinesis.records("orders")) >= wanted


async def test_kinesis_killed_under_load_costs_neither_events_nor_order(
    run_service: RunService, shop: dict[str, str], kinesis: FaultyKinesis, bus: Bus
) -> None:
    posted = events(4000, users=100)
    async with run_service(SERVICE) as running, open_client(running.url, shop) as client:
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
        assert b"millrace_hooks_order_inversions_total 0.0" in running.mesh.metrics.render()


async def test_nats_killed_under_load_costs_neither_events_nor_order(
    run_service: RunService,
    shop: dict[str, str],
    kinesis: FaultyKinesis,
    bus: Bus,
    nats_server: NatsServer,
) -> None:
    posted = events(4000, users=100)
    # One user is stuck, so that its partition has taken and not acknowledged far more than one pull asks for.
    kinesis.fails_record = lambda key, _: key == "user-7"
    async with run_service(SERVICE) as running, open_client(running.url, shop) as client:
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
