"""
The bus of `shared` against bare nats-py: publishing with JetStream's ack, and reading with a durable consumer.

The server syncs now and then rather than always, because the client is what is compared here.
"""

import asyncio
import itertools
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from time import perf_counter

import nats
from nats.js import JetStreamContext
from nats.js.api import AckPolicy, ConsumerConfig

from millrace.nats_servers.server import NatsServer
from millrace.verbs.bench import Report, Row, compare, rounds
from shared.contracts.consumers import DurableConsumer
from shared.contracts.streams import Stream
from shared.messaging.bus import Bus
from shared.messaging.connection import connect
from shared.messaging.consumers import open_pull
from shared.messaging.provisioning.making import ensure_consumer
from shared.runtime.telemetry import Metrics

NAME = "bus"
ROUNDS = 5
MESSAGES = 5_000
BODY = b"x" * 1024
AT_ONCE = 64
BATCH = 256

STREAM = Stream(name="BENCH", owner="bench", subjects=("bench.*",), max_age_s=3600, max_bytes=8 << 30)
_numbers = itertools.count()


async def rows(report: Report) -> list[Row]:
    """Messages per second."""
    with tempfile.TemporaryDirectory(prefix="millrace-bench-") as folder:
        async with (
            NatsServer(Path(folder), sync_interval="2m") as server,
            connect("bench", server.url, metrics=Metrics(), wait_s=5) as bus,
        ):
            bare = await nats.connect(server.url)
            try:
                return await _measure(bus, bare.jetstream(), report)
            finally:
                await bare.close()


async def _measure(bus: Bus, js: JetStreamContext, report: Report) -> list[Row]:
    await js.add_stream(name=STREAM.name, subjects=list(STREAM.subjects))

    async def bare_publish() -> None:
        await js.publish("bench.a", BODY)

    async def our_publish() -> None:
        await bus.publish("bench.a", BODY)

    report(f"{ROUNDS} rounds in turn: publish {MESSAGES} messages of {len(BODY)} bytes, {AT_ONCE} at once")
    published = await rounds(ROUNDS, lambda: _publish(our_publish), lambda: _publish(bare_publish))
    await js.purge_stream(STREAM.name)
    await _publish(bare_publish)
    report(f"{ROUNDS} rounds in turn: read {MESSAGES} messages with a durable consumer, each acknowledged")
    received = await rounds(ROUNDS, lambda: _our_read(bus), lambda: _bare_read(js))
    return [
        compare("bus publish with ack", *published, "messages/s", at_least=0.8),
        compare("bus receive (pull loop against fetch)", *received, "messages/s", at_least=1.5),
    ]


async def _publish(publish: Callable[[], Awaitable[None]]) -> float:
    left = iter(range(MESSAGES))

    async def work() -> None:
        for _ in left:
            await publish()

    started = perf_counter()
    async with asyncio.TaskGroup() as tasks:
        for _ in range(AT_ONCE):
            tasks.create_task(work())
    return MESSAGES / (perf_counter() - started)


async def _our_read(bus: Bus) -> float:
    consumer = DurableConsumer(stream=STREAM, name=f"ours-{next(_numbers)}", subject="bench.*")
    await ensure_consumer(bus, consumer)
    async with open_pull(bus, consumer) as pull:
        started, got = perf_counter(), 0
        while got < MESSAGES:
            batch = await pull.next(BATCH)
            got += len(batch)
            await pull.ack(batch[-1])
        return got / (perf_counter() - started)


async def _bare_read(js: JetStreamContext) -> float:
    config = ConsumerConfig(ack_policy=AckPolicy.EXPLICIT, max_ack_pending=100_000)
    subscription = await js.pull_subscribe(
        "bench.*", durable=f"bare-{next(_numbers)}", stream=STREAM.name, config=config
    )
    started, got = perf_counter(), 0
    while got < MESSAGES:
        messages = await subscription.fetch(BATCH)
        got += len(messages)
        for message in messages:
            await message.ack()
    took = perf_counter() - started
    await subscription.unsubscribe()
    return got / took
