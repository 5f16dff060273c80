"""
The words of delivery: a record, its outcome, and the ports that it passes. The sink's port is the protocol that every
plug-in in `sinks/` follows. Who sends what when is in `lanes.py`; no vendor is known in either.
"""

from collections.abc import Callable, Sequence
from hashlib import sha256
from typing import Protocol

from msgspec import Struct

from hooks.delivery.counters import HookCounters
from hooks.matching.hook import Batch
from hooks.matching.rule import Target
from shared.errors import CredentialsError, DeniedError, MillraceError, NotFoundError, UnauthenticatedError
from shared.runtime.retry import Backoff

MAX_KEY_CHARACTERS = 256
"""The longest partition key that Kinesis takes (PutRecords in botocore's service model)."""
PAUSING = (CredentialsError, UnauthenticatedError, DeniedError, NotFoundError)
"""What only a person can mend: the target waits for a change of its configuration, and looks now and then."""
PLAIN = Batch()
FRAME_BYTES = {"single": 0, "json_array": 2, "ndjson": 1}
"""What a format adds to a record that travels alone: the brackets of the array, the line feed."""


class Record(Struct, kw_only=True, eq=False, gc=False):
    """
    One rendered record, on its way. Its events' order is the order in which records of one `key` are put.

    Args:
        key: Decides the lane, and the sink partitions by it.
        size: Bytes of the record alone in the format of its batch, with its key; see `size_of`.
        source: `<stream>:<sequence>:<index>` of its event.
        at_ns: When the mesh stored its event, in nanoseconds since the epoch; 0 where nobody asks.
        done: Called once with the record, when it is confirmed, stored as a dead letter or no longer wanted.
        batch: Its hook's.
        max_bytes: How large the record may become by others that are packed with it, with its key.
        partition: Whose owner sends it; None where it belongs to no partition.
        attempts: How often it was sent.
        next: What waits behind it in its lane.
        events: How many events travel in it.

    Not the collector's (`gc`): tens of thousands wait, and nothing that a record refers to refers to records again.
    """

    key: str
    data: bytes
    size: int
    hook_id: str
    source: str
    counters: HookCounters
    done: Callable[["Record"], None]
    batch: Batch = PLAIN
    max_bytes: int = 1 << 20
    at_ns: int = 0
    partition: int | None = None
    attempts: int = 0
    next: "Record | None" = None
    events: int = 1


class Sent(Struct, frozen=True, gc=False):
    """The record is stored: in which shard and under which number, in decimal digits, where the receiver tells."""

    shard: str = ""
    sequence: str = ""


class Failed(Struct, frozen=True):
    """The record is not stored. `code` is the vendor's word; one that is not `retryable` becomes a dead letter."""

    code: str
    message: str
    retryable: bool = True


Outcome = Sent | Failed


class SinkLimits(Struct, frozen=True, kw_only=True):
    """What one call, and one record with its key, may hold."""

    call_records: int
    call_bytes: int
    record_bytes: int


class Sink(Protocol):
    """
    One target, opened with one revision of its connector. Made by a config's `open`, which does no I/O.

    Several `send` calls run at the same time, never with a record of the same key. The sink does not retry, does not
    wait and keeps nothing between calls; the caller does all of that.
    """

    limits: SinkLimits

    async def send(self, batch: Sequence[Record]) -> Sequence[Outcome]:
        """
        Send within `limits` and give one outcome per record, in the order of `batch`.

        Another number of outcomes counts as no answer. Raising says that the call as a whole failed: `BusyError` and
        `UnavailableError` are tried again with back-off; credentials, denied and not found pause the target until its
        configuration changes, with a try now and then; invalid and too large make the caller send the records one by
        one and put the guilty one aside as a dead letter. Cancellation may leave the batch stored or not: it goes
        again.
        """
        ...

    async def ping(self) -> None:
        """Raise what `send` would, without sending. For Test Connection; delivery does not call it."""
        ...


class Policy(Struct, frozen=True, kw_only=True):
    """
    How a target is served: by how many calls at once in the end; `probe` paces the tries while it is paused, `retry`
    everything else.
    """

    calls: int = 16
    retry: Backoff = Backoff(first_s=0.1, max_s=10.0)
    probe: Backoff = Backoff(first_s=2.0, max_s=60.0)


class DeliveryObserver(Protocol):
    """Who is told what an operator has to know."""

    def paused(self, target: Target, error: MillraceError) -> None: ...

    def resumed(self, target: Target) -> None: ...


class DeadLetters(Protocol):
    """Where records go that cannot be delivered. Returns when they are stored, however long that takes."""

    async def put_record(self, target: Target, record: Record, reason: str, message: str) -> None: ...


def size_of(key: str, data: bytes, batch: Batch = PLAIN) -> int:
    """What a target counts of a record that travels alone: its data and its key, in bytes."""
    return len(data) + (len(key) if key.isascii() else len(key.encode())) + FRAME_BYTES[batch.format]


def partition_key(user_id: str) -> str:
    """The user id, or the SHA-256 of it in hex where it is longer than a key may be."""
    return user_id if len(user_id) <= MAX_KEY_CHARACTERS else sha256(user_id.encode()).hexdigest()
