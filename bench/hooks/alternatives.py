"""
The plain alternative as a process of its own: `fetch()`, msgspec, and one call after the other, without order,
isolation or a window.

    python alternatives.py put_records|async_kinesis NATS_URL KINESIS_URL

The keys are in the environment. async-kinesis holds itself to 1,000 records and 1 MiB a second for each shard; that is
taken off, since the stub has no limits. It sends one record more than `batch_size`, and 500 is the most.
"""

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import msgspec
import nats
from aiobotocore.config import AioConfig  # type: ignore[import-untyped]
from aiobotocore.session import get_session  # type: ignore[import-untyped]

REGION = "eu-west-1"
STREAM = "events"
MESSAGES = 500
"""Of one fetch."""

Events = list[dict[str, Any]]
Send = Callable[[Events], Awaitable[None]]


def payload(event: dict[str, Any]) -> dict[str, Any]:
    body = {"code": event["code"], "ts": event["occurred_at"], "attributes": event.get("attributes", {})}
    user = {"userId": event["user_id"], "attributes": event.get("user", {}).get("attributes", {})}
    return {"id": event["id"], "event": body, "user": user, "identities": event.get("identities", {})}


@asynccontextmanager
async def put_records(kinesis_url: str) -> AsyncIterator[Send]:
    encoder = msgspec.json.Encoder()
    config = AioConfig(retries={"max_attempts": 0})
    making = get_session().create_client("kinesis", region_name=REGION, endpoint_url=kinesis_url, config=config)
    async with making as kinesis:

        async def send(events: Events) -> None:
            records = [{"Data": encoder.encode(payload(event)), "PartitionKey": event["user_id"]} for event in events]
            for at in range(0, len(records), 500):
                await kinesis.put_records(StreamName=STREAM, Records=records[at : at + 500])

        yield send


@asynccontextmanager
async def async_kinesis(kinesis_url: str) -> AsyncIterator[Send]:
    from kinesis import Producer  # type: ignore[import-untyped]
    from kinesis.utils import Throttler  # type: ignore[import-untyped]

    making = Producer(STREAM, region_name=REGION, endpoint_url=kinesis_url, skip_describe_stream=True, batch_size=499)
    async with making as producer:
        producer.put_rate_throttle = producer.put_bandwidth_throttle = Throttler()

        async def send(events: Events) -> None:
            for event in events:
                await producer.put(payload(event), partition_key=event["user_id"])
            await producer.flush()

        yield send


WAYS: dict[str, Callable[[str], AbstractAsyncContextManager[Send]]] = {
    "put_records": put_records,
    "async_kinesis": async_kinesis,
}


async def main(way: str, nats_url: str, kinesis_url: str) -> None:
    client = await nats.connect(nats_url)
    subscription = await client.jetstream().pull_subscribe("events.>", durable=way, stream="EVENTS")
    decoder = msgspec.json.Decoder(Events)
    async with WAYS[way](kinesis_url) as send:
        while True:
            try:
                messages = await subscription.fetch(MESSAGES, timeout=1)
            except TimeoutError:
                continue
            await send([event for message in messages for event in decoder.decode(message.data)])
            for message in messages:
                await message.ack()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
