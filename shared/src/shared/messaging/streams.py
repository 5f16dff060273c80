"""
Streams and buckets on the server: their configuration, as `shared.contracts.streams` says, the subjects that have
messages, and deletion of messages before their time. `shared.messaging.provisioning` makes them.
"""

import json
from typing import Any

from nats.errors import Error as NatsError
from nats.js.api import DiscardPolicy, RetentionPolicy, StorageType, StoreCompression, StreamConfig
from nats.js.errors import APIError

from shared.contracts import jetstream
from shared.contracts.streams import EVENTS, Bucket, Stream
from shared.contracts.subjects import PARTITIONS
from shared.errors import UnavailableError
from shared.messaging.bus import Bus
from shared.messaging.nats_py.errors import api_error
from shared.runtime.settings import Settings

PARTITIONS_KEY = "millrace-partitions"
MESSAGE_NOT_FOUND = (10043, 10057)
"""JSNoMessageFoundErr, JSStreamMsgDeleteFailedF: the answers to the deletion of a message that is not there."""


def stream_config(spec: Stream | Bucket, settings: Settings) -> StreamConfig:
    """The server's configuration of a stream, or of the stream under a bucket (NATS ADR-8)."""
    if isinstance(spec, Bucket):
        return StreamConfig(
            name=spec.stream,
            subjects=[spec.subject_of(">")],
            max_age=spec.ttl_s,
            max_bytes=settings.limit_of(spec),
            # One revision of a key: what is replaced or deleted is gone, secrets above all (docs/adr/0029).
            max_msgs_per_subject=1,
            discard=DiscardPolicy.NEW,
            compression=StoreCompression.NONE,
            duplicate_window=min(120.0, spec.ttl_s or 120.0),
            num_replicas=settings.nats_replicas,
            storage=StorageType.FILE,
            retention=RetentionPolicy.LIMITS,
            deny_delete=True,
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
        # A third to a half of the disk; chunks are published 10 to 16 % slower (docs/adr/0028). The server compresses
        # closed blocks alone, and old messages stay as they are.
        compression=StoreCompression.S2,
        duplicate_window=spec.duplicate_window_s,
        num_replicas=settings.nats_replicas,
        storage=StorageType.FILE,
        retention=RetentionPolicy.LIMITS,
        allow_atomic=True,
        metadata={PARTITIONS_KEY: str(PARTITIONS)} if events else None,
    )


async def subjects_in(bus: Bus, stream: Stream | Bucket, matching: str) -> dict[str, int]:
    """
    The subjects of a stream, or of a bucket's, that `matching` matches and that have a message, or a deletion marker,
    with the number of each.

    Raises:
        UnavailableError: No answer.
    """
    name = stream.stream if isinstance(stream, Bucket) else stream.name
    found: dict[str, int] = {}
    while True:
        # The server lists 100,000 at a time (nats-server, JSMaxSubjectDetails).
        body = {"subjects_filter": matching, "offset": len(found)}
        answer = await _request(bus, jetstream.stream_info(name), body)
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
