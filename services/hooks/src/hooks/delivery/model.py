"""
Types and ports of delivery: a record, its outcome, and the ports that it passes. Every plug-in of `hooks.sinks`
satisfies `Sink`. No vendor is known here; `hooks.delivery.target_queue` decides what is sent when.
"""

from collections.abc import Callable, Sequence
from hashlib import sha256
from typing import Protocol

from msgspec import Struct

from hooks.delivery.counters import HookCounters
from hooks.matching.hook import BatchSettings
from hooks.matching.rule import Target
from shared.errors import CredentialsError, DeniedError, MillraceError, NotFoundError, UnauthenticatedError
from shared.runtime.retry import Backoff

MAX_KEY_CHARACTERS = 256
"""The longest partition key that Kinesis takes (PutRecords in botocore's service model)."""
PAUSING = (CredentialsError, UnauthenticatedError, DeniedError, NotFoundError)
"""Errors that only a person can correct: the target waits for new configuration, and is probed now and then."""
PLAIN = BatchSettings()
FRAME_BYTES = {"single": 0, "json_array": 2, "ndjson": 1}
"""Bytes that a format adds to a record that travels alone: the brackets of the array, the line feed."""


class Record(Struct, kw_only=True, eq=False, gc=False):
    """
    One rendered record in flight. Records of one `key` are put in the order of their events.

    Args:
        key: Selects the user queue, and the sink partitions by it.
        size: Bytes of the record alone in the format of its batch, with its key; see `size_of`.
        source: `<stream>:<sequence>:<index>` of its event.
        at_ns: Time at which the mesh stored its event, in nanoseconds since the epoch; 0 where it is not needed.
        done: Called once with the record, when it is confirmed, stored as a dead letter or withdrawn.
        batch: The batching of its hook.
        max_bytes: Limit on a packed record that begins with this one, with its key.
        partition: The partition of its event; None for a replayed dead letter.
        attempts: How often it was sent.
        next: The record behind it in its user queue.
        events: How many events travel in it.

    Untracked by `gc`: tens of thousands wait, and nothing that a record refers to refers back.
    """

    key: str
    data: bytes
    size: int
    hook_id: str
    source: str
    counters: HookCounters
    done: Callable[["Record"], None]
    batch: BatchSettings = PLAIN
    max_bytes: int = 1 << 20
    at_ns: int = 0
    partition: int | None = None
    attempts: int = 0
    next: "Record | None" = None
    events: int = 1


class Sent(Struct, frozen=True, gc=False):
    """The record is stored, in a shard under a sequence number in decimal digits, where the receiver reports them."""

    shard: str = ""
    sequence: str = ""


class Failed(Struct, frozen=True):
    """
    The record is not stored. `code` is the vendor's; a record that is not `retryable` becomes a dead letter.
    `throttled` tells that fewer records would have been taken.
    """

    code: str
    message: str
    retryable: bool = True
    throttled: bool = False


Outcome = Sent | Failed


class SinkLimits(Struct, frozen=True, kw_only=True):
    """Limits of one call, and of one record with its key."""

    call_records: int
    call_bytes: int
    record_bytes: int


class Sink(Protocol):
    """
    One target, opened with one revision of its connector by a config's `open`, which does no I/O.

    Several `send` calls run at once, never with records of the same key. The sink neither retries nor waits, and keeps
    nothing between calls; the caller does all of that.
    """

    limits: SinkLimits

    async def send(self, batch: Sequence[Record]) -> Sequence[Outcome]:
        """
        Send a batch within `limits`. After a cancellation the batch may be stored or not; it is sent again.

        Returns:
            One outcome per record, in the order of `batch`. Another number of outcomes counts as no answer.

        Raises:
            BusyError, UnavailableError: The call is tried again with back-off.
            CredentialsError, UnauthenticatedError, DeniedError, NotFoundError: The target is paused until its
                configuration changes, and probed now and then.
            InvalidError, TooLargeError: The caller sends the records one by one, and the refused one becomes a dead
                letter.
        """
        ...

    async def ping(self) -> None:
        """Check the target without sending, for Test Connection alone. Raises as `send` does."""
        ...


class CallPolicy(Struct, frozen=True, kw_only=True):
    """
    Limits of a target: `calls` is the most at once, `probe` the back-off while it is paused, and `retry` that of
    all other failures.
    """

    calls: int = 16
    retry: Backoff = Backoff(first_s=0.1, max_s=10.0)
    probe: Backoff = Backoff(first_s=2.0, max_s=60.0)


class DeliveryObserver(Protocol):
    """Receives what an operator has to know of a target."""

    def paused(self, target: Target, error: MillraceError) -> None: ...

    def resumed(self, target: Target) -> None: ...

    def throttled(self, target: Target, message: str) -> None: ...

    def rejects(self, target: Target, message: str) -> None: ...


class DeadLetters(Protocol):
    """Stores records that cannot be delivered. Returns once they are stored, however long that takes."""

    async def put_record(self, target: Target, record: Record, reason: str, message: str) -> None: ...


def size_of(key: str, data: bytes, batch: BatchSettings = PLAIN) -> int:
    """Size of a record that travels alone, as a target counts it: data, key and format, in bytes."""
    return len(data) + (len(key) if key.isascii() else len(key.encode())) + FRAME_BYTES[batch.format]


def partition_key(user_id: str) -> str:
    """The user id, or its SHA-256 in hex where it is longer than a key may be."""
    return user_id if len(user_id) <= MAX_KEY_CHARACTERS else sha256(user_id.encode()).hexdigest()
