"""The demo's events: published by HTTP and by NATS, and read back from the Kinesis shards: each once, in order."""

import asyncio
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from millrace.demo.demo_run import StepResult, equal
from millrace.demo.environment import APP, DemoEnvironment
from millrace.demo.events import StreamCheck, ids_by_user, make_events
from shared.contracts import subjects
from shared.contracts.messages import Event, encode
from shared.contracts.subjects import partition_of

BY_HTTP = 8_000
POST = 1_000
MESSAGE = 100
ARRIVED_S = 30.0
PURCHASES = "shop-purchases"
MESSAGE_LOGS = "shop-message-logs"
SHARDS = {PURCHASES: 2, MESSAGE_LOGS: 2}
"""The streams of the customer's account, which demo.toml names."""


class RecordUser(Struct, rename="camel"):
    """Fields of `user` in `hook.event.v1` that the demo reads."""

    user_id: str


class EventRecord(Struct):
    """Fields of `hook.event.v1` that the demo reads."""

    id: str
    schema: Annotated[str, Meta(pattern="^hook.event.v1$")]
    user: RecordUser


async def publish_events(environment: DemoEnvironment) -> StepResult:
    """Publish most events by HTTP, as a customer's server does, and the rest by NATS, as the platform does."""
    events = make_events(APP, started_at_ms=time.time_ns() // 1_000_000)
    environment.events = events
    accepted = 0
    for part in _parts(events[:BY_HTTP], POST):
        answer = await environment.api.call(
            "hooks",
            "POST",
            f"/v1/apps/{APP}/events",
            body=b"\n".join(encode(event) for event in part),
            content_type="application/x-ndjson",
        )
        accepted += answer["accepted"]
    await asyncio.gather(*(_publish(environment, part) for part in _by_partition(events[BY_HTTP:]).values()))
    sent = len(events) - BY_HTTP
    return equal(
        f"{BY_HTTP} accepted by HTTP, {sent} stored by NATS",
        f"{accepted} accepted by HTTP, {sent} stored by NATS",
        f"of {len(ids_by_user(events))} users: purchases, screen views, message logs, clicks, conversions",
    )


async def _publish(environment: DemoEnvironment, events: Sequence[Event]) -> None:
    """Publish one partition's events, each message after the ack of the one before, which keeps the order."""
    subject = subjects.events(APP, partition_of(events[0].user_id))
    for part in _parts(events, MESSAGE):
        await environment.publisher.publish(subject, encode(list(part)), message_id=f"{APP}:{part[0].id}+{len(part)}")


def _parts(events: Sequence[Event], size: int) -> Iterator[Sequence[Event]]:
    return (events[at : at + size] for at in range(0, len(events), size))


def _by_partition(events: Iterable[Event]) -> dict[int, list[Event]]:
    partitions: dict[int, list[Event]] = {}
    for event in events:
        partitions.setdefault(partition_of(event.user_id), []).append(event)
    return partitions


async def read_purchases(environment: DemoEnvironment) -> StepResult:
    """Read the stream of a hook on one event code, and compare it with the events."""
    return await _read_back(environment, PURCHASES, [event for event in environment.events if event.code == "purchase"])


async def read_message_logs(environment: DemoEnvironment) -> StepResult:
    """Read the stream of a hook on every message log, and compare it. The push engine's logs came first."""
    logs = [event for event in environment.events if event.type == "message_log"]
    return await _read_back(environment, MESSAGE_LOGS, [*environment.engine.sent, *logs])


async def _read_back(environment: DemoEnvironment, stream: str, events: Sequence[Event]) -> StepResult:
    expected = ids_by_user(events)
    started = time.monotonic()
    while True:
        shards = await environment.account.records(stream)
        records = [msgspec.json.decode(data, type=EventRecord) for shard in shards for data in shard]
        check = StreamCheck(expected, [(record.user.user_id, record.id) for record in records])
        if not check.missing or time.monotonic() - started > ARRIVED_S:
            break
        await asyncio.sleep(0.2)
    return StepResult(
        expected=f"{len(events)} records, 0 duplicates, every user in order",
        got=str(check),
        ok=check.exact,
        details=(
            f"{stream}: {' + '.join(str(len(shard)) for shard in shards)} records in {len(shards)} shards",
            *(shard[0].decode()[:160] for shard in shards[:1] if shard),
        ),
    )
