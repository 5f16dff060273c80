"""`millrace status`: readiness of the services. Asks each service for its pings, and NATS for its answer."""

import argparse
import asyncio
from collections.abc import Mapping
from pathlib import Path

import aiohttp
import msgspec
from msgspec import Struct

from millrace.mesh.access import add_data_argument, find_access, open_registry
from millrace.mesh.service_api import add_url_argument, find_urls
from millrace.terminal.console import Console, write_document
from millrace.terminal.event_loop import run_async
from shared.contracts import streams
from shared.errors import MillraceError, NotFoundError
from shared.http.health import Readiness

TIMEOUT_S = 5.0


class ServiceStatus(Struct, frozen=True, kw_only=True):
    """One row. `failing` is the reason by the name of the ping."""

    name: str
    url: str
    ready: bool
    version: str = ""
    ok: tuple[str, ...] = ()
    failing: dict[str, str] = {}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `millrace status`."""
    add_data_argument(parser)
    add_url_argument(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON document")


def run(args: argparse.Namespace) -> int:
    """Show every service. Exit with 1 when one is not ready."""
    return run_async(_run(args))


async def _run(args: argparse.Namespace) -> int:
    states = await find_states(find_urls(args.url, args.data), args.data)
    ready = all(state.ready for state in states)
    if args.json:
        write_document(msgspec.json.encode({"ready": ready, "services": states}))
    else:
        rows = [
            (state.name, "ready" if state.ready else "NOT READY", state.version, state.url, _why(state))
            for state in states
        ]
        Console().table(("name", "state", "version", "address", "pings"), rows)
    return 0 if ready else 1


def _why(state: ServiceStatus) -> str:
    return "; ".join(f"{name}: {reason}" for name, reason in state.failing.items()) or ", ".join(state.ok)


async def find_states(urls: Mapping[str, str], data: Path) -> list[ServiceStatus]:
    """The state of every service, and of NATS where the operator can reach it."""
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=TIMEOUT_S)) as http:
        services = await asyncio.gather(*(_service(http, name, url) for name, url in urls.items()))
    return [*services, *await _nats(data)]


async def _service(http: aiohttp.ClientSession, name: str, url: str) -> ServiceStatus:
    try:
        async with http.get(f"{url}/openapi.json") as answer:
            version = str(msgspec.json.decode(await answer.read())["info"]["version"])
        async with http.get(f"{url}/readyz") as answer:
            readiness = msgspec.json.decode(await answer.read(), type=Readiness)
    except (aiohttp.ClientError, TimeoutError, msgspec.DecodeError, KeyError, TypeError) as error:
        return ServiceStatus(name=name, url=url, ready=False, failing={"http": str(error) or type(error).__name__})
    return ServiceStatus(
        name=name, url=url, ready=readiness.ready, version=version, ok=readiness.ok, failing=readiness.failing
    )


async def _nats(data: Path) -> list[ServiceStatus]:
    try:
        access = find_access(data)
    except NotFoundError:
        return []
    try:
        async with open_registry(access) as registry:
            config = await registry.bus.stream_state(streams.CONFIG)
            server = registry.bus.client.connected_server_version
    except MillraceError as error:
        return [ServiceStatus(name="nats", url=access.nats_url, ready=False, failing={"jetstream": error.message})]
    version = f"{server.major}.{server.minor}.{server.patch}"
    jetstream = f"jetstream ({config.messages} entries of configuration)"
    return [ServiceStatus(name="nats", url=access.nats_url, ready=True, version=version, ok=(jetstream,))]
