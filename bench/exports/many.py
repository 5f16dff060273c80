"""
Many exports of one exporter: a process of the service, with an export of all events in each of 50 apps, and a store in
another process that says yes to everything and remembers when.
"""

import asyncio
import re
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter

import aiohttp
import msgspec
import psutil
from msgspec import Struct

from exporter.config.export import EXPORTS, Export
from exporter.destinations.s3 import S3Config
from millrace.machine.child_process import Child, child
from millrace.machine.ports import free_ports
from millrace.nats_servers.server import NatsServer
from millrace.verbs.bench import Report
from shared.config.registry import Registry
from shared.config.secret import Secret
from shared.config.secret_keys import generate_key
from shared.config.secret_store import SecretStore
from shared.config.tokens import TOKENS, Token, new_token, token_hash
from shared.errors import UnavailableError
from shared.messaging.connection import connect
from shared.messaging.provisioning.making import provision
from shared.runtime.settings import Settings, child_environment
from shared.runtime.telemetry import Metrics

from .events import ClickLoad, publish

IDLE_S = 20.0
POLL_S = 0.1
START_S = 60.0
EXPORT = "events"

STUB = """
import asyncio, sys, time
from aiohttp import web

puts = []

async def answer(request):
    async for _ in request.content.iter_any():
        pass
    if request.method == "PUT":
        puts.append((request.path, time.perf_counter()))
        return web.Response(headers={"ETag": '"0123456789abcdef0123456789abcdef"'})
    if request.path == "/puts":
        return web.json_response(puts)
    return web.Response(status=404)

async def main(port):
    app = web.Application()
    app.router.add_route("*", "/{key:.*}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    await asyncio.Event().wait()

asyncio.run(main(int(sys.argv[1])))
"""


class Found(Struct, frozen=True):
    """
    The most memory in megabytes; the seconds until every export had a file, and until all were done; the milliseconds
    of CPU that an idle export takes in a second.
    """

    peak_mb: float
    first_files_s: float
    all_s: float
    idle_ms: float


async def many_exports(exports: int, load: ClickLoad, report: Report) -> Found:
    """Let every export fall behind by a load, then run all at once."""
    apps = [f"app{number}" for number in range(exports)]
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="millrace-bench-")))
        server = await stack.enter_async_context(NatsServer(folder / "nats", sync_interval="2m"))
        bus = await stack.enter_async_context(connect("bench", server.url, metrics=Metrics(), wait_s=5))
        await provision(bus, Settings())
        key, token = generate_key(), new_token()
        registry = Registry(bus, SecretStore([key]), service="bench", relist_s=30)
        await registry.put(TOKENS, token_hash(token), "", Token(scopes=("admin",), created_at=datetime.now(UTC)))
        store_port, port = free_ports(2)
        command = (sys.executable, "-c", STUB, str(store_port))
        log = folder / "stub.log"
        await stack.enter_async_context(
            child("stub", command, environment=child_environment(), log=log, stop_deadline_s=0)
        )
        store_url = f"http://127.0.0.1:{store_port}"
        for app in apps:
            destination = S3Config(
                bucket="bench",
                region="eu-west-1",
                access_key="AKIDEXAMPLE00000",
                secret_key=Secret("secret"),
                directory=app,
                endpoint_url=store_url,
            )
            export = Export(data="events", frequency=1440, destination=destination)
            await registry.put(EXPORTS, app, EXPORT, export)
        environment = child_environment(
            nats_url=server.url,
            secret_keys=key,
            http_port=port,
            allow_private_endpoints=True,
            exporter_lake=False,
            data_dir=str(folder / "data"),
            log_level="warning",
        )
        headers = {"Authorization": f"Bearer {token}"}
        http = await stack.enter_async_context(aiohttp.ClientSession(f"http://127.0.0.1:{port}", headers=headers))
        # The first flush begins an export, so that what is published afterwards is its own.
        async with _exporter(folder, environment) as process:
            await _until_ready(http, process)
            await asyncio.gather(*(_flush(http, app) for app in apps))
        report(f"publishing {load.events * exports} events, for {exports} exports")
        for app in apps:
            await publish(server.url, load, app)
        async with _exporter(folder, environment) as process:
            await _until_ready(http, process)
            report("running all exports at once")
            began = perf_counter()
            flushing = [asyncio.create_task(_flush(http, app)) for app in apps]
            rows = sum(await asyncio.gather(*flushing))
            all_s = perf_counter() - began
            assert rows == load.events * exports, rows
            first: dict[str, float] = {}
            async with http.get(f"{store_url}/puts") as answer:
                for path, at in await answer.json():
                    first.setdefault(path.split("/")[2], at - began)
            assert len(first) == exports
            peak_mb = _peak_mb(process)
            report(f"idle for {IDLE_S:g} s")
            used_s = _cpu_s(process)
            await asyncio.sleep(IDLE_S)
            idle_ms = 1e3 * (_cpu_s(process) - used_s) / IDLE_S / exports
            return Found(peak_mb, max(first.values()), all_s, idle_ms)


@asynccontextmanager
async def _exporter(folder: Path, environment: dict[str, str]) -> AsyncIterator[Child]:
    command = (sys.executable, "-P", "-m", "exporter")
    log = folder / "exporter.log"
    async with child("exporter", command, environment=environment, log=log, stop_deadline_s=30) as process:
        yield process


async def _until_ready(http: aiohttp.ClientSession, process: Child) -> None:
    ends = perf_counter() + START_S
    while perf_counter() < ends:
        if not process.running:
            raise process.ended("at its start")
        try:
            async with http.get("/readyz") as answer:
                if answer.status == 200:
                    return
        except aiohttp.ClientError:
            pass
        await asyncio.sleep(POLL_S)
    raise UnavailableError(f"the exporter was not ready in {START_S:g} s:\n{process.last_lines()}")


async def _flush(http: aiohttp.ClientSession, app: str) -> int:
    """Run an export until nothing is left. Returns the rows of the run."""
    async with http.post(f"/v1/apps/{app}/exports/{EXPORT}/flush") as answer:
        run = msgspec.json.decode(await answer.read())
    assert "id" in run, run
    while run.get("state", "running") in ("running", "retrying"):
        await asyncio.sleep(POLL_S)
        async with http.get(f"/v1/apps/{app}/exports/{EXPORT}/runs/{run['id']}") as answer:
            run = msgspec.json.decode(await answer.read())
    assert run["state"] == "completed", run
    return int(run.get("rows_out", 0))


def _cpu_s(process: Child) -> float:
    times = psutil.Process(process.pid).cpu_times()
    return times.user + times.system


def _peak_mb(process: Child) -> float:
    found = re.search(r"^VmHWM:\s+(\d+) kB$", Path(f"/proc/{process.pid}/status").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1]) * 1024 / 1e6
