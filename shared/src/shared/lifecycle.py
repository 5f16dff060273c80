"""
Life of a service, the same for all: start, serve, stop.

    start: health up, not ready -> NATS -> streams, buckets and consumers looked at -> configuration read and checked
           -> the service's own parts (`build`) -> requests answered -> ready, addresses announced
    stop:  not ready -> intake closed -> work in flight finishes until the deadline -> the rest is cancelled
           -> parts closed in reverse -> NATS drained -> 0, or 1 when the deadline was hit

Start and stop mirror each other and are read together. `shared.process` has the signals.
"""

import asyncio
import contextlib
import os
import resource
from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import msgspec
import structlog

from shared.config.registry import Registry, View
from shared.config.secret_keys import split_keys
from shared.config.secret_store import SecretStore
from shared.config.tokens import TOKENS
from shared.contracts.alerts import AlertSender
from shared.errors import ConflictError, UnavailableError
from shared.http.connection_table import http_limits
from shared.http.health import Health
from shared.http.server import Listener, make_application
from shared.http.web_server import WebServer
from shared.messaging.bus import Bus
from shared.messaging.connection import connect
from shared.messaging.endpoints import answering
from shared.messaging.fill import FillWatch
from shared.messaging.provisioning.looking import wait_provisioned
from shared.outgoing.door import Outgoing
from shared.runtime.loop_lag import report_loop_lag
from shared.runtime.settings import Settings
from shared.runtime.telemetry import Metrics
from shared.service import Mesh, RunningService, Service

log = structlog.get_logger()

VERSION = version("millrace-shared")
UNLIMITED_FILES = 1 << 20
"""Open files that are counted on where there is no limit."""


async def serve(
    service: Service, settings: Settings, stop: asyncio.Event, ready: asyncio.Future[RunningService] | None = None
) -> int:
    """
    Run a service until `stop` is set, and return its exit code.

    Raises:
        ExceptionGroup: A part could not be opened, or a spawned task failed.
    """
    metrics = Metrics()
    health = Health()
    listener = Listener(health, metrics)
    spawned: list[asyncio.Task[None]] = []
    async with AsyncExitStack() as stack:
        web_server, url = await _listen(service, settings, listener)
        stack.push_async_callback(web_server.close)
        async with asyncio.TaskGroup() as tasks:
            # Until the service is ready a signal has nothing to wait for, so it ends the start where it is.
            starting = tasks.create_task(_start(service, settings, listener, url, stack, tasks, spawned), name="start")
            stopping = tasks.create_task(_wait(stop), name="signal")
            await asyncio.wait((starting, stopping), return_when=asyncio.FIRST_COMPLETED)
            if not starting.done():
                starting.cancel("stopped while starting")
                await _cancel(spawned, "the service stops")
                return 0
            mesh, endpoints = starting.result()
            log.info("service_started", url=url, **mesh.addresses)
            if ready is not None:
                ready.set_result(RunningService(url, mesh, listener.state))
            await stop.wait()
            code = await _stop(mesh, health, web_server, endpoints)
            await _cancel(spawned, "the service stops")
        log.info("service_stopped", code=code)
    return code


async def _cancel(tasks: Sequence[asyncio.Task[None]], cause: str) -> None:
    """
    Cancel until the tasks end: before Python 3.12 `asyncio.wait_for`, by which libraries wait, can swallow a
    cancellation that comes together with the answer (python/cpython#86296). For nats-py,
    `shared.messaging.nats_py.client` mends it.
    """
    waiting = {task for task in tasks if not task.done()}
    while waiting:
        for task in waiting:
            task.cancel(cause)
        _, waiting = await asyncio.wait(waiting, timeout=0.5)


async def _wait(stop: asyncio.Event) -> None:
    await stop.wait()


def _allow_many_files() -> int:
    """
    Raise the soft limit of open files, 1024 by default, to the hard one: every connection is a file.

    Returns:
        The limit that holds.
    """
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    # Systems differ in what "unlimited" may be set to.
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return soft if soft != resource.RLIM_INFINITY else UNLIMITED_FILES


async def _listen(service: Service, settings: Settings, listener: Listener) -> tuple[WebServer, str]:
    application = make_application(service.name, VERSION, service.routes, listener)
    limits = http_limits(settings, _allow_many_files())
    server = WebServer(application, limits, listener.metrics, keepalive_s=settings.http_keepalive_s)
    url = await server.start(settings.http_host, settings.http_port, stop_deadline_s=settings.stop_deadline_s)
    return server, settings.public_url or url


