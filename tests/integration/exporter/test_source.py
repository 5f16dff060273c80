"""The lanes of an export read each message of the app once, in the order of the stream."""

import pytest

from exporter.pipeline.lane import WHOLE, Lane, Shards, lanes_of
from exporter.pipeline.source import EventSource
from shared.contracts import subjects
from shared.contracts.subjects import PARTITIONS
from shared.messaging.bus import Bus


async def read(bus: Bus, lane: Lane, after: int, until: int) -> list[tuple[int, str]]:
    found: list[tuple[int, str]] = []
    async with EventSource(bus).open("shop", after=after, until=until, lane=lane) as events:
        while messages := await events.next():
            found += [(message.sequence, message.subject) for message in messages]
    return found


@pytest.mark.parametrize("shards", [1, 2, 4, 8, 16])
async def test_lanes_have_every_message_of_their_partitions_in_its_order(export_bus: Bus, shards: Shards) -> None:
    for number in range(600):
        # The first partitions have most of the messages, one has none, and another app's are in between.
        partition = min(number * 7 % PARTITIONS, number * 5 % PARTITIONS, 14)
        app_key = "rival" if number % 9 == 0 else "shop"
        await export_bus.publish(subjects.events(app_key, partition), b"x" * (1 + number % 300))
    whole = await read(export_bus, WHOLE, 20, 580)

    found = {lane: await read(export_bus, lane, 20, 580) for lane in lanes_of(shards)}

    assert whole == sorted(message for messages in found.values() for message in messages)
    for lane, messages in found.items():
        mine = [message for message in whole if subjects.partition_of_events(message[1]) in lane.partitions]
        assert mine == messages
    assert 490 < len(whole) < 560
