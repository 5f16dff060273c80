"""Streams and buckets on a real server: their limits, their subjects, and what is deleted from them."""

import asyncio

import msgspec
import pytest
from nats.js.api import DiscardPolicy, StreamConfig

from millrace.nats_servers.server import NatsServer
from shared.contracts.streams import BUCKETS, CONFIG, DLQ, EVENTS, OBJECTS, PUSH, STREAMS, Bucket, Stream
from shared.contracts.subjects import EVERY_EVENT, PARTITIONS, events
from shared.errors import ConflictError, NotFoundError, UnavailableError
from shared.messaging.bus import Bus
from shared.messaging.connection import connect
from shared.messaging.consumers import open_scan
from shared.messaging.provisioning.making import ensure
from shared.messaging.streams import PARTITIONS_KEY, delete_message, purge
from shared.runtime.settings import Settings
from shared.runtime.telemetry import Metrics


def changed(settings: Settings, **changes: object) -> Settings:
    return msgspec.convert(msgspec.to_builtins(settings) | changes, Settings)


@pytest.mark.parametrize("spec", [EVENTS, PUSH, DLQ, OBJECTS, CONFIG], ids=lambda spec: spec.name)
async def test_making_it_twice_changes_nothing(bus: Bus, settings: Settings, spec: Stream | Bucket) -> None:
    await ensure(bus, spec, settings)
    name = spec.stream if isinstance(spec, Bucket) else spec.name
    before = (await bus.js.stream_info(name)).config

    await ensure(bus, spec, settings)

    assert (await bus.js.stream_info(name)).config == before


async def test_services_that_start_at_once_do_not_conflict(nats_server: NatsServer, settings: Settings) -> None:
    async def start(name: str) -> None:
        async with connect(name, nats_server.url, metrics=Metrics(), wait_s=5) as bus:
            for spec in (EVENTS, PUSH, CONFIG):
                await ensure(bus, spec, settings)

    await asyncio.gather(*(start(f"service-{n}") for n in range(6)))

    async with connect("test", nats_server.url, metrics=Metrics(), wait_s=5) as bus:
        names = {info.config.name for info in await bus.js.streams_info()}
    assert names == {"EVENTS", "PUSH", "KV_CONFIG"}


async def test_an_existing_stream_is_brought_up_to_date_and_keeps_its_messages(bus: Bus, settings: Settings) -> None:
    await ensure(bus, EVENTS, settings)
    await bus.publish("events.shop.1", b"[]")

    await ensure(bus, EVENTS, changed(settings, events_max_age_h=96.0, events_max_bytes=1 << 30))

    info = await bus.js.stream_info("EVENTS")
    assert (info.config.max_age, info.config.max_bytes, info.state.messages) == (96 * 3600, 1 << 30, 1)


async def test_events_of_the_release_before_stay_whatever_their_subject(bus: Bus, settings: Settings) -> None:
    await bus.js.add_stream(StreamConfig(name="EVENTS", subjects=["events.*.*"], max_bytes=8 << 30))
    subjects = ["events.shop.3", "events.shop.16", "events.shop.none"]
    for subject in subjects:
        await bus.publish(subject, b"[]")

    await ensure(bus, EVENTS, settings)

    async with open_scan(bus, EVENTS, subject=EVERY_EVENT) as scan:
        found = [message.subject for _ in subjects for message in await scan.next(1)]
    assert found == subjects


@pytest.mark.parametrize("partition", ["16", "-1", "01", "x", "0.0", "9999999999"])
async def test_an_event_in_a_partition_that_nobody_reads_is_refused(
    bus: Bus, settings: Settings, partition: str
) -> None:
    await ensure(bus, EVENTS, settings)

    with pytest.raises(UnavailableError):
        await bus.publish(f"events.shop.{partition}", b"[]")

    for number in range(PARTITIONS):
        await bus.publish(events("shop", number), b"[]")
    assert (await bus.stream_state(EVENTS)).messages == PARTITIONS


