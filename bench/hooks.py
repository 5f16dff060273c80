"""
Hooks against what a user would write: from JetStream to acknowledged PutRecords, in events per second of CPU.

The other side is nats-py's `fetch()`, msgspec and aiobotocore's `put_records`, one call after the other, without order,
isolation or a window. Kinesis is a stub in a process of its own, which answers as Kinesis does and forgets. Each side
is a process of its own too: its CPU time is taken from its first call until the last record is there.
"""

import asyncio
import contextlib
import random
import sys
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from pathlib import Path
from time import perf_counter

import aiohttp
import msgspec
import psutil
from msgspec import Struct

from hooks.config import HOOKS, KINESIS
from hooks.sinks.kinesis import KinesisConfig
from hooks.triggers import Hook
from millrace.bench import Report, Row, compare
from millrace.nats_server import NatsServer
from millrace.processes import Child, child, free_ports
from shared import subjects
from shared.bus import Bus, connect
from shared.messages import Event
from shared.registry import Registry
from shared.secret_store import Secret, SecretStore, generate_key
from shared.settings import Settings, child_environment
from shared.streams import ensure
from shared.telemetry import Metrics

NAME = "hooks"
SINGLE_EVENTS = 60_000
BATCHED_EVENTS = 200_000
BATCH = 100
USERS = 20_000
AT_ONCE = 256
EVENT_BYTES = 300

STUB = """
import asyncio, json, sys
from aiohttp import web

count = 0
number = 0

async def put(request):
    global count, number
    body = await request.read()
    records = body.count(b'"PartitionKey"')
    if delay := float(sys.argv[2]):
        await asyncio.sleep(delay)
    told = []
    for _ in range(records):
        number += 1
        told.append('{"SequenceNumber":"%056d","ShardId":"shardId-000000000000"}' % number)
    count += records
    text = '{"FailedRecordCount":0,"Records":[' + ",".join(told) + "]}"
    return web.Response(text=text, content_type="application/x-amz-json-1.1")

async def seen(request):
    return web.Response(text=str(count))

async def main(port):
    app = web.Application(client_max_size=1 << 30)
    app.router.add_post("/", put)
    app.router.add_get("/", seen)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    await asyncio.Event().wait()

asyncio.run(main(int(sys.argv[1])))
"""

BARE = """
import asyncio, sys
import msgspec, nats
from aiobotocore.config import AioConfig
from aiobotocore.session import get_session

KEYS = {"aws_access_key_id": "AKIDEXAMPLE00000", "aws_secret_access_key": "secret"}

def payload(event):
    body = {"code": event["code"], "ts": event["occurred_at"], "attributes": event.get("attributes", {})}
    user = {"userId": event["user_id"], "attributes": event.get("user", {}).get("attributes", {})}
    return {"id": event["id"], "event": body, "user": user, "identities": event.get("identities", {})}

async def main(nats_url, url):
    client = await nats.connect(nats_url)
    subscription = await client.jetstream().pull_subscribe("events.>", durable="bare", stream="EVENTS")
    decoder, encoder = msgspec.json.Decoder(list[dict]), msgspec.json.Encoder()
    config = AioConfig(retries={"max_attempts": 0})
    making = get_session().create_client("kinesis", region_name="eu-west-1", endpoint_url=url, config=config, **KEYS)
    async with making as kinesis:
        while True:
            try:
                messages = await subscription.fetch(500, timeout=1)
            except TimeoutError:
                continue
            events = [event for message in messages for event in decoder.decode(message.data)]
            records = [{"Data": encoder.encode(payload(event)), "PartitionKey": event["user_id"]} for event in events]
            for at in range(0, len(records), 500):
                await kinesis.put_records(StreamName="events", Records=records[at : at + 500])
            for message in messages:
                await message.ack()

asyncio.run(main(*sys.argv[1:]))
"""

Serve = Callable[[Bus, str, str, Path], AbstractAsyncContextManager[Child]]
"""Starts what delivers: its bus for preparations, NATS' address, Kinesis', a folder of its own."""


class Rate(Struct, frozen=True):
    """Events per second of CPU, and by the clock."""

    cpu: float
    wall: float


async def rows(report: Report) -> list[Row]:
    """Events per second of CPU of the process that delivers them."""
    found = []
    for name, events, batch, at_least in (
        ("single events", SINGLE_EVENTS, 1, 4),
        (f"batches of {BATCH}", BATCHED_EVENTS, BATCH, 3),
    ):
        report(f"{events} events of {EVENT_BYTES} bytes, {name}: ours, then fetch() and put_records")
        ours = await _measure(events, batch, _ours)
        other = await _measure(events, batch, _bare)
        report(f"  by the clock: {ours.wall:.0f} and {other.wall:.0f} events/s")
        found.append(compare(f"hooks, {name}", [ours.cpu], [other.cpu], "events/CPU s", at_least=at_least))
    return found


