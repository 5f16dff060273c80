"""The events that are delivered, of 300 bytes each, and how they get into `EVENTS`."""

import asyncio
import itertools
import random
import time
from collections.abc import Iterable, Iterator
from typing import Literal

import msgspec
import nats
from msgspec import Struct

from shared.contracts import streams, subjects
from shared.contracts.messages import Event, make_attributes

APP = "shop"
EVENT_BYTES = 300
USERS = 20_000
AT_ONCE = 1000
"""Messages that are published for one acknowledgement, well under what a stream keeps before it drops (10,000)."""
TICK_S = 0.005

Drawn = Literal["uniform", "zipf", "distinct"]
"""Distribution of the users of events: even, by Zipf's law with exponent 1, or each for one event only."""


class Load(Struct, frozen=True):
    """So many events, so many a message."""

    events: int
    batch: int
    drawn: Drawn = "uniform"


def _template() -> bytes:
    """An event with places for its number, its user's and its time, for encoding each would take the longest."""

    def encoded(note: str) -> bytes:
        event = Event(
            id="event-%012d",
            app_key=APP,
            code="purchase",
            user_id="user-%07d",
            ext_id=None,
            occurred_at=1_000_000_000_000,
            attributes=make_attributes(
                {"product": "shoes", "price": 129.5, "currency": "TRY", "quantity": 1, "note": note}
            ),
        )
        return msgspec.json.encode(event).replace(b"1000000000000", b"%013d")

    return encoded("x" * (EVENT_BYTES - len(encoded("") % (0, 0, 0))))


TEMPLATE = _template()


async def publish(nats_url: str, load: Load) -> None:
    """Store all of it."""
    async with await nats.connect(nats_url) as client:
        js = client.jetstream()
        before = (await js.stream_info(streams.EVENTS.name)).state.messages
        now_ms, published = _now_ms(), 0
        encoded = ((user, TEMPLATE % (number, user, now_ms)) for number, user in enumerate(_users(load)))
        left = _messages(encoded, load.batch)
        while messages := list(itertools.islice(left, AT_ONCE)):
            *others, last = messages
            for subject, data in others:
                await client.publish(subject, data)
            await js.publish(*last)
            published += len(messages)
        stored = (await js.stream_info(streams.EVENTS.name)).state.messages
    assert published == stored - before


async def publish_paced(nats_url: str, events_per_s: int, batch: int, last_s: float) -> int:
    """Publish at a fixed pace, each event with the time at which it leaves. Gives how many those were."""
    dice = random.Random(1)
    users: dict[int, list[int]] = {}
    for user in range(USERS):
        users.setdefault(_partition(user), []).append(user)
    async with await nats.connect(nats_url) as client:
        began, number = time.perf_counter(), 0
        while (passed_s := time.perf_counter() - began) < last_s:
            now_ms = _now_ms()
            # After a tick that came late, all that is due leaves at once.
            while number + batch <= passed_s * events_per_s:
                partition = dice.randrange(subjects.PARTITIONS)
                chosen = dice.choices(users[partition], k=batch)
                events = [TEMPLATE % (number + at, user, now_ms) for at, user in enumerate(chosen)]
                await client.publish(*_message(partition, events))
                number += batch
            await client.flush()
            await asyncio.sleep(TICK_S)
        return number


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _users(load: Load) -> Iterable[int]:
    dice = random.Random(1)
    if load.drawn == "distinct":
        return range(load.events)
    weights = [1 / rank for rank in range(1, USERS + 1)] if load.drawn == "zipf" else None
    return dice.choices(range(USERS), weights, k=load.events)


def _messages(encoded: Iterable[tuple[int, bytes]], batch: int) -> Iterator[tuple[str, bytes]]:
    waiting: dict[int, list[bytes]] = {}
    for user, event in encoded:
        held = waiting.setdefault(partition := _partition(user), [])
        held.append(event)
        if len(held) == batch:
            yield _message(partition, held)
            held.clear()
    for partition, held in waiting.items():
        if held:
            yield _message(partition, held)


def _message(partition: int, events: list[bytes]) -> tuple[str, bytes]:
    return subjects.events(APP, partition), b"[" + b",".join(events) + b"]"


def _partition(user: int) -> int:
    return subjects.partition_of(f"user-{user:07d}")
