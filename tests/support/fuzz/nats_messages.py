"""
Messages by NATS: damaged ones on every subject that each user of the mesh may publish.

The subjects come from the users' grants, so a new one cannot be forgotten. What is damaged are messages that the mesh
has stored, and one of each kind that nobody has stored yet.
"""

import contextlib
import json
import random
import re
from typing import Any

from msgspec import Struct
from nats.aio.msg import Msg
from nats.errors import Error as NatsError

from shared.contracts.grants import GRANTS, PROVISION
from shared.contracts.streams import BUCKETS, STREAMS, Bucket, Stream
from shared.messaging.bus import Bus
from support.fuzz.damage import Damage
from support.fuzz.http_requests import PHOTO, event

USERS = tuple(user for user in GRANTS if user != PROVISION)
"""`provision` is as mighty as the account, and no process that takes anything has its key."""
REPLY_S = 40.0
MAX_BYTES = 900_000

AT = "2026-01-01T00:00:00Z"
BATCH: dict[str, Any] = {"app_key": "mess", "file_id": "f1", "file_name": "a.txt", "first_line": 2, "last_line": 3}
PROBE: dict[str, Any] = {"app_key": "mess", "config": {"region": "eu-west-1", "endpoint_url": "http://127.0.0.1:9"}}
SAMPLES: dict[str, Any] = {
    "events": [event(app_key="mess"), event(app_key="mess", id="e2")],
    "push": BATCH | {"rows": [{"id": "f1:2", "line": 2, "ext_id": "1", "text": "Hi", "deeplink": "https://a.example"}]},
    "profile": BATCH | {"rows": [{"id": "f1:2", "line": 2, "ext_id": "1", "email": "a@b.c", "attributes": {"age": 4}}]},
    "ftp": {
        "app_key": "mess",
        "file_id": "f1",
        "file_name": "a",
        "kind": "push",
        "state": "failed",
        "at": AT,
        "rows": 2,
    },
    "storage.media.store": {"app_key": "mess", "kind": "file", "file_name": "a.txt", "content": "aGVsbG8="},
    "storage.media.resolve": {"app_key": "mess", "id": "file-0123456789abcdef0123456789abcdef"},
    "storage.connector.test": PROBE | {"kind": "amazon-storage"},
    "hooks.connector.test": PROBE | {"kind": "kinesis", "stream_name": "orders", "test_record": True},
    "exporter.connector.test": PROBE | {"id": "clicks"},
    "alerts": {"service": "hooks", "app_key": "mess", "kind": "x", "subject": "s", "message": "m", "at": AT},
    "dlq": {"service": "hooks", "app_key": "mess", "owner_id": "h1", "reason": "r", "message": "m", "at": AT}
    | {"source": "EVENTS:1:0", "attempts": 2, "key": "u", "body": "{}"},
}
"""One message of each kind, by the beginning of its subject."""
TOKENS = (
    *("mess",) * 12,
    "*",
    ">",
    "-",
    "_",
    "x" * 64,
    "x" * 65,
    "ü",
    "file-0123",
    "h1",
    "clicks",
    "f1",
    "00",
    "3",
    "16",
    "a=b",
)
HEADERS: tuple[dict[str, str], ...] = (
    {},
    {},
    {},
    {"Nats-Msg-Id": "same"},
    {"Nats-Msg-Id": ""},
    {"KV-Operation": "DEL"},
    {"KV-Operation": "PURGE"},
    {"KV-Operation": "x"},
    {"Nats-Rollup": "sub"},
    {"Nats-TTL": "1s"},
    {"Nats-Expected-Last-Sequence": "x"},
    {"Nats-Expected-Last-Subject-Sequence": "0"},
    {"Nats-Service-Error-Code": "500"},
    {"X": "ü" * 100},
)


class PublishOutcome(Struct, frozen=True):
    """The outcome of one message: the acknowledgement, the reply or the error, or that nobody answered."""

    user: str
    subject: str
    data: bytes
    outcome: str
    reply: bytes = b""


def stores(subject: str) -> Stream | Bucket | None:
    """The stream or bucket that keeps messages of this subject, or of this filter."""
    if subject.startswith("$KV."):
        return next((bucket for bucket in BUCKETS if subject.startswith(bucket.prefix)), None)
    first = subject.partition(".")[0]
    return next((stream for stream in STREAMS if any(one.split(".")[0] == first for one in stream.subjects)), None)


