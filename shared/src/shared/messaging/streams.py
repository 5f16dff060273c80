"""
Streams and buckets on the server: made and brought up to date by the services at start, as `shared.contracts.streams`
says. Also the subjects that have messages, and deletion of messages before their time.

Making is idempotent, and safe when several services start at once: JetStream answers the same creation twice with the
same stream.
"""

import asyncio
import json
from typing import Any

import structlog
from nats.errors import Error as NatsError
from nats.js.api import DiscardPolicy, RetentionPolicy, StorageType, StoreCompression, StreamConfig
from nats.js.errors import APIError

from shared.contracts import jetstream
from shared.contracts.streams import EVENTS, Bucket, Stream
from shared.contracts.subjects import PARTITIONS
from shared.errors import ConflictError, UnavailableError
from shared.messaging.bus import Bus
from shared.messaging.nats_py.errors import api_error
from shared.runtime.settings import Settings

log = structlog.get_logger()

PARTITIONS_KEY = "millrace-partitions"
MANAGED = (
    "subjects",
    "max_age",
    "max_bytes",
    "discard",
    "duplicate_window",
    "max_msgs_per_subject",
    "compression",
    "num_replicas",
    "allow_direct",
    "allow_rollup_hdrs",
    "allow_atomic",
)
"""Fields that are set on an existing stream. Every other change that an operator has made by hand stays."""

NOT_FOUND = 10059
NAME_IN_USE = 10058
MESSAGE_NOT_FOUND = (10043, 10057)
"""JSNoMessageFoundErr, JSStreamMsgDeleteFailedF: the answers to the deletion of a message that is not there."""
READY_S = 30.0
"""Time in which a cluster may choose a leader for JetStream."""


def stream_config(spec: Stream | Bucket, settings: Settings) -> StreamConfig:
    """The server's configuration of a stream, or of the stream under a bucket (NATS ADR-8)."""
    if isinstance(spec, Bucket):
        return StreamConfig(
            name=spec.stream,
            subjects=[spec.subject_of(">")],
            max_age=spec.ttl_s,
            max_bytes=settings.limit_of(spec),
            max_msgs_per_subject=spec.history,
            discard=DiscardPolicy.NEW,
            compression=StoreCompression.NONE,
            duplicate_window=min(120.0, spec.ttl_s or 120.0),
            num_replicas=settings.nats_replicas,
            storage=StorageType.FILE,
            retention=RetentionPolicy.LIMITS,
            allow_rollup_hdrs=spec.erasable,
            deny_delete=True,
            allow_direct=True,
            allow_atomic=True,
        )
    events = spec.name == EVENTS.name
    return StreamConfig(
        name=spec.name,
        subjects=list(spec.subjects),
        max_age=settings.events_max_age_h * 3600 if events else spec.max_age_s,
        max_bytes=settings.limit_of(spec),
        max_msgs_per_subject=-1,
        discard=DiscardPolicy.NEW if spec.refuses_when_full else DiscardPolicy.OLD,
        # A third to a half of the disk, at the same speed (docs/adr/0028). The server compresses closed blocks alone,
        # and old messages stay as they are.
        compression=StoreCompression.S2,
        duplicate_window=spec.duplicate_window_s,
        num_replicas=settings.nats_replicas,
        storage=StorageType.FILE,
        retention=RetentionPolicy.LIMITS,
        allow_direct=True,
        allow_atomic=True,
        metadata={PARTITIONS_KEY: str(PARTITIONS)} if events else None,
    )


async def ensure(bus: Bus, spec: Stream | Bucket, settings: Settings) -> None:
    """
    Make a stream or bucket, or bring it up to date.

    Raises:
        ConflictError: `EVENTS` was made with another number of partitions, which cannot be changed.
        UnavailableError: JetStream was not ready within 30 s.
    """
    wanted = stream_config(spec, settings)
    deadline = asyncio.get_running_loop().time() + READY_S
    while True:
        try:
            return await _ensure_once(bus, wanted)
        except (APIError, NatsError, TimeoutError) as error:
            if asyncio.get_running_loop().time() > deadline:
                if isinstance(error, APIError):
                    raise api_error(error) from error
                raise UnavailableError(f"stream {wanted.name} could not be made: {type(error).__name__}") from error
            log.warning("stream_setup_failed", stream=wanted.name, message=str(error) or type(error).__name__)
            await asyncio.sleep(0.25)


