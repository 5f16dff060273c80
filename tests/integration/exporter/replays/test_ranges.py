"""Ranges of replays: times and sequences as positions of a real stream, exactly."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from exporter.exports.job import Span
from exporter.pipeline.source import EventSource
from exporter.replays.ranges import span_of, stored_at
from exporter.replays.replay import Position, ReplayRequest
from shared.contracts import streams, subjects
from shared.errors import ConflictError, InvalidError
from shared.messaging.bus import Bus
from shared.messaging.message import Message
from support.stored_messages import messages

EXPIRED = 3
HELD = 6
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


async def fill(bus: Bus, expired: int = EXPIRED) -> list[Message]:
    """Messages of two apps, of which the first have expired. Returns those that are left."""
    for number in range(expired + HELD):
        await bus.publish(subjects.events(("shop", "rival")[number % 2], 0), b"[]")
    if expired:
        await bus.js.purge_stream(streams.EVENTS.name, seq=expired + 1)
    return await messages(bus, streams.EVENTS, subjects.EVERY_EVENT)


def expected_span(held: list[Message], start: Position, end: Position | None, delivered_to: int) -> Span | str:
    """The span by a look at every message, or the field that is wrong."""

    def at_or_after(time: datetime) -> list[int]:
        ns = (time - EPOCH) // timedelta(microseconds=1) * 1000
        return [message.sequence for message in held if message.at_ns >= ns]

    if isinstance(start, datetime):
        found = at_or_after(start)
        if start < stored_at(held[0]) or not found:
            return "from"
        first = found[0]
    else:
        first = start
    if not held[0].sequence <= first <= delivered_to:
        return "from"
    last = delivered_to
    if isinstance(end, datetime):
        found = at_or_after(end)
        last = min(delivered_to, found[0] - 1) if found else delivered_to
    elif end is not None:
        last = end
    return Span(first_sequence=first, last_sequence=last) if first <= last <= delivered_to else "to"


async def test_span_is_that_of_a_look_at_every_message(export_bus: Bus) -> None:
    held = await fill(export_bus)
    source = EventSource(export_bus)
    loop = asyncio.get_running_loop()
    times = st.builds(
        lambda message, microseconds: stored_at(message) + timedelta(microseconds=microseconds),
        st.sampled_from(held),
        st.integers(-2, 2) | st.integers(-5000, 5000),
    ) | st.datetimes(timezones=st.just(UTC))
    positions = st.integers(1, EXPIRED + HELD + 1) | times

    @settings(deadline=None, max_examples=150, suppress_health_check=list(HealthCheck))
    @given(positions, st.none() | positions, st.integers(EXPIRED + 1, EXPIRED + HELD))
    def check(start: Position, end: Position | None, delivered_to: int) -> None:
        form = ReplayRequest(from_=start, to=end, folder="x")
        wanted = expected_span(held, start, end, delivered_to)
        try:
            found: Span | str | None = asyncio.run_coroutine_threadsafe(
                span_of(source, form, delivered_to), loop
            ).result()
        except InvalidError as error:
            found = error.field
        assert wanted == found

    await asyncio.to_thread(check)


async def test_time_before_the_first_event_is_right_where_nothing_has_expired(export_bus: Bus) -> None:
    held = await fill(export_bus, expired=0)
    form = ReplayRequest(from_=stored_at(held[0]) - timedelta(days=1), folder="x")

    assert Span(first_sequence=1, last_sequence=HELD) == await span_of(EventSource(export_bus), form, HELD)


async def test_refusal_says_what_the_stream_holds(export_bus: Bus) -> None:
    held = await fill(export_bus)

    with pytest.raises(InvalidError) as caught:
        await span_of(EventSource(export_bus), ReplayRequest(from_=1, folder="x"), HELD)

    said = stored_at(held[0])
    assert f"sequence {held[0].sequence} or {said.isoformat()} on" in caught.value.message
    # What it says is taken.
    form = ReplayRequest(from_=said, folder="x")
    span = await span_of(EventSource(export_bus), form, EXPIRED + HELD)
    assert held[0].sequence == span.first_sequence


async def test_empty_stream_has_nothing_to_replay(export_bus: Bus) -> None:
    with pytest.raises(ConflictError, match="EVENTS holds no events"):
        await span_of(EventSource(export_bus), ReplayRequest(from_=1, folder="x"), 5)