@pytest.mark.parametrize("spec", [*STREAMS, *BUCKETS], ids=lambda spec: spec.name)
async def test_every_stream_and_bucket_has_a_limit(bus: Bus, settings: Settings, spec: Stream | Bucket) -> None:
    await ensure(bus, spec, settings)

    config = (await bus.js.stream_info(spec.stream if isinstance(spec, Bucket) else spec.name)).config

    assert config.max_bytes == settings.limit_of(spec) > 0
    assert config.compression == ("none" if isinstance(spec, Bucket) else "s2")


async def test_a_limit_takes_no_message_from_a_stream_that_is_larger(bus: Bus, settings: Settings) -> None:
    small = changed(settings, stream_max_bytes=f"DLQ={1 << 20}")
    await ensure(bus, DLQ, settings)
    for number in range(3):
        await bus.publish(f"dlq.hooks.shop.a.{number}", bytes(500_000))

    await ensure(bus, DLQ, small)
    info = await bus.js.stream_info("DLQ")
    assert (info.state.messages, info.config.max_bytes) == (3, DLQ.max_bytes)

    await delete_message(bus, DLQ, 1)
    await ensure(bus, DLQ, small)
    info = await bus.js.stream_info("DLQ")
    assert (info.state.messages, info.config.max_bytes) == (2, 1 << 20)


async def test_what_an_operator_changed_by_hand_stays(bus: Bus, settings: Settings) -> None:
    await ensure(bus, PUSH, settings)
    config = (await bus.js.stream_info("PUSH")).config
    await bus.js.update_stream(config.evolve(description="watched by the night shift"))

    await ensure(bus, PUSH, settings)

    assert (await bus.js.stream_info("PUSH")).config.description == "watched by the night shift"


async def test_another_number_of_partitions_is_refused(bus: Bus, settings: Settings) -> None:
    await bus.js.add_stream(StreamConfig(name="EVENTS", subjects=["events.*.*"], metadata={PARTITIONS_KEY: "8"}))

    with pytest.raises(ConflictError, match="made with 8 partitions, this release has 16"):
        await ensure(bus, EVENTS, settings)


async def test_events_refuse_when_full_and_others_forget(bus: Bus, settings: Settings) -> None:
    for spec in (EVENTS, DLQ):
        await ensure(bus, spec, settings)

    discard = {name: (await bus.js.stream_info(name)).config.discard for name in ("EVENTS", "DLQ")}

    assert {name: DiscardPolicy(policy) for name, policy in discard.items()} == {
        "EVENTS": DiscardPolicy.NEW,
        "DLQ": DiscardPolicy.OLD,
    }


async def test_a_purge_takes_out_what_its_subject_matches_up_to_a_sequence(bus: Bus, settings: Settings) -> None:
    await ensure(bus, DLQ, settings)
    for owner in ("a", "b", "a", "a"):
        await bus.publish(f"dlq.hooks.shop.{owner}.odd", b"{}")

    assert 2 == await purge(bus, DLQ, "dlq.hooks.shop.a.*", before_sequence=4)
    assert 0 == await purge(bus, DLQ, "dlq.hooks.rival.*.*", before_sequence=100)

    state = await bus.stream_state(DLQ)
    assert (2, 2, 4) == (state.messages, state.first_sequence, state.last_sequence)


async def test_a_message_is_deleted_once_and_a_second_delete_changes_nothing(bus: Bus, settings: Settings) -> None:
    await ensure(bus, DLQ, settings)
    for _ in range(2):
        await bus.publish("dlq.hooks.shop.a.odd", b"{}")

    for _ in range(2):
        await delete_message(bus, DLQ, 1)
    await delete_message(bus, DLQ, 99)

    assert 1 == (await bus.stream_state(DLQ)).messages


async def test_deleting_from_a_missing_stream_is_refused(bus: Bus) -> None:
    with pytest.raises(NotFoundError):
        await delete_message(bus, DLQ, 1)
    with pytest.raises(NotFoundError):
        await purge(bus, DLQ, "dlq.>", before_sequence=1)
