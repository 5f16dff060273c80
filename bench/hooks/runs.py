"""
One run: a NATS server, Kinesis' stub, and the process that delivers, each a process of its own.

The process is ready, and its consumers are paused, when the events are stored. So a measurement covers the whole way
of the events and nothing of the start.
"""

import asyncio
import contextlib
import importlib.util
import re
import statistics
import sys
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from time import perf_counter

import aiohttp
import msgspec
import nats
import psutil
from msgspec import Struct

from hooks.config import CONNECTORS, HOOKS
from hooks.matching.hook import BatchSettings, Hook
from hooks.sinks.kinesis.config import KinesisConfig
from millrace.machine.child_process import Child, child
from millrace.machine.ports import free_ports
from millrace.nats_servers.server import NatsServer
from shared.config.registry import Registry
from shared.config.secret import Secret
from shared.config.secret_keys import generate_key
from shared.config.secret_store import SecretStore
from shared.contracts import streams
from shared.errors import UnavailableError
from shared.messaging.bus import Bus
from shared.messaging.connection import connect
from shared.messaging.provisioning.making import ensure, provision
from shared.runtime.settings import Settings, child_environment
from shared.runtime.telemetry import Metrics

from . import alternatives, kinesis_stub
from .events import APP, Drawn, Load, publish, publish_paced
from .kinesis_stub import Options

START_S = 60.0
"""Time limit of the first event."""
MEASURED_S = 25.0
"""The longest that a rate is taken. What is then read and not delivered is counted against the process."""
LATE_S = 10.0
"""Time limit of the last events of a fixed pace."""
PAUSED_S = 600
POLL_S = 0.02

ACCESS_KEY, SECRET_KEY = "AKIDEXAMPLE00000", "secret"


class Testbed(Struct, frozen=True):
    """Environment of a process that delivers: a bus for preparations, addresses, a folder; and the stub's client."""

    bus: Bus
    nats_url: str
    kinesis_url: str
    folder: Path
    http: aiohttp.ClientSession

    async def delivered(self) -> int:
        """Events that the stub has."""
        async with self.http.get(self.kinesis_url) as answer:
            return int(await answer.text())

    async def ages_ms(self) -> list[int]:
        """Ages of the events since the last call."""
        async with self.http.get(f"{self.kinesis_url}/ages") as answer:
            return msgspec.json.decode(await answer.read(), type=list[int])


class Side(Struct, frozen=True):
    """One of those that are compared. It delivers `events` in some seconds, with so many a message."""

    name: str
    serve: Callable[[Testbed], AbstractAsyncContextManager[Child]]
    events: Callable[[int], int]
    announces: bool = False
    """Its metrics have an address."""


class Rate(Struct, frozen=True):
    """
    Events per second of CPU, and by the clock, and whether all of them came in time; for ours also how often a user's
    order was lost.
    """

    cpu: float
    wall: float
    complete: bool
    inversions: int

    def __str__(self) -> str:
        return (
            f"{1e6 / self.cpu:.1f} us CPU each, {self.wall:.0f}/s by the clock{'' if self.complete else ', cut short'}"
        )


def ours(batch: BatchSettings) -> Side:
    """The service, with a hook of such batches."""

    @asynccontextmanager
    async def serve(testbed: Testbed) -> AsyncIterator[Child]:
        key = generate_key()
        registry = Registry(testbed.bus, SecretStore([key]), service="bench", relist_s=30)
        await provision(testbed.bus, Settings())
        connector = KinesisConfig(
            region=alternatives.REGION,
            api_key=ACCESS_KEY,
            secret_key=Secret(SECRET_KEY),
            endpoint_url=testbed.kinesis_url,
        )
        await registry.put(CONNECTORS["kinesis"], APP, "", connector)
        hook = Hook(name="all", stream_name=alternatives.STREAM, trigger_type="EVENT", event_code="*", batch=batch)
        await registry.put(HOOKS, APP, "all", hook)
        environment = child_environment(
            nats_url=testbed.nats_url,
            secret_keys=key,
            http_port=0,
            allow_private_endpoints=True,
            announce_file=str(_announced(testbed)),
            data_dir=str(testbed.folder / "data"),
            log_level="warning",
        )
        async with _process("hooks", testbed, (sys.executable, "-m", "hooks"), environment) as process:
            yield process

    return Side("ours", serve, lambda _: 100_000, announces=True)


