"""
One run: a NATS server with events in it, Kinesis' stub, and the process that delivers, each a process of its own.

A rate is taken after as many events as the process may hold, and until as many are left. So what was already read when
it began is made up for by what is read and not yet sent when it ends.
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
from pathlib import Path
from time import perf_counter

import aiohttp
import msgspec
import psutil
from msgspec import Struct

from hooks.app import BOUNDS
from hooks.config import HOOKS, KINESIS
from hooks.sinks.kinesis import KinesisConfig
from hooks.triggers import Batch, Hook
from millrace.nats_server import NatsServer
from millrace.processes import Child, child, free_ports
from shared import subjects
from shared.bus import Bus, connect
from shared.errors import UnavailableError
from shared.registry import Registry
from shared.secret_store import Secret, SecretStore, generate_key
from shared.settings import Settings, child_environment
from shared.streams import ensure
from shared.telemetry import Metrics

from . import alternatives, kinesis_stub
from .events import APP, Drawn, Load, publish, publish_paced
from .kinesis_stub import Options

START_S = 60.0
"""For a process to deliver its first event."""
WARM_S = 3.0
MEASURED_S = 8.0
"""The longest that a rate waits to be taken, and is taken; a slow process delivers fewer events then."""
LOOK_S = 0.02

ACCESS_KEY, SECRET_KEY = "AKIDEXAMPLE00000", "secret"


class Ground(Struct, frozen=True):
    """What delivers needs: a bus for preparations, the addresses, a folder of its own; and the stub's client."""

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
        """Of the events since it was asked last."""
        async with self.http.get(f"{self.kinesis_url}/ages") as answer:
            return msgspec.json.decode(await answer.read(), type=list[int])


class Side(Struct, frozen=True):
    """One of those that are compared. `held` events it may have read and not delivered, with so many a message."""

    name: str
    serve: Callable[[Ground], AbstractAsyncContextManager[Child]]
    held: Callable[[int], int]
    measured: Callable[[int], int]
    """How many events its rate is taken of."""
    announces: bool = False
    """Whether it tells where its metrics are."""


class Rate(Struct, frozen=True):
    """Events per second of CPU, and by the clock; for ours also how often a user's order was lost."""

    cpu: float
    wall: float
    inversions: int = 0

    @property
    def cpu_us(self) -> float:
        """Of one event."""
        return 1e6 / self.cpu


def ours(batch: Batch) -> Side:
    """The service, with a hook of such batches."""

    @asynccontextmanager
    async def serve(ground: Ground) -> AsyncIterator[Child]:
        key = generate_key()
        registry = Registry(ground.bus, SecretStore([key]), service="bench", relist_s=30)
        await ensure(ground.bus, subjects.CONFIG, Settings())
        connector = KinesisConfig(
            region=alternatives.REGION,
            api_key=ACCESS_KEY,
            secret_key=Secret(SECRET_KEY),
            endpoint_url=ground.kinesis_url,
        )
        await registry.put(KINESIS, APP, "", connector)
        hook = Hook(name="all", stream_name=alternatives.STREAM, trigger_type="EVENT", event_code="*", batch=batch)
        await registry.put(HOOKS, APP, "all", hook)
        environment = child_environment(
            nats_url=ground.nats_url,
            secret_keys=key,
            http_port=0,
            allow_private_endpoints=True,
            announce_file=str(_announced(ground)),
            data_dir=str(ground.folder / "data"),
            log_level="warning",
        )
        async with _process("hooks", ground, (sys.executable, "-m", "hooks"), environment) as process:
            yield process

    held = BOUNDS.records * subjects.PARTITIONS
    return Side("ours", serve, lambda _: held, lambda batch: 100_000 if batch == 1 else 200_000, announces=True)


