"""The lag of exports: exact for few events, an estimate for many, and the age of the oldest as a metric."""

from datetime import datetime

import pytest

from exporter.exports.runs.lag import LagMeter
from exporter.pipeline.events import count_events
from exporter.pipeline.lane import WHOLE, lanes_of
from exporter.pipeline.source import EventSource, total_of
from shared.contracts import streams, subjects
from shared.messaging.bus import Bus
from shared.runtime.telemetry import Metrics
from support.clock import Clock
from support.stored_messages import messages


async def publish(bus: Bus, app: str, *bodies: bytes) -> int:
    return [(await bus.publish(subjects.events(app, 0), body)).sequence for body in bodies][-1]


async def test_events_of_the_app_behind_the_cursor_are_counted(
    export_bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = EventSource(export_bus)
    cursor = await publish(export_bus, "shop", b"[1,2]")
    await publish(export_bus, "rival", b"[1]")
    await publish(export_bus, "shop", b"[1,2,3]", b"garbage", b"[1]")

    exact = await source.waiting("shop", after=cursor)
    monkeypatch.setattr("exporter.pipeline.source.COUNTED_MESSAGES", 1)
    estimate = await source.waiting("shop", after=cursor)

    assert (3, 5, False) == exact[:3]
    assert (3, 9, True) == estimate[:3]
    assert exact.oldest_ns == estimate.oldest_ns > 0
    assert (0, 0, False, 0) == await source.waiting("shop", after=cursor + 4)


async def test_lag_of_lanes_adds_up_to_that_of_the_export(export_bus: Bus) -> None:
    source = EventSource(export_bus)
    for partition in (3, 7, 3, 0, 15):
        await export_bus.publish(subjects.events("shop", partition), b"[1,2]")

    found = [await source.waiting("shop", after=1, lane=lane) for lane in lanes_of(4)]
    oldest = [await source.oldest("shop", after=1, lane=lane) for lane in lanes_of(4)]

    assert [(1, 2), (0, 0), (0, 0), (3, 6)] == [one[:2] for one in found]
    assert await source.waiting("shop", after=1) == total_of(found)
    assert [4, None, None, 2] == [one and one[0] for one in oldest]


def test_items_of_a_message_are_counted_whatever_they_are() -> None:
    assert 6 == count_events([b"[]", b'[{"a":[1,2]},2]', b"[1e999,3]", b'{"a":1}', b"\xff"])


async def test_metric_is_the_age_of_the_oldest_event_that_any_export_waits_with(export_bus: Bus) -> None:
    source, metrics, clock = EventSource(export_bus), Metrics(), Clock()
    cursors = {("shop", "a", WHOLE): 0, ("shop", "b", WHOLE): 0, ("rival", "a", WHOLE): 0}
    meter = LagMeter(source, lambda: cursors, clock, metrics)
    await publish(export_bus, "shop", b"[1]", b"[2]")
    [first, second] = await messages(export_bus, streams.EVENTS, "events.shop.*")

    def shown() -> float:
        lines = metrics.render().decode().splitlines()
        return next(float(line.split()[1]) for line in lines if line.startswith("millrace_export_lag_seconds "))

    async def age(at: datetime) -> float:
        clock.now = at
        await meter.measure()
        return shown()

    now = datetime.fromtimestamp(first.at_ns / 1e9 + 100, first.at.tzinfo)
    assert 100 == pytest.approx(await age(now), abs=0.01)
    cursors["shop", "a", WHOLE] = 2
    assert 100 == pytest.approx(await age(now), abs=0.01)
    cursors["shop", "b", WHOLE] = 1
    assert now.timestamp() - second.at_ns / 1e9 == pytest.approx(await age(now), abs=0.01)
    cursors["shop", "b", WHOLE] = 2
    assert 0 == await age(now)
    await publish(export_bus, "rival", b"[3]")
    [third] = await messages(export_bus, streams.EVENTS, "events.rival.*")
    assert now.timestamp() - third.at_ns / 1e9 == pytest.approx(await age(now), abs=0.01)