def _alternative(name: str, way: str) -> Side:
    @asynccontextmanager
    async def serve(testbed: Testbed) -> AsyncIterator[Child]:
        command = (sys.executable, str(alternatives.__file__), way, testbed.nats_url, testbed.kinesis_url)
        keys = {"AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET_KEY}
        async with _process(way, testbed, command, child_environment() | keys) as process:
            yield process

    return Side(name, serve, lambda batch: 20_000 if batch == 1 else 100_000)


PUT_RECORDS = _alternative("fetch() and put_records", "put_records")
ASYNC_KINESIS = _alternative("fetch() and async-kinesis", "async_kinesis")


def has_async_kinesis() -> bool:
    return importlib.util.find_spec("kinesis") is not None


async def rate(side: Side, batch: int, *, drawn: Drawn, options: Options, events: int) -> Rate:
    """Measure the rate at which a side delivers events that wait."""
    async with _testbed(options) as testbed, side.serve(testbed) as process:
        first = await _ready(testbed, side, process)
        async with _paused(testbed):
            await publish(testbed.nats_url, Load(events, batch, drawn))
        # A paused consumer goes on when the server checks it again, some time later.
        begun = await _begun(testbed, process, first + 1)
        began, cpu_s = perf_counter(), _cpu_s(process)
        last = await _delivered(testbed, process, first + events, MEASURED_S)
        took_s, used_s = perf_counter() - began, _cpu_s(process) - cpu_s
        if last == begun:
            raise UnavailableError(f"{side.name} delivered nothing in {MEASURED_S:g} s:\n{process.last_lines()}")
        found = await _inversions(testbed) if side.announces else 0
        # What came twice was delivered once.
        came = min(last, first + events) - begun
        return Rate(came / used_s, came / took_s, last >= first + events, found)


async def peaks_mb(sides: list[Side], load: Load, *, options: Options, last_s: float) -> list[float]:
    """The most memory that each had in the first seconds of delivering, of all that waits."""
    async with _testbed(options) as testbed:
        await publish(testbed.nats_url, load)
        found = []
        for side in sides:
            async with side.serve(testbed) as process:
                seen = await testbed.delivered()
                await _begun(testbed, process, seen + 1)
                await asyncio.sleep(last_s)
                found.append(_peak_mb(process))
        return found


async def p99_ms(side: Side, events_per_s: int, batch: int, *, warm_s: float, last_s: float) -> tuple[float, float]:
    """
    Measure the time from publishing to the stub's receipt, at a fixed pace, and the pace that was kept. Both read one
    clock. An event that is missing `LATE_S` after the last was published counts as `LATE_S` late.
    """
    async with _testbed(Options(measures_ages=True)) as testbed, side.serve(testbed) as process:
        first = await _ready(testbed, side, process)
        publishing = asyncio.create_task(publish_paced(testbed.nats_url, events_per_s, batch, warm_s + last_s))
        await asyncio.sleep(warm_s)
        await testbed.ages_ms()
        published = await publishing
        missing = first + published - await _delivered(testbed, process, first + published, LATE_S)
        ages_ms = await testbed.ages_ms() + [round(1e3 * LATE_S)] * missing
        return statistics.quantiles(ages_ms, n=100)[98], published / (warm_s + last_s)


@asynccontextmanager
async def _testbed(options: Options) -> AsyncIterator[Testbed]:
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="millrace-bench-")))
        server = await stack.enter_async_context(NatsServer(folder / "nats", sync_interval="2m"))
        bus = await stack.enter_async_context(connect("bench", server.url, metrics=Metrics(), wait_s=5))
        await ensure(bus, streams.EVENTS, Settings())
        http = await stack.enter_async_context(aiohttp.ClientSession())
        (port,) = free_ports(1)
        testbed = Testbed(bus, server.url, f"http://127.0.0.1:{port}", folder, http)
        told = msgspec.json.encode(options).decode()
        command = (sys.executable, str(kinesis_stub.__file__), str(port), told)
        stub = await stack.enter_async_context(_process("stub", testbed, command, child_environment()))
        await _delivered(testbed, stub, 0, START_S)
        yield testbed


