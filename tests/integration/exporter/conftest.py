"""Fixtures of exporter: a connection to a server that has the streams and buckets of exports."""

import pytest
from msgspec import structs

from exporter.config.settings import ExporterSettings
from shared.contracts import streams
from shared.messaging.bus import Bus
from shared.messaging.provisioning.making import ensure
from shared.runtime.settings import Settings


@pytest.fixture
def settings(settings: Settings) -> ExporterSettings:
    """The settings of the mesh, with those of exporter at their defaults."""
    return ExporterSettings(**structs.asdict(settings))


@pytest.fixture
async def export_bus(bus: Bus, settings: Settings) -> Bus:
    """`bus`, on a server that has the streams `EVENTS` and `ALERTS`, and the buckets `PLANS`, `RUNS` and `LAKE`."""
    for spec in (streams.EVENTS, streams.ALERTS, streams.PLANS, streams.RUNS, streams.LAKE):
        await ensure(bus, spec, settings)
    return bus