async def _start(
    service: Service,
    settings: Settings,
    listener: Listener,
    url: str,
    stack: AsyncExitStack,
    tasks: asyncio.TaskGroup,
    spawned: list[asyncio.Task[None]],
) -> tuple[Mesh, AsyncExitStack]:
    bus = await stack.enter_async_context(
        connect(
            service.name,
            settings.nats_url,
            seed=settings.nats_seed,
            seed_file=settings.nats_seed_file,
            metrics=listener.metrics,
        )
    )
    listener.health.add("nats", bus.ping)
    await _look(bus, service)
    secrets = SecretStore(
        split_keys(settings.secret_keys), Path(settings.secret_keys_file) if settings.secret_keys_file else None
    )
    registry = Registry(bus, secrets, service=service.name, relist_s=settings.relist_s)
    mesh = Mesh(
        name=service.name,
        settings=settings,
        bus=bus,
        registry=registry,
        metrics=listener.metrics,
        health=listener.health,
        outgoing=await stack.enter_async_context(Outgoing(settings)),
        public_url=url,
        stack=stack,
        tasks=tasks,
        spawned=spawned,
    )
    mesh.spawn("loop lag", report_loop_lag(partial(listener.metrics.gauge, "millrace_loop_lag_seconds")))
    mesh.spawn("connection", _fail_when_closed(bus))
    mesh.spawn("fill", FillWatch(bus, service.name, (*service.streams, *service.buckets)).run())
    views = [registry.view(kind) for kind in (*service.kinds, TOKENS)]
    for view in views:
        mesh.spawn("configuration", view.run())
    for view in views:
        await view.listed.wait()
    _check_signed([view for view in views if view.kind is not TOKENS])
    listener.state = await service.build(mesh)
    listener.registry, listener.bus = registry, bus
    endpoints = AsyncExitStack()
    await endpoints.enter_async_context(answering(bus, service.name, VERSION, listener.state, service.endpoints))
    listener.health.state = "running"
    if settings.announce_file:
        _announce(Path(settings.announce_file), {"service": service.name, "http": url, **mesh.addresses})
    return mesh, endpoints


async def _fail_when_closed(bus: Bus) -> None:
    """Raise `UnavailableError` when the client of NATS has closed for good: only a new process connects again."""
    raise UnavailableError(f"the client of NATS has closed for good: {await bus.wait_closed()}")


def _check_signed(views: Sequence[View[Any]]) -> None:
    """
    Refuse to start where entries of the service's configuration are not signed: to be without them would be worse. An
    event whose hook is not known passes by for ever. An unsigned token opens nothing, and no start waits for it.

    Raises:
        ConflictError: Says how many, the first of them, and what to do.
    """
    unsigned = {key: error for view in views for key, error in view.unsigned.items()}
    if unsigned:
        first = min(unsigned)
        raise ConflictError(
            f"{len(unsigned)} entries of the configuration are not signed by the secret keys of this mesh, such as this"
            f" one: {unsigned[first].message}, and signs those of a release before"
        )


async def _look(bus: Bus, service: Service) -> None:
    """Wait for what the service works with; an alert and the error tell what is missing, old or not ours."""
    try:
        await wait_provisioned(bus, (*service.streams, *service.buckets), service.consumers)
    except UnavailableError as error:
        alerts = AlertSender(service.name, bus.alert, lambda: datetime.now(UTC))
        await alerts.send("", "not-provisioned", "nats", error.message)
        raise


def _announce(path: Path, addresses: dict[str, str]) -> None:
    """Write the announce file whole or not at all: its reader polls for it."""
    temporary = path.with_suffix(".tmp")
    temporary.write_bytes(msgspec.json.encode(addresses | {"pid": str(os.getpid())}))
    temporary.replace(path)


async def _stop(mesh: Mesh, health: Health, web_server: WebServer, endpoints: AsyncExitStack) -> int:
    """Close the intakes and finish the work in flight. Returns 1 when the deadline was hit."""
    health.state = "stopping"
    web_server.stop_accepting()
    for _, intake in mesh.intakes:
        intake.close()
    unfinished = {name for name, _ in mesh.intakes} | {"http", "requests"}

    async def finish(name: str, work: Awaitable[Any]) -> None:
        await work
        unfinished.discard(name)

    try:
        async with asyncio.timeout(mesh.settings.stop_deadline_s), asyncio.TaskGroup() as finishing:
            finishing.create_task(finish("http", web_server.close()))
            finishing.create_task(finish("requests", endpoints.aclose()))
            for name, intake in mesh.intakes:
                finishing.create_task(finish(name, intake.join()))
    except TimeoutError:
        log.error("stop_deadline_exceeded", unfinished=sorted(unfinished), deadline_s=mesh.settings.stop_deadline_s)
        return 1
    return 0


@asynccontextmanager
async def running(service: Service, settings: Settings) -> AsyncIterator[RunningService]:
    """A service inside this process, ready; leaving the block stops it as a signal would. For tests and benches."""
    stop = asyncio.Event()
    ready: asyncio.Future[RunningService] = asyncio.get_running_loop().create_future()
    async with asyncio.TaskGroup() as group:
        serving = group.create_task(serve(service, settings, stop, ready))
        await asyncio.wait((serving, ready), return_when=asyncio.FIRST_COMPLETED)
        if not ready.done():
            await serving
        try:
            yield ready.result()
        finally:
            stop.set()
            with contextlib.suppress(asyncio.CancelledError):
                await serving