async def _ensure_once(bus: Bus, wanted: StreamConfig) -> None:
    name = wanted.name
    assert name is not None
    try:
        info = await bus.js.stream_info(name)
    except APIError as error:
        if error.err_code != NOT_FOUND:
            raise
        try:
            await bus.js.add_stream(wanted)
        except APIError as clash:
            # Another service made it between the question and the creation.
            if clash.err_code != NAME_IN_USE:
                raise
            return await _ensure_once(bus, wanted)
        log.info("stream_created", stream=name)
        return
    config = info.config
    found = (config.metadata or {}).get(PARTITIONS_KEY)
    if found is not None and found != str(PARTITIONS):
        raise ConflictError(f"{name} was made with {found} partitions, this release has {PARTITIONS}")
    stale = [field for field in MANAGED if getattr(config, field) != getattr(wanted, field)]
    assert wanted.max_bytes is not None
    if "max_bytes" in stale and wanted.discard == DiscardPolicy.OLD and info.state.bytes > wanted.max_bytes:
        # The server would delete the oldest messages at once. A later start finds them too old, and sets the limit.
        stale.remove("max_bytes")
        log.warning("stream_limit_exceeded", stream=name, bytes=info.state.bytes, max_bytes=wanted.max_bytes)
    if stale:
        await bus.js.update_stream(config.evolve(**{field: getattr(wanted, field) for field in stale}))
        log.info("stream_updated", stream=name, fields=stale)


async def subjects_in(bus: Bus, bucket: Bucket, matching: str) -> set[str]:
    """
    The subjects of a bucket's stream that `matching` matches and that have a message, a deletion marker included.

    Raises:
        UnavailableError: No answer.
    """
    return set(await message_counts(bus, bucket, matching))


async def message_counts(bus: Bus, bucket: Bucket, matching: str) -> dict[str, int]:
    """The number of messages of each of the `subjects_in` a bucket's stream. Raises `UnavailableError`."""
    found: dict[str, int] = {}
    while True:
        # The server lists 100,000 at a time (nats-server, JSMaxSubjectDetails).
        body = {"subjects_filter": matching, "offset": len(found)}
        answer = await _request(bus, jetstream.stream_info(bucket.stream), body)
        more = answer["state"].get("subjects") or {}
        found.update(more)
        if not more or len(found) >= answer.get("total", 0):
            return found


async def purge(bus: Bus, stream: Stream, subject: str, *, before_sequence: int) -> int:
    """
    Delete every message of the subjects that `subject` matches, up to `before_sequence` and without it.

    Returns:
        How many there were.

    Raises:
        UnavailableError: No answer. They may or may not be deleted.
    """
    body = {"filter": subject, "seq": before_sequence}
    purged: int = (await _request(bus, jetstream.purge(stream.name), body))["purged"]
    return purged


async def delete_message(bus: Bus, stream: Stream, sequence: int) -> None:
    """
    Delete one message. One that is deleted already is no error.

    Raises:
        UnavailableError: No answer. It may or may not be deleted.
    """
    # Without `no_erase` the server writes random bytes over it first (nats-server, JSApiMsgDeleteRequest).
    await _request(
        bus, jetstream.delete_message(stream.name), {"seq": sequence, "no_erase": True}, ignored=MESSAGE_NOT_FOUND
    )


async def _request(bus: Bus, subject: str, body: dict[str, Any], *, ignored: tuple[int, ...] = ()) -> dict[str, Any]:
    try:
        message = await bus.client.request(subject, json.dumps(body).encode(), timeout=5.0)
    except (NatsError, TimeoutError, ConnectionError) as error:
        raise UnavailableError(f"{subject} was not answered: {type(error).__name__}") from error
    answer: dict[str, Any] = json.loads(message.data)
    if (refusal := answer.get("error")) and refusal.get("err_code") not in ignored:
        raise api_error(APIError(refusal["code"], refusal.get("description"), refusal.get("err_code")))
    return answer