def _process(
    name: str, testbed: Testbed, command: tuple[str, ...], environment: dict[str, str]
) -> AbstractAsyncContextManager[Child]:
    """Start a process that is killed at the end: events that it has not delivered do not count."""
    return child(name, command, environment=environment, log=testbed.folder / f"{name}.log", stop_deadline_s=0)


async def _delivered(testbed: Testbed, process: Child, least: int, most_s: float) -> int:
    """Wait until the stub has so many events, or for so long. Returns their number."""
    seen, ends = 0, perf_counter() + most_s
    while True:
        with contextlib.suppress(aiohttp.ClientError):
            if (seen := await testbed.delivered()) >= least:
                return seen
        if not process.running:
            raise process.ended("while it was measured")
        if perf_counter() > ends:
            return seen
        await asyncio.sleep(POLL_S)


async def _ready(testbed: Testbed, side: Side, process: Child) -> int:
    """Wait until it delivers, and the service has all its partitions. Returns the number of events at the stub."""
    await publish(testbed.nats_url, Load(1, 1))
    seen = await _begun(testbed, process, 1)
    ends = perf_counter() + START_S
    while side.announces and not _announced(testbed).exists():
        if perf_counter() > ends:
            raise UnavailableError(f"{side.name} was not ready in {START_S:g} s:\n{process.last_lines()}")
        await asyncio.sleep(POLL_S)
    return seen


async def _begun(testbed: Testbed, process: Child, least: int) -> int:
    if (seen := await _delivered(testbed, process, least, START_S)) < least:
        raise UnavailableError(f"{process.name} delivered nothing in {START_S:g} s:\n{process.last_lines()}")
    return seen


@asynccontextmanager
async def _paused(testbed: Testbed) -> AsyncIterator[None]:
    """Pause every consumer of `EVENTS` for the block."""
    async with await nats.connect(testbed.nats_url) as client:
        consumers = await client.jetstream().consumers_info(streams.EVENTS.name)

        async def pause(until: datetime) -> None:
            for consumer in consumers:
                subject = f"$JS.API.CONSUMER.PAUSE.{streams.EVENTS.name}.{consumer.name}"
                answer = await client.request(subject, msgspec.json.encode({"pause_until": until}))
                assert "error" not in msgspec.json.decode(answer.data), answer.data

        await pause(datetime.now(UTC) + timedelta(seconds=PAUSED_S))
        yield
        await pause(datetime.now(UTC))


async def _inversions(testbed: Testbed) -> int:
    url = msgspec.json.decode(_announced(testbed).read_bytes())["http"]
    async with testbed.http.get(f"{url}/metrics") as answer:
        found = re.search(r"^millrace_hooks_order_inversions_total (\S+)$", await answer.text(), re.MULTILINE)
    assert found is not None
    return int(float(found[1]))


def _announced(testbed: Testbed) -> Path:
    return testbed.folder / "hooks.json"


def _cpu_s(process: Child) -> float:
    times = psutil.Process(process.pid).cpu_times()
    return times.user + times.system


def _peak_mb(process: Child) -> float:
    status = Path(f"/proc/{process.pid}/status").read_text()
    found = re.search(r"^VmHWM:\s+(\d+) kB$", status, re.MULTILINE)
    assert found is not None
    return int(found[1]) * 1024 / 1e6
