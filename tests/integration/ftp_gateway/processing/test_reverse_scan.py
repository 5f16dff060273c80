"""The messages of one subject, from the newest back, whatever else is in the stream."""

from contextlib import aclosing
from datetime import datetime, timedelta

import pytest

from ftp_gateway.processing.reverse_scan import newest_first
from shared.contracts.streams import FILES
from shared.contracts.subjects import ftp_file
from shared.messaging.bus import Bus
from shared.messaging.message import Message
from shared.messaging.streams import ensure
from shared.runtime.settings import Settings

MINE, OTHERS = ftp_file("shop", "completed"), ftp_file("rival", "completed")


@pytest.fixture
async def stream(bus: Bus, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its stretches are short."""
    monkeypatch.setattr("ftp_gateway.processing.reverse_scan.STRETCH", 3)
    monkeypatch.setattr("ftp_gateway.processing.reverse_scan.MOST_READ", 4)
    await ensure(bus, FILES, settings)


async def fill(bus: Bus, plan: str) -> None:
    """Publish one message for each letter, `m` is mine."""
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
async def test_who_has_enough_may_stop(bus: Bus) -> None:
    await fill(bus, "m" * 40)

    assert [b"39", b"38", b"37", b"36", b"35"] == [message.data for message in await read(bus, most=5)]
