"""Fill of streams: gauges, one alert for each crossing, and what a full stream drops."""

import asyncio

import msgspec
import pytest

from shared.contracts.messages import Alert, decode
from shared.contracts.services import SERVICE_NAMES, SERVICES
from shared.contracts.streams import ALERTS, BUCKETS, DLQ, EVENTS, OBJECTS, STREAMS, Bucket, Stream
from shared.contracts.subjects import dead_letter, events, object_stored
from shared.messaging.bus import Bus
from shared.messaging.fill import FillWatch
from shared.messaging.provisioning.making import ensure
from shared.runtime.settings import Settings
from support.stored_messages import messages

LIMIT = 1 << 20


@pytest.fixture
async def small(bus: Bus, settings: Settings) -> Settings:
    """Settings with the smallest limits, on a server that has such streams."""
    small = msgspec.structs.replace(
        settings, events_max_bytes=LIMIT, stream_max_bytes=f"DLQ={LIMIT},OBJECTS={LIMIT},PROFILES={LIMIT}"
    )
    for spec in (ALERTS, EVENTS, DLQ, OBJECTS):
        await ensure(bus, spec, small)
    return small


async def alerts(bus: Bus) -> list[Alert]:
    return [decode(message.data, Alert) for message in await messages(bus, ALERTS, "alerts.>")]


async def fill(bus: Bus, stream: Stream, subject: str, share: float) -> None:
    """Publish until the stream has this share of its limit."""
    while (await bus.stream_state(stream)).bytes < share * LIMIT:
        await bus.publish(subject, bytes(LIMIT // 50))


@pytest.mark.usefixtures("small")
async def test_a_crossing_is_told_once_by_all_replicas_and_by_the_next_ones(bus: Bus) -> None:
    replicas = [FillWatch(bus, "hooks", (EVENTS,)) for _ in range(3)]

    async def look() -> list[tuple[str, str]]:
        await asyncio.gather(*(replica.look() for replica in replicas))
        return [(alert.subject, alert.kind) for alert in await alerts(bus)]

    await fill(bus, EVENTS, events("shop", 0), 0.75)
    assert [] == await look()
    await fill(bus, EVENTS, events("shop", 0), 0.82)
    assert [("EVENTS", "events-filling")] == await look()
    assert 1 == len(await look())

    # Processes that start while it is told.
    replicas[:2] = [FillWatch(bus, "hooks", (EVENTS,)) for _ in range(2)]
    assert 1 == len(await look())

    await bus.js.purge_stream("EVENTS")
    assert ["events-filling", "events-has-room"] == [kind for _, kind in await look()]
    assert 2 == len(await look())
    await fill(bus, EVENTS, events("shop", 0), 0.82)
    assert "events-filling" == (await look())[-1][1]
    assert 3 == len(await look())


@pytest.mark.usefixtures("small")
async def test_an_alert_says_how_much_and_what_happens_at_the_limit(bus: Bus) -> None:
    await fill(bus, EVENTS, events("shop", 0), 0.82)
    await fill(bus, OBJECTS, object_stored("shop"), 0.82)

    await FillWatch(bus, "hooks", (EVENTS, OBJECTS)).look()
    await FillWatch(bus, "storage", (EVENTS, OBJECTS)).look()

    refusing, dropping = await alerts(bus)
    assert ("hooks", "-", "EVENTS") == (refusing.service, refusing.app_key, refusing.subject)
    assert "% of 1048576 bytes are used" in refusing.message
    assert refusing.message.endswith("new ones are refused; MILLRACE_EVENTS_MAX_BYTES sets the limit")
    assert ("storage", "-", "OBJECTS") == (dropping.service, dropping.app_key, dropping.subject)
    assert dropping.message.endswith("the oldest ones are dropped; MILLRACE_STREAM_MAX_BYTES sets the limit")


@pytest.mark.usefixtures("small")
async def test_gauges_have_the_fill_and_drops_are_counted(bus: Bus) -> None:
    watch = FillWatch(bus, "hooks", (DLQ,))
    subject = dead_letter("hooks", "shop", "a", "oversize")
    await fill(bus, DLQ, subject, 0.95)
    await watch.look()
    before = await bus.stream_state(DLQ)

    for _ in range(7):
        await bus.publish(subject, bytes(LIMIT // 20))
    await watch.look()

    after = await bus.stream_state(DLQ)
    dropped = after.first_sequence - before.first_sequence
    shown = bus.metrics.render().decode()
    assert dropped > 7
    assert f'millrace_stream_dropped_total{{stream="DLQ"}} {float(dropped)}' in shown
    assert f'millrace_stream_messages{{stream="DLQ"}} {float(after.messages)}' in shown
    assert 'millrace_stream_limit_bytes{stream="DLQ"} 1.048576e+06' in shown


@pytest.mark.usefixtures("small")
async def test_what_is_deleted_is_not_counted_as_dropped(bus: Bus) -> None:
    watch = FillWatch(bus, "hooks", (DLQ,))
    await fill(bus, DLQ, dead_letter("hooks", "shop", "a", "oversize"), 0.95)
    await watch.look()

    await bus.js.purge_stream("DLQ")
    await watch.look()

    assert 'millrace_stream_dropped_total{stream="DLQ"} 0.0' in bus.metrics.render().decode()


async def test_a_stream_that_is_not_there_does_not_hold_up_the_others(bus: Bus, small: Settings) -> None:
    await bus.js.delete_stream("DLQ")

    await FillWatch(bus, "hooks", (DLQ, EVENTS)).look()

    assert 'millrace_stream_bytes{stream="EVENTS"} 0.0' in bus.metrics.render().decode()


@pytest.mark.parametrize("spec", [*STREAMS, *BUCKETS], ids=lambda spec: spec.name)
def test_owner_is_a_service_that_looks_at_the_stream(spec: Stream | Bucket) -> None:
    assert spec.owner in SERVICE_NAMES
    [owner] = [service for service in SERVICES if service.name == spec.owner]
    assert spec in owner.grant.looks