def stream_named(name: str) -> Stream | Bucket:
    """The stream of this name, or the bucket over it."""
    streams = {stream.name: stream for stream in STREAMS}
    return streams.get(name) or next(bucket for bucket in BUCKETS if bucket.stream == name)


def filters_of(user: str) -> list[str]:
    """The subjects that a user publishes on or requests, as filters; without JetStream's own."""
    grant = GRANTS[user]
    return [subject for subject in (*grant.writes, *grant.requests) if not subject.startswith("$JS")]


def lets_through(pattern: str, subject: str) -> bool:
    """Whether a filter of subjects matches a subject."""
    expression = re.escape(pattern).replace(r"\*", "[^.]+").replace(">", ".+")
    return re.fullmatch(expression, subject) is not None


def subject_in(pattern: str, at_random: random.Random) -> str:
    """A subject that the filter lets through."""
    tokens: list[str] = []
    for token in pattern.split("."):
        if token == ">":
            tokens += [at_random.choice(TOKENS) for _ in range(at_random.choice((1, 1, 2, 3, 3, 4)))]
        else:
            tokens.append(at_random.choice(TOKENS) if token == "*" else token)
    return ".".join(tokens)


def payload(subject: str, stored: list[bytes], at_random: random.Random) -> bytes:
    """A damaged message: mostly one that fits the subject, or one that was stored."""
    damage = Damage(at_random)
    draw = at_random.random()
    if draw < 0.05:
        return at_random.choice((b"", b"\0", b"null", b"[]", b"{}", b"\xff" * 300, b"[" * 10_000, PHOTO))
    fitting = [json.dumps(sample).encode() for start, sample in SAMPLES.items() if subject.startswith(start)]
    known = fitting if fitting and draw < 0.75 else stored or fitting
    sample = at_random.choice(known) if known else b"{}"
    if at_random.random() < 0.3:
        return damage.of_bytes(sample)[:MAX_BYTES]
    try:
        value = json.loads(sample)
    except (ValueError, RecursionError):
        return damage.of_bytes(sample)[:MAX_BYTES]
    return damage.document(value)[:MAX_BYTES]


async def publish(bus: Bus, user: str, subject: str, data: bytes, headers: dict[str, str]) -> PublishOutcome:
    """Publish, and wait for the acknowledgement or the reply."""
    try:
        told: Msg = await bus.client.request(subject, data, timeout=REPLY_S, headers=headers or None)
    except NatsError as error:
        return PublishOutcome(user, subject, data, type(error).__name__)
    except TimeoutError:
        return PublishOutcome(user, subject, data, "TimeoutError")
    if code := (told.headers or {}).get("Nats-Service-Error-Code"):
        return PublishOutcome(user, subject, data, code, told.data)
    answer: Any = {}
    with contextlib.suppress(ValueError):
        answer = json.loads(told.data)
    refused = isinstance(answer, dict) and "error" in answer
    return PublishOutcome(
        user, subject, data, "refused" if refused else "stored" if stores(subject) else "answered", told.data
    )


class MixedEvents(Struct, frozen=True):
    """A message of `EVENTS` with damaged items, and the ids of the good ones between them."""

    subject: str
    data: bytes
    good: tuple[str, ...]


def event_message(app: str, partition: int, user_id: str, number: int, at_random: random.Random) -> MixedEvents:
    """
    Good events with bad ones beside them, in one array.

    Args:
        user_id: A user of the partition.
    """
    damage = Damage(at_random)
    items: list[bytes] = []
    good: list[str] = []
    for place in range(at_random.randint(1, 5)):
        id = f"n{number}-{place}"
        kept = event(id=id, app_key=app, user_id=user_id, code="good")
        del kept["ext_id"]
        if at_random.random() < 0.5:
            items.append(json.dumps(kept).encode())
            good.append(id)
        else:
            # Balanced, so that the end of the item is known to any reader.
            items.append(json.dumps(_balanced(damage.of_value(kept | {"id": f"bad-{id}", "code": "bad"}))).encode())
    return MixedEvents(f"events.{app}.{partition}", b"[" + b",".join(items) + b"]", tuple(good))


def _balanced(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _balanced(held) for name, held in value.items()}
    if isinstance(value, list):
        return [_balanced(held) for held in value]
    return value if isinstance(value, str | int | float | bool | None) else float("nan")
