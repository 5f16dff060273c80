"""Consumers of JetStream: durable ones for a pull, ephemeral ones for a scan, and the state of one."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime

from msgspec import Struct
from nats.aio.msg import Msg
from nats.errors import Error as NatsError
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy
from nats.js.errors import APIError

from shared.contracts.streams import Bucket, Stream
from shared.errors import UnavailableError
from shared.messaging.bus import Bus, Message, api_error
from shared.messaging.pull import Pull
from shared.runtime.retry import Backoff, retry

SCAN_INACTIVE_S = 60.0
OPEN_BACKOFF = Backoff(first_s=0.1, max_s=2.0)
OPEN_S = 30.0
ACK_WAIT_S = 24 * 3600.0
"""Never relied upon: whoever takes over resets the consumer to its ack floor. A short wait would break the order."""


class ConsumerState(Struct, frozen=True, kw_only=True):
    """
    Where a durable consumer is. `floor` is a sequence of the stream; `delivered` and `acked` count deliveries since the
    last reset.
    """

    floor: int
    pending: int
    delivered: int
    acked: int


async def consumer_state(bus: Bus, stream: str, durable: str) -> ConsumerState:
    """Ask the server. `pending` are all messages above the floor. Raises `NotFoundError`, `UnavailableError`."""
    try:
        info = await bus.js.consumer_info(stream, durable)
    except APIError as error:
        raise api_error(error) from error
    except (NatsError, TimeoutError, ConnectionError) as error:
        raise UnavailableError(f"{durable} was not read: {type(error).__name__}") from error
    assert info.ack_floor is not None
    assert info.delivered is not None
    return ConsumerState(
        floor=info.ack_floor.stream_seq,
        pending=(info.num_pending or 0) + (info.num_ack_pending or 0),
        delivered=info.delivered.consumer_seq,
        acked=info.ack_floor.consumer_seq,
    )


def _parse(received: Msg) -> tuple[Message, int]:
    """
    A delivered message and its consumer sequence, from the ack subject (NATS ADR-15): nine tokens, or more where it
    also names domain and account.
    """
    tokens = received.reply.split(".")
    delivered, sequence, consumer_sequence, at_ns, pending = tokens[4:9] if len(tokens) == 9 else tokens[6:11]
    message = Message(
        received.subject,
        received.data,
        sequence=int(sequence),
        at_ns=int(at_ns),
        raw_headers=received.headers or b"",
        delivered=int(delivered),
        pending=int(pending),
        reply=received.reply,
    )
    return message, int(consumer_sequence)


@asynccontextmanager
async def open_pull(
    bus: Bus,
    stream: Stream,
    *,
    durable: str,
    subject: str,
    capacity: int = 512,
    capacity_bytes: int = 8 << 20,
    max_ack_pending: int = 100_000,
) -> AsyncIterator[Pull]:
    """
    Read with a durable consumer of ack policy `all`, from its ack floor on.

    One reader at a time: opening resets the consumer (server 2.14+), so what an earlier reader took and did not
    acknowledge comes again at once and in order.
    """
    config = ConsumerConfig(
        name=durable,
        durable_name=durable,
        filter_subject=subject,
        ack_policy=AckPolicy.ALL,
        ack_wait=ACK_WAIT_S,
        max_ack_pending=max_ack_pending,
        max_deliver=-1,
        deliver_policy=DeliverPolicy.ALL,
    )
    pull = Pull(bus, stream.name, config, durable=True, capacity=capacity, capacity_bytes=capacity_bytes)
    # A cluster that has just started may choose a leader for the consumer first.
    await retry(pull.open, backoff=OPEN_BACKOFF, deadline_s=OPEN_S)
    try:
        yield pull
    finally:
        await pull.end()


@asynccontextmanager
async def open_scan(
    bus: Bus,
    stream: Stream | Bucket,
    *,
    subject: str,
    start_sequence: int = 1,
    start_at: datetime | None = None,
    last_per_subject: bool = False,
    capacity: int = 1024,
    capacity_bytes: int = 8 << 20,
) -> AsyncIterator[Pull]:
    """
    Read a stream, or a bucket, without acknowledging: from `start_sequence` on, or what was stored at `start_at` or
    later, or the last of each subject.

    The consumer lives in the server's memory, belongs to this reader alone and goes with it.
    """
    config = ConsumerConfig(
        filter_subject=subject,
        ack_policy=AckPolicy.NONE,
        deliver_policy=DeliverPolicy.LAST_PER_SUBJECT if last_per_subject else DeliverPolicy.BY_START_SEQUENCE,
        opt_start_seq=None if last_per_subject else max(1, start_sequence),
        inactive_threshold=SCAN_INACTIVE_S,
        mem_storage=True,
        num_replicas=1,
    )
    if start_at is not None:
        config = config.evolve(
            deliver_policy=DeliverPolicy.BY_START_TIME, opt_start_seq=None, opt_start_time=start_at.astimezone(UTC)
        )
    name = stream.stream if isinstance(stream, Bucket) else stream.name
    pull = Pull(bus, name, config, durable=False, capacity=capacity, capacity_bytes=capacity_bytes)
    await pull.open()
    try:
        yield pull
    finally:
        await pull.end()