async def _measure(events: int, batch: int, serve: Serve) -> Rate:
    with tempfile.TemporaryDirectory(prefix="millrace-bench-") as folder:
        async with AsyncExitStack() as stack:
            server = await stack.enter_async_context(NatsServer(Path(folder) / "nats", sync_interval="2m"))
            bus = await stack.enter_async_context(connect("bench", server.url, metrics=Metrics(), wait_s=5))
            await ensure(bus, subjects.EVENTS, Settings())
            await _publish(bus, events, batch)
            (port,) = free_ports(1)
            await stack.enter_async_context(
                child(
                    "stub",
                    (sys.executable, "-c", STUB, str(port), "0"),
                    environment=child_environment(),
                    log=Path(folder) / "stub.log",
                )
            )
            url = f"http://127.0.0.1:{port}"
            http = await stack.enter_async_context(aiohttp.ClientSession())
            await _seen(http, url, 0)
            process = await stack.enter_async_context(serve(bus, server.url, url, Path(folder)))
            return await _watch(http, url, psutil.Process(process.pid), events)


async def _publish(bus: Bus, events: int, batch: int) -> None:
    dice = random.Random(1)
    waiting: dict[int, list[bytes]] = {}
    messages: list[tuple[str, bytes]] = []
    for number in range(events):
        event = _event(number, dice)
        partition = subjects.partition_of(event.user_id)
        held = waiting.setdefault(partition, [])
        held.append(msgspec.json.encode(event))
        if len(held) == batch:
            messages.append((subjects.events("shop", partition), b"[" + b",".join(held) + b"]"))
            held.clear()
    for partition, held in waiting.items():
        if held:
            messages.append((subjects.events("shop", partition), b"[" + b",".join(held) + b"]"))
    left = iter(messages)

    async def work() -> None:
        for subject, data in left:
            await bus.publish(subject, data)

    async with asyncio.TaskGroup() as tasks:
        for _ in range(AT_ONCE):
            tasks.create_task(work())


def _event(number: int, dice: random.Random) -> Event:
    event = Event(
        id=f"event-{number:012d}",
        app_key="shop",
        code="purchase",
        user_id=f"user-{dice.randrange(USERS):06d}",
        ext_id=None,
        occurred_at=1_790_000_000_000 + number,
        attributes={"product": "shoes", "price": 129.5, "currency": "TRY", "quantity": 1, "note": ""},
    )
    room = EVENT_BYTES - len(msgspec.json.encode(event))
    return msgspec.structs.replace(event, attributes=event.attributes | {"note": "x" * room})


@asynccontextmanager
async def _ours(bus: Bus, nats_url: str, kinesis_url: str, folder: Path) -> AsyncIterator[Child]:
    key = generate_key()
    registry = Registry(bus, SecretStore([key]), service="bench", relist_s=30)
    await ensure(bus, subjects.CONFIG, Settings())
    connector = KinesisConfig(
        region="eu-west-1", api_key="AKIDEXAMPLE00000", secret_key=Secret("secret"), endpoint_url=kinesis_url
    )
    await registry.put(KINESIS, "shop", "", connector)
    hook = Hook(name="all", stream_name="events", trigger_type="EVENT", event_code="*")
    await registry.put(HOOKS, "shop", "all", hook)
    environment = child_environment(
        nats_url=nats_url,
        secret_keys=key,
        http_port=0,
        allow_private_endpoints=True,
        data_dir=str(folder / "data"),
        log_level="warning",
    )
    async with child(
        "hooks", (sys.executable, "-m", "hooks"), environment=environment, log=folder / "hooks.log"
    ) as process:
        yield process


@asynccontextmanager
async def _bare(bus: Bus, nats_url: str, kinesis_url: str, folder: Path) -> AsyncIterator[Child]:
    async with child(
        "bare",
        (sys.executable, "-c", BARE, nats_url, kinesis_url),
        environment=child_environment(),
        log=folder / "bare.log",
    ) as process:
        yield process


async def _watch(http: aiohttp.ClientSession, url: str, process: psutil.Process, events: int) -> Rate:
    async with asyncio.timeout(120):
        first = await _seen(http, url, 1)
        began, cpu = perf_counter(), _cpu_s(process)
        last = await _seen(http, url, events)
        took, used = perf_counter() - began, _cpu_s(process) - cpu
    return Rate((last - first) / used, (last - first) / took)


async def _seen(http: aiohttp.ClientSession, url: str, least: int) -> int:
    while True:
        with contextlib.suppress(aiohttp.ClientError):
            async with http.get(url) as answer:
                if (count := int(await answer.text())) >= least:
                    return count
        await asyncio.sleep(0.02)


def _cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return times.user + times.system
