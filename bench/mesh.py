"""
The whole mesh against its bare parts: time to ready, and what the four services use while nothing happens.

The other side is as many processes that do nothing but serve `/livez` with aiohttp and hold a nats-py connection.
"""

import asyncio
import contextlib
import os
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from time import perf_counter

import aiohttp
import psutil

from millrace.machine.child_process import Child, child
from millrace.machine.ports import free_ports
from millrace.mesh.folder import MeshFolder
from millrace.mesh.local_mesh import LocalMesh
from millrace.nats_servers.server import NatsServer
from millrace.verbs.bench import Report, Row, compare, rounds
from shared.contracts.services import SERVICES
from shared.runtime.settings import child_environment

NAME = "mesh"
ROUNDS = 3
SETTLE_S = 3.0
IDLE_S = 5.0

BARE = """
import asyncio, sys
import nats
from aiohttp import web

async def main(port, nats_url):
    await nats.connect(nats_url)
    app = web.Application()
    async def livez(_):
        return web.Response(text="ok")
    app.router.add_get("/livez", livez)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    await asyncio.Event().wait()

asyncio.run(main(int(sys.argv[1]), sys.argv[2]))
"""


async def rows(report: Report) -> list[Row]:
    """Seconds, megabytes and per cent of a core."""
    report(f"{ROUNDS} rounds in turn: cold start")
    start = await rounds(ROUNDS, _start_mesh, _start_bare)
    report(f"{ROUNDS} rounds in turn: idle for {IDLE_S:.0f} s")
    ours, other = [], []
    for _ in range(ROUNDS):
        async with _mesh() as processes:
            ours.append(await _idle(processes))
        async with _bare() as processes:
            other.append(await _idle(processes))
    return [
        compare("cold start until all four services are ready", *start, "s", at_most=3),
        compare("idle RSS of the four services", [rss for rss, _ in ours], [rss for rss, _ in other], "MB", at_most=3),
        compare("idle CPU of the four services", [cpu for _, cpu in ours], [cpu for _, cpu in other], "% of a core"),
    ]


@asynccontextmanager
async def _mesh() -> AsyncIterator[list[Child]]:
    with tempfile.TemporaryDirectory(prefix="millrace-bench-") as root:
        folder = MeshFolder(Path(root))
        with folder.lock():
            async with LocalMesh(folder) as mesh:
                yield list(mesh.children.values())


@asynccontextmanager
async def _bare() -> AsyncIterator[list[Child]]:
    async with contextlib.AsyncExitStack() as stack:
        root = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="millrace-bench-")))
        server = await stack.enter_async_context(NatsServer(root / "nats"))
        ports = free_ports(len(SERVICES))
        children = [
            await stack.enter_async_context(
                child(
                    "bare",
                    (sys.executable, "-c", BARE, str(port), server.url),
                    environment=child_environment(),
                    log=root / "log",
                )
            )
            for port in ports
        ]
        http = await stack.enter_async_context(aiohttp.ClientSession())
        for port in ports:
            await _wait_alive(http, port)
        yield children


async def _wait_alive(http: aiohttp.ClientSession, port: int) -> None:
    async with asyncio.timeout(30):
        while True:
            with contextlib.suppress(aiohttp.ClientError):
                async with http.get(f"http://127.0.0.1:{port}/livez"):
                    return
            await asyncio.sleep(0.02)


async def _start_mesh() -> float:
    started = perf_counter()
    async with _mesh():
        return perf_counter() - started


async def _start_bare() -> float:
    started = perf_counter()
    async with _bare():
        return perf_counter() - started


async def _idle(children: list[Child]) -> tuple[float, float]:
    """Megabytes resident and per cent of a core, of all together."""
    processes = [psutil.Process(one.pid) for one in children]
    await asyncio.sleep(SETTLE_S)
    before = [process.cpu_times() for process in processes]
    await asyncio.sleep(IDLE_S)
    used = sum(
        now.user + now.system - then.user - then.system
        for then, now in zip(before, (process.cpu_times() for process in processes), strict=True)
    )
    # The kernel counts in ticks; what takes less than one is not nothing.
    used = max(used, 1 / os.sysconf("SC_CLK_TCK"))
    return sum(process.memory_info().rss for process in processes) / 1e6, 100 * used / IDLE_S
