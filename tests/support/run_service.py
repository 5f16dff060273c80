"""Services inside a test: provisioning, settings, and the type of the fixture `run_service`. No test lives here."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

from shared import lifecycle
from shared.contracts.consumers import DurableConsumer
from shared.contracts.services import SERVICES
from shared.contracts.streams import PUSH, Bucket, Stream
from shared.contracts.subjects import push_send
from shared.messaging.connection import connect
from shared.messaging.provisioning.making import provision
from shared.runtime.settings import Settings
from shared.runtime.telemetry import Metrics
from shared.service import RunningService, Service

PUSH_READER = DurableConsumer(stream=PUSH, name="test", subject=push_send("*", "*"))
"""A reader of PUSH that is none of the mesh's."""

RunService = Callable[[Service], AbstractAsyncContextManager[RunningService]]
"""Runs a service inside the test, for as long as the block."""


def settings_of(service: Service, settings: Settings) -> Settings:
    """Return settings of the service's own type, with free ports; `settings` as they are where they have this type."""
    if isinstance(settings, service.settings):
        return settings
    ports: dict[str, Any] = {
        f"{listener}_port": 0 for entry in SERVICES if entry.name == service.name for listener in entry.ports
    }
    shared = {field: getattr(settings, field) for field in Settings.__struct_fields__}
    return service.settings(**shared, **ports)


async def provision_for(service: Service, settings: Settings) -> None:
    """Make what the service works with, on a server without users."""
    async with connect("test", settings.nats_url, metrics=Metrics(), wait_s=5) as bus:
        specs: tuple[Stream | Bucket, ...] = (*service.streams, *service.buckets)
        await provision(bus, settings, specs=specs, consumers=service.consumers)


@asynccontextmanager
async def running(service: Service, settings: Settings) -> AsyncIterator[RunningService]:
    """A service inside the test. A server without users is provisioned for it first; one with users has to be."""
    if not settings.nats_seed:
        await provision_for(service, settings)
    async with lifecycle.running(service, settings) as served:
        yield served
