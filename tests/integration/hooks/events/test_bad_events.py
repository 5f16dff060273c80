"""Events that nobody can read or that are out of bounds, beside good ones, by both doors."""

import json
from typing import Any

import pytest

from shared.contracts import streams, subjects
from shared.contracts.messages import DeadLetter, decode
from shared.messaging.bus import Bus
from shared.service import RunningService
from support.clients.hooks import HooksClient, holds
from support.servers.kinesis import FaultyKinesis
from support.stored_messages import messages
from support.waiting import until

GOOD: dict[str, Any] = {"code": "purchase", "user_id": "u"}


@pytest.fixture
async def client(client: HooksClient, kinesis: FaultyKinesis) -> HooksClient:
    """Tenant `shop` with a hook for everything."""
    await client.connect(kinesis)
    await client.hook("all")
    return client


def stored_event(name: str, **more: Any) -> bytes:
    """An event as a publisher on NATS sends it."""
    event = {"id": name, "app_key": "shop", "occurred_at": 1763780000123, **GOOD, **more}
    return json.dumps(event, separators=(",", ":")).encode()


async def publish(bus: Bus, *events: bytes) -> None:
    """Store one message of these events on their user's partition."""
    await bus.publish(subjects.events("shop", subjects.partition_of("u")), b"[" + b",".join(events) + b"]")


async def dead_letters(bus: Bus, number: int) -> list[DeadLetter]:
    """Wait for so many dead letters."""
    found: list[DeadLetter] = []

    async def stored() -> bool:
        found[:] = [decode(message.data, DeadLetter) for message in await messages(bus, streams.DLQ, "dlq.>")]
        return len(found) >= number

    await until(stored)
    return found


async def test_an_external_id_that_no_key_holds_stops_nobody(
    client: HooksClient, hooks: RunningService, kinesis: FaultyKinesis, bus: Bus
) -> None:
    status, told = await client.ask("POST", "/events", [GOOD | {"ext_id": "e" * 2600}])
    await publish(bus, stored_event("long", ext_id="e" * 2600), stored_event("longest", ext_id="ğ" * 1024))
    await client.post([GOOD | {"id": "after", "ext_id": "x"}])

    records = await kinesis.wait_records("orders", holds(2))

    assert (400, "ext_id") == (status, told["errors"][0]["field"])
    assert ["longest", "after"] == [record.value["id"] for record in records]
    (letter,) = await dead_letters(bus, 1)
    assert ("entrance", "invalid", "EVENTS:1:0") == (letter.owner_id, letter.reason, letter.source)
    assert "ext_id" in letter.message
    assert hooks.mesh.bus.connected
