"""
The main program of a service: settings, signals and the exit code. `shared.lifecycle` is what runs between.

The only caller of `asyncio.run`, and the only handler of signals. The first signal stops the service, a second one
exits at once.
"""

import asyncio
import ctypes
import gc
import os
import signal
import sys

import msgspec
import structlog

from shared.config.secret_keys import split_keys
from shared.errors import MillraceError
from shared.http.openapi import openapi
from shared.lifecycle import VERSION, serve
from shared.messaging.provisioning.making import provision_mesh
from shared.runtime import logs
from shared.runtime.settings import Settings, read_settings
from shared.service import RunningService, Service

log = structlog.get_logger()

PROVISION_WAIT_S = 60.0
"""Time in which NATS may start beside its provisioning."""
GC_THRESHOLDS = (20_000, 10, 10)
"""Allocations between two collections of the youngest objects, instead of 700: a burst of messages is no garbage."""
M_ARENA_MAX = -8
"""mallopt(3), in glibc's malloc.h."""
ARENAS = 2
"""Heaps of glibc in this process. Each keeps what it once used, and by default there are eight for each core."""


def run(service: Service) -> None:
    """
    The main program of a service. `--openapi` prints the document of its routes instead; `--provision` makes what the
    mesh keeps in NATS and ends, which any service's container can do (`millrace provision` does the same).
    """
    if sys.argv[1:] == ["--openapi"]:
        document = openapi(service.name, VERSION, service.routes)
        sys.stdout.write(msgspec.json.format(msgspec.json.encode(document), indent=2).decode() + "\n")
        return
    try:
        settings = read_settings(service.settings)
    except MillraceError as error:
        sys.exit(f"millrace {service.name}: {error.field}: {error.message}")
    logs.configure(service=service.name, level=settings.log_level, format=settings.log_format)
    keys = (settings.nats_seed, settings.reports_secret_access_key, settings.smtp_password)
    for secret in (*keys, *split_keys(settings.secret_keys)):
        logs.redactor.add(secret)
    _limit_arenas()
    _keep_all()
    gc.set_threshold(*GC_THRESHOLDS)
    work = _provision(settings) if sys.argv[1:] == ["--provision"] else _run(service, settings)
    sys.exit(asyncio.run(work))


async def _provision(settings: Settings) -> int:
    try:
        await provision_mesh(settings, wait_s=PROVISION_WAIT_S)
    except MillraceError as error:
        log.error("provisioning_failed", code=error.code, message=error.message)
        return 1
    log.info("provisioning_done")
    return 0


async def _run(service: Service, settings: Settings) -> int:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def on_signal(number: signal.Signals) -> None:
        if stop.is_set():
            log.warning("stop_forced", signal=number.name)
            os._exit(128 + number)
        log.info("stop_requested", signal=number.name)
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal, number)
    ready: asyncio.Future[RunningService] = loop.create_future()
    ready.add_done_callback(_keep_all)
    try:
        return await serve(service, settings, stop, ready)
    except (MillraceError, ExceptionGroup) as failure:
        for error in _leaf_errors(failure):
            if isinstance(error, MillraceError):
                log.error("service_failed", code=error.code, message=error.message, field=error.field)
            else:
                log.error("service_failed", message=str(error), exc_info=error)
        return 1


def _keep_all(_: asyncio.Future[RunningService] | None = None) -> None:
    """
    Leave all present objects out of the search for garbage: what was imported or read at the start stays. To search it
    again and again would cost a tenth of all work, and the AWS SDK's data alone would hold the loop for 20 ms. What is
    garbage by then goes first, or it would stay for ever.
    """
    gc.collect()
    gc.freeze()


def _limit_arenas() -> None:
    """Let threads share their heaps: an upload of 500 MB in parts took 10 MB more without it."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # Only glibc has it.
        return
    mallopt(M_ARENA_MAX, ARENAS)


def _leaf_errors(error: BaseException) -> list[BaseException]:
    if not isinstance(error, BaseExceptionGroup):
        return [error]
    return [leaf for part in error.exceptions for leaf in _leaf_errors(part)]
