"""
Consumers of JetStream: a durable one for a pull, and one in the server's memory for a scan.

Both give a `Pull` (`shared.messaging.pull`), which reads in order and bounds its memory. `handling.consume` runs a
handler over one.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime

from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy

from shared.contracts.consumers import DurableConsumer
from shared.contracts.streams import Bucket, Stream
from shared.contracts.subjects import check_subjects
from shared.messaging.bus import Bus
from shared.messaging.pull import Pull
from shared.runtime.retry import Backoff, retry

SCAN_INACTIVE_S = 60.0
OPEN_BACKOFF = Backoff(first_s=0.1, max_s=2.0)
OPEN_S = 30.0


@asynccontextmanager
async def open_pull(
    bus: Bus, consumer: DurableConsumer, *, capacity: int = 512, capacity_bytes: int = 8 << 20
) -> AsyncIterator[Pull]:
    """
    Read with a durable consumer of ack policy `all`, from its ack floor on.

    One reader at a time: opening resets the consumer (server 2.14+). Messages that an earlier reader got and did not
    acknowledge come again at once and in order.

    Raises:
        NotFoundError: There is no such consumer; `millrace provision` makes it.
    """
    config = ConsumerConfig(name=consumer.name)
    pull = Pull(bus, consumer.stream.name, config, durable=True, capacity=capacity, capacity_bytes=capacity_bytes)
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
    check_subjects((subject,), wildcards=True)
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
