"""Search for the events of a preview, which shares the event loop with deliveries."""

import asyncio
import contextlib

from hooks.matching.rule import HookIndex
from hooks.partitions.previews import DECODED_AT_ONCE, newest_matching
from shared.contracts.messages import Event, encode
from shared.contracts.subjects import events, partition_of
from shared.messaging.message import Message
from support.fakes.rules import make_rule


async def test_other_tasks_run_while_messages_are_decoded() -> None:
    partition = partition_of("u")
    data = encode([Event(id="e", code="purchase", user_id="u", app_key="shop", occurred_at=1)] * 100)
    messages = [Message(events("shop", partition), data, sequence=place, at_ns=0) for place in range(1, 101)]
    turns = 0

    async def take_turns() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    other = asyncio.create_task(take_turns())
    found = await newest_matching("shop", HookIndex([make_rule("all", event_code="purchase")]), messages, 3)
    other.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await other

    assert ["EVENTS:100:97", "EVENTS:100:98", "EVENTS:100:99"] == [source for _, source in found]
    assert len(data) * len(messages) // (DECODED_AT_ONCE + len(data)) <= turns
