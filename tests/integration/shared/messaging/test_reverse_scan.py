"""The messages of one subject, from the newest back, whatever else is in the stream."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from datetime import datetime, timedelta
from typing import Any

import pytest

from shared.contracts.streams import FILES
from shared.contracts.subjects import ftp_file
from shared.messaging.bus import Bus
from shared.messaging.consumers import open_scan
from shared.messaging.message import Message
from shared.messaging.provisioning.making import ensure
from shared.messaging.pull import Pull
from shared.messaging.reverse_scan import newest_first, ranges_back
from shared.runtime.settings import Settings

MINE, OTHERS = ftp_file("shop", "completed"), ftp_file("rival", "completed")


@pytest.fixture
async def stream(bus: Bus, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its ranges are short."""
    monkeypatch.setattr("shared.messaging.reverse_scan.FIRST_RANGE", 3)
    monkeypatch.setattr("shared.messaging.reverse_scan.MOST_READ", 4)
    await ensure(bus, FILES, settings)


async def fill(bus: Bus, plan: str) -> None:
    """Publish one message for each character; `m` is mine."""
    for number, letter in enumerate(plan):
        await bus.publish(MINE if letter == "m" else OTHERS, b"%d" % number)


async def read(bus: Bus, most: int = 10**6, before: datetime | None = None) -> list[Message]:
    found: list[Message] = []
    async with aclosing(newest_first(bus, FILES, MINE, before=before)) as messages:
        async for message in messages:
            found.append(message)
            if len(found) == most:
                break
    return found


@pytest.mark.usefixtures("stream")
@pytest.mark.parametrize(
    "plan", ["", "o", "m", "mo", "om", "m" * 30, "m" + "o" * 60, "m" * 20 + "o" * 40 + "m", "omo" * 15, "o" * 50 + "mm"]
)
async def test_all_of_a_subject_is_read_back_to_the_first(bus: Bus, plan: str) -> None:
    await fill(bus, plan)

    found = await read(bus)

    assert [number for number in reversed(range(len(plan))) if plan[number] == "m"] == [int(m.data) for m in found]


@pytest.mark.usefixtures("stream")
async def test_what_was_stored_later_is_left_out(bus: Bus) -> None:
    await fill(bus, "mmomoommoom" * 3)
    everything = await read(bus)

    for number, message in enumerate(everything):
        found = await read(bus, before=message.at - timedelta(microseconds=1))
        assert [older.sequence for older in everything[number + 1 :]] == [older.sequence for older in found]


@pytest.mark.usefixtures("stream")
async def test_a_reader_may_stop_early(bus: Bus) -> None:
    await fill(bus, "m" * 40)

    assert [b"39", b"38", b"37", b"36", b"35"] == [message.data for message in await read(bus, most=5)]


class Miscounted:
    """A scan of which the server counts one message too many."""

    def __init__(self, scan: Pull) -> None:
        self._scan = scan
        self.pending_at_open = scan.pending_at_open + 1

    async def next(self, most: int) -> list[Message]:
        messages = await self._scan.next(most)
        for message in messages:
            message.pending += 1
        return messages


@pytest.mark.usefixtures("stream")
async def test_a_count_that_is_too_large_does_not_keep_a_scan_waiting(
    bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    await fill(bus, "om" * 6)

    @asynccontextmanager
    async def open_miscounted(*args: Any, **options: Any) -> AsyncIterator[Miscounted]:
        async with open_scan(*args, **options) as scan:
            yield Miscounted(scan)

    monkeypatch.setattr("shared.messaging.reverse_scan.open_scan", open_miscounted)
    async with asyncio.timeout(20):
        found = await read(bus)

    assert [b"11", b"9", b"7", b"5", b"3", b"1"] == [message.data for message in found]


async def read_ranges(bus: Bus, plan: str, **limits: int) -> list[tuple[int, list[int]]]:
    """Each range's first sequence, and the sequences of the messages in it."""
    ranges = []
    async with aclosing(ranges_back(bus, FILES, MINE, end=len(plan) + 1, **limits)) as found:
        async for part in found:
            ranges.append((part.first_sequence, [message.sequence for message in part.messages]))
    return ranges


@pytest.mark.usefixtures("stream")
async def test_ranges_grow_and_hold_each_message_once(bus: Bus) -> None:
    plan = "mo" * 20
    await fill(bus, plan)

    ranges = await read_ranges(bus, plan, length=2, most=100)

    assert [39, 31, 1] == [first for first, _ in ranges]
    assert [39] == ranges[0][1]
    assert list(range(1, 40, 2)) == [sequence for _, sequences in reversed(ranges) for sequence in sequences]


@pytest.mark.usefixtures("stream")
async def test_a_range_with_too_many_messages_is_halved(bus: Bus) -> None:
    plan = "m" * 40
    await fill(bus, plan)

    ranges = await read_ranges(bus, plan, length=16, most=6)

    assert all(len(sequences) <= 6 for _, sequences in ranges)
    assert list(range(1, 41)) == [sequence for _, sequences in reversed(ranges) for sequence in sequences]


@pytest.mark.usefixtures("stream")
async def test_a_scan_ends_at_the_first_sequence_and_before_too_many_bytes(bus: Bus) -> None:
    plan = "m" * 40
    await fill(bus, plan)

    assert [39, 31, 11] == [first for first, _ in await read_ranges(bus, plan, length=2, most=100, first_sequence=11)]
    # Two bytes for each of the newest thirty.
    assert [39, 31] == [first for first, _ in await read_ranges(bus, plan, length=2, most=100, max_bytes=30)]


@pytest.mark.usefixtures("stream")
async def test_ranges_without_a_message_of_the_subject_are_empty(bus: Bus) -> None:
    plan = "o" * 10
    await fill(bus, plan)

    assert [(9, []), (1, [])] == await read_ranges(bus, plan, length=2)
