"""Publishing of posted events, and the errors when it fails."""

import asyncio
import json
from typing import Any

import pytest

from hooks.delivery.alerts import Alerts
from hooks.events.publisher import EventPublisher, EventsReply
from shared.contracts.messages import Alert
from shared.errors import BusyError, MillraceError, StreamFullError, UnavailableError
from shared.messaging.bus import Published
from support.fakes.sink import NOW


class Bus:
    """A stream that fails at chosen messages, counted from 0."""

    max_payload = 8192

    def __init__(self, failures: dict[int, MillraceError] | None = None) -> None:
        self.failures = failures or {}
        self.taken: list[tuple[str, list[str]]] = []
        self._count = 0
        self.ids: set[str | None] = set()

    async def publish(self, subject: str, data: bytes, *, message_id: str | None = None) -> Published:
        number, self._count = self._count, self._count + 1
        await asyncio.sleep(0)
        if number in self.failures:
            raise self.failures[number]
        self.taken.append((subject, [event["id"] for event in json.loads(data)]))
        known = message_id in self.ids
        self.ids.add(message_id)
        return Published(number, known)


class Scene:
    def __init__(self, bus: Bus) -> None:
        self.alerts: list[Alert] = []
        self._box = Alerts(self._alert, lambda: NOW)
        self.publishing = EventPublisher(bus, self._describe, self._box.events_full, lambda: NOW)

    async def _describe(self) -> str:
        return "EVENTS takes no more"

    async def _alert(self, alert: Alert, message_id: str | None = None) -> None:
        self.alerts.append(alert)

    async def told(self) -> list[str]:
        """The kinds of alerts so far."""
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(self._box.run())
            for _ in range(10):
                await asyncio.sleep(0)
            running.cancel()
        return [alert.kind for alert in self.alerts]


def posted(number: int, user: str = "u", **attributes: Any) -> list[bytes]:
    return [
        json.dumps({"id": f"{user}-{place}", "code": "c", "user_id": user, "attributes": attributes}).encode()
        for place in range(number)
    ]


async def test_chunks_of_a_partition_follow_each_other() -> None:
    bus = Bus()

    reply = await Scene(bus).publishing.accept("shop", posted(40, a="x" * 1000))

    assert 40 == reply.accepted
    assert len(bus.taken) > 4
    assert [f"u-{place}" for place in range(40)] == [event_id for _, ids in bus.taken for event_id in ids]


async def test_duplicates_are_counted_apart_and_told_by_their_places() -> None:
    scene = Scene(Bus())
    first, second = posted(1, "u1"), posted(1, "u2")
    await scene.publishing.accept("shop", first)

    reply = await scene.publishing.accept("shop", [b"{}", *second, *first])

    assert EventsReply(accepted=1, duplicates=1, rejected=1, duplicate_indexes=(2,), errors=reply.errors) == reply


async def test_nothing_of_a_partition_follows_a_chunk_that_failed() -> None:
    bus = Bus({1: UnavailableError("no answer")})

    with pytest.raises(UnavailableError):
        await Scene(bus).publishing.accept("shop", posted(40, a="x" * 1000))

    assert 1 == len(bus.taken)


async def test_a_full_stream_is_reported_once_until_there_is_room() -> None:
    bus = Bus({number: StreamFullError("full") for number in (0, 1, 3)})
    scene = Scene(bus)

    for _ in range(2):
        with pytest.raises(BusyError, match="EVENTS takes no more") as caught:
            await scene.publishing.accept("shop", posted(1))
        assert caught.value.retry_after_s
    assert ["events-full"] == await scene.told()
    await scene.publishing.accept("shop", posted(1))
    with pytest.raises(BusyError):
        await scene.publishing.accept("shop", posted(1))
    assert ["events-full"] * 2 == await scene.told()


async def test_a_stream_with_room_is_not_called_full() -> None:
    scene = Scene(Bus({0: BusyError("too much waits to be sent to NATS")}))

    with pytest.raises(BusyError, match="waits to be sent"):
        await scene.publishing.accept("shop", posted(1))

    assert [] == await scene.told()


async def test_a_full_stream_goes_before_another_failure() -> None:
    bus = Bus({0: UnavailableError("no answer"), 1: BusyError("full")})

    with pytest.raises(BusyError):
        await Scene(bus).publishing.accept("shop", [*posted(1, "u1"), *posted(1, "u2")])


async def test_a_long_list_of_errors_is_cut_and_counted() -> None:
    reply = await Scene(Bus()).publishing.accept("shop", [b"{}"] * 1500)

    assert (0, 1500, 1000) == (reply.accepted, reply.rejected, len(reply.errors))