def _alternative(name: str, way: str) -> Side:
    @asynccontextmanager
    async def serve(ground: Ground) -> AsyncIterator[Child]:
        command = (sys.executable, str(alternatives.__file__), way, ground.nats_url, ground.kinesis_url)
        keys = {"AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET_KEY}
        async with _process(way, ground, command, child_environment() | keys) as process:
            yield process

    return Side(
        name, serve, lambda batch: alternatives.MESSAGES * batch, lambda batch: 30_000 if batch == 1 else 100_000
    )


PUT_RECORDS = _alternative("fetch() and put_records", "put_records")
ASYNC_KINESIS = _alternative("fetch() and async-kinesis", "async_kinesis")


def has_async_kinesis() -> bool:
    return importlib.util.find_spec("kinesis") is not None


async def rate(side: Side, batch: int, *, drawn: Drawn = "uniform", options: Options) -> Rate:
    """How fast it delivers what waits."""
    held, measured = side.held(batch), side.measured(batch)
    async with _ground(options) as ground:
        await publish(ground.nats_url, Load(2 * held + measured, batch, drawn))
        async with side.serve(ground) as process:
            await _delivered(ground, process, 1, START_S)
            await _delivered(ground, process, held, WARM_S)
            first, began, cpu_s = await ground.delivered(), perf_counter(), _cpu_s(process)
            last = await _delivered(ground, process, first + measured, MEASURED_S)
            took_s, used_s = perf_counter() - began, _cpu_s(process) - cpu_s
            if last == first:
                raise UnavailableError(f"{side.name} delivered nothing in {MEASURED_S:g} s: {process.last_lines()}")
            found = await _inversions(ground) if side.announces else 0
            return Rate((last - first) / used_s, (last - first) / took_s, found)


async def peaks_mb(sides: list[Side], load: Load, *, options: Options, last_s: float) -> list[float]:
    """The most memory that each had in the first seconds of delivering, of all that waits."""
    async with _ground(options) as ground:
        await publish(ground.nats_url, load)
        found = []
        for side in sides:
            async with side.serve(ground) as process:
                seen = await ground.delivered()
                await _delivered(ground, process, seen + 1, START_S)
                await asyncio.sleep(last_s)
                found.append(_peak_mb(process))
        return found


async def p99_ms(side: Side, events_per_s: int, batch: int, *, warm_s: float, last_s: float) -> tuple[float, float]:
    """
    From the publishing to the stub's receipt, at a fixed pace; and the pace that was kept. Both look at one clock. What
    has not come long after the last was published counts as so late.
    """
    async with _ground(Options(looks=True)) as ground, side.serve(ground) as process:
        await publish(ground.nats_url, Load(1, 1))
        await _delivered(ground, process, 1, START_S)
        if side.announces:
            await _announcement(ground)
        publishing = asyncio.create_task(publish_paced(ground.nats_url, events_per_s, batch, warm_s + last_s))
        await asyncio.sleep(warm_s)
        await ground.ages_ms()
        published = await publishing
        missing = 1 + published - await _delivered(ground, process, 1 + published, MEASURED_S)
        ages_ms = await ground.ages_ms() + [round(1e3 * MEASURED_S)] * missing
        return statistics.quantiles(ages_ms, n=100)[98], published / (warm_s + last_s)


@asynccontextmanager
async def _ground(options: Options) -> AsyncIterator[Ground]:
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="millrace-bench-")))
        server = await stack.enter_async_context(NatsServer(folder / "nats", sync_interval="2m"))
        bus = await stack.enter_async_context(connect("bench", server.url, metrics=Metrics(), wait_s=5))
        await ensure(bus, subjects.EVENTS, Settings())
        http = await stack.enter_async_context(aiohttp.ClientSession())
        (port,) = free_ports(1)
        ground = Ground(bus, server.url, f"http://127.0.0.1:{port}", folder, http)
        told = msgspec.json.encode(options).decode()
        command = (sys.executable, str(kinesis_stub.__file__), str(port), told)
        stub = await stack.enter_async_context(_process("stub", ground, command, child_environment()))
        await _delivered(ground, stub, 0, START_S)
        yield ground


def _process(
    name: str, ground: Ground, command: tuple[str, ...], environment: dict[str, str]
) -> AbstractAsyncContextManager[Child]:
    """It is not waited for in the end: what it has not delivered is of no interest."""
    return child(name, command, environment=environment, log=ground.folder / f"{name}.log", stop_deadline_s=0)


async def _delivered(ground: Ground, process: Child, least: int, most_s: float) -> int:
    """Wait until the stub has so many events, or for so long. Gives how many it has."""
    seen, ends = 0, perf_counter() + most_s
    while True:
        with contextlib.suppress(aiohttp.ClientError):
            if (seen := await ground.delivered()) >= least:
                return seen
        if not process.running:
            raise process.ended("while it was measured")
        if perf_counter() > ends:
            return seen
        await asyncio.sleep(LOOK_S)


async def _announcement(ground: Ground) -> dict[str, str]:
    """The service delivers before all its partitions are open; this comes after."""
    async with asyncio.timeout(START_S):
        while not _announced(ground).exists():
            await asyncio.sleep(LOOK_S)
    return msgspec.json.decode(_announced(ground).read_bytes(), type=dict[str, str])


async def _inversions(ground: Ground) -> int:
    url = (await _announcement(ground))["http"]
    async with ground.http.get(f"{url}/metrics") as answer:
        found = re.search(r"^millrace_hooks_order_inversions_total (\S+)$", await answer.text(), re.MULTILINE)
    assert found is not None
    return int(float(found[1]))


def _announced(ground: Ground) -> Path:
    return ground.folder / "hooks.json"


def _cpu_s(process: Child) -> float:
    times = psutil.Process(process.pid).cpu_times()
    return times.user + times.system


def _peak_mb(process: Child) -> float:
    status = Path(f"/proc/{process.pid}/status").read_text()
    found = re.search(r"^VmHWM:\s+(\d+) kB$", status, re.MULTILINE)
    assert found is not None
    return int(found[1]) * 1024 / 1e6
