"""
Every subject, stream, bucket and durable consumer of the mesh, and who may use which.

No other file spells a subject. The permission table at the foot is what `millrace nats-config` prints: a service is
let to do what stands there and nothing else.
"""

import base64
import hashlib
import re
import zlib
from collections.abc import Sequence
from typing import Literal

from msgspec import Struct

from shared.errors import InvalidError

PARTITIONS = 16
"""Partitions of `EVENTS`. Fixed for a stream's life, because another number moves users and breaks their order."""

APP_KEY = re.compile(r"[A-Za-z0-9_-]{1,64}")
NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")

DAY_S = 24 * 3600.0

StorageClass = Literal["file", "memory"]


class Stream(Struct, frozen=True, kw_only=True):
    """
    A stream as the services make it.

    `duplicate_window_s` bounds the server's memory for `Nats-Msg-Id`; what must hold for longer is read back from the
    stream itself. `refuses_when_full` is JetStream's *discard new*: publishing fails instead of throwing old data away.
    """

    name: str
    subjects: tuple[str, ...]
    max_age_s: float
    duplicate_window_s: float = 120.0
    refuses_when_full: bool = False


class Bucket(Struct, frozen=True, kw_only=True):
    """A key-value bucket. `ttl_s` 0 keeps entries for ever."""

    name: str
    history: int = 1
    ttl_s: float = 0.0

    @property
    def stream(self) -> str:
        """The stream under the bucket (NATS ADR-8)."""
        return f"KV_{self.name}"


EVENTS = Stream(name="EVENTS", subjects=("events.*.*",), max_age_s=3 * DAY_S, refuses_when_full=True)
PUSH = Stream(name="PUSH", subjects=("push.send.*.*",), max_age_s=7 * DAY_S, duplicate_window_s=1800.0)
PROFILE_UPDATES = Stream(
    name="PROFILE_UPDATES", subjects=("profile.update.*.*",), max_age_s=7 * DAY_S, duplicate_window_s=1800.0
)
FILES = Stream(name="FILES", subjects=("ftp.file.*.*",), max_age_s=30 * DAY_S)
OBJECTS = Stream(name="OBJECTS", subjects=("storage.object.*.stored",), max_age_s=7 * DAY_S)
DLQ = Stream(name="DLQ", subjects=("dlq.*.*.*.*",), max_age_s=14 * DAY_S)
ALERTS = Stream(name="ALERTS", subjects=("alerts.*.*.*",), max_age_s=30 * DAY_S)

CONFIG = Bucket(name="CONFIG", history=10)
MEDIA = Bucket(name="MEDIA")
PROFILES = Bucket(name="PROFILES")
RUNS = Bucket(name="RUNS", ttl_s=90 * DAY_S)
PLANS = Bucket(name="PLANS")
LEASES = Bucket(name="LEASES", ttl_s=60.0)
HOOKS = Bucket(name="HOOKS")
"""Where hooks whose target was blocked catch up from, one entry per partition and target."""
DEFENDER = Bucket(name="DEFENDER", ttl_s=3 * DAY_S)
"""What is held against addresses that try passwords. Longer than a ban and the quiet time after it."""
SUMMARIES = Bucket(name="SUMMARIES", ttl_s=30 * DAY_S)
"""Until which day each app was sent its daily summary of files; the key is the app's."""
REMOTES = Bucket(name="REMOTES")
"""Which files of customers' own servers are ours, and how the pulls go."""

STORE_MEDIA = "storage.media.store"
RESOLVE_MEDIA = "storage.media.resolve"

FileState = Literal["received", "partial", "completed", "failed", "duplicate"]


def check_app_key(app_key: str) -> str:
    """Give the key back, or raise `InvalidError` (`app_key`)."""
    if not APP_KEY.fullmatch(app_key):
        raise InvalidError("expected 1 to 64 letters, digits, '_' or '-'", field="app_key")
    return app_key


def check_name(name: str, field: str) -> str:
    """Give an identifier that becomes one token of a key or subject, or raise `InvalidError` for `field`."""
    if not NAME.fullmatch(name):
        raise InvalidError("expected 1 to 64 letters, digits, '_' or '-'", field=field)
    return name


def partition_of(user_id: str) -> int:
    """The partition of a user: CRC-32 of the UTF-8 bytes, modulo `PARTITIONS`."""
    return zlib.crc32(user_id.encode()) % PARTITIONS


def events(app_key: str, partition: int) -> str:
    """Where one partition's events of one app go."""
    return f"events.{app_key}.{partition}"


def events_of_app(app_key: str) -> str:
    """All partitions of one app: a filter."""
    return f"events.{app_key}.*"


def events_of_partition(partition: int) -> str:
    """One partition over all apps: a filter."""
    return f"events.*.{partition}"


def push_send(app_key: str, file_id: str) -> str:
    """Push commands of one file."""
    return f"push.send.{app_key}.{file_id}"


def profile_update(app_key: str, file_id: str) -> str:
    """Profile updates of one file."""
    return f"profile.update.{app_key}.{file_id}"


def ftp_file(app_key: str, state: FileState) -> str:
    """The life of an uploaded file."""
    return f"ftp.file.{app_key}.{state}"


def object_stored(app_key: str) -> str:
    """A stored object."""
    return f"storage.object.{app_key}.stored"


def dead_letter(service: str, app_key: str, owner_id: str, reason: str) -> str:
    """A record that cannot be delivered; `owner_id` is the hook, file or export it belongs to."""
    return f"dlq.{service}.{app_key}.{owner_id}.{reason}"


def alert(service: str, app_key: str, kind: str) -> str:
    """Something an operator has to know; `app_key` is `-` where no tenant is concerned."""
    return f"alerts.{service}.{app_key}.{kind}"


def connector_test(service: str) -> str:
    """Test Connection as a request."""
    return f"{service}.connector.test"


def hooks_consumer(partition: int) -> str:
    """The durable consumer that reads one partition for the hooks service."""
    return f"hooks-p{partition:02d}"


def hooks_lease(partition: int) -> str:
    """The key of the lease on one partition, in `LEASES`."""
    return f"hooks.partition.{partition:02d}"


def hooks_member(name: str) -> str:
    """The key by which a replica of hooks says that it is there, in `LEASES`."""
    return f"hooks.member.{name}"


def backlog_key(app_key: str, partition: int, stream_name: str, number: int) -> str:
    """The key in `HOOKS` of what a target has to catch up; `number` tells apart those that one target has at a time."""
    name = hashlib.sha256(stream_name.encode()).hexdigest()[:32]
    return f"{app_key}.{partition}.{name}.{number}"


def backlogs_of_partition(partition: int) -> str:
    """All keys in `HOOKS` of one partition: a filter."""
    return f"*.{partition}.*.*"


def defender_key(network: str) -> str:
    """The key in `DEFENDER` of an address; a key may hold no colon."""
    return network.replace(":", "_")


def defended_network(key: str) -> str:
    """The address of a key in `DEFENDER`."""
    return key.replace("_", ":")


PROFILES_CONSUMER = "ftp-gateway-profiles"
PUSH_ENGINE_CONSUMER = "push-engine"


def profile_key(app_key: str, ext_id: str) -> str:
    """The key of a profile. The external id is Base32, because a key allows few characters and keeps no case rule."""
    return f"{app_key}.{base64.b32encode(ext_id.encode()).decode().rstrip('=')}"


_BASE32 = bytes.maketrans(bytes(range(32)), b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567")
_BASE32_STEPS = ((8, 20, 12), (4, 10, 6), (2, 5, 3))
"""
Forty bits in eight bytes move apart by halves until each five have a byte: the bytes of what is split, the bits of a
half, and how far the upper one moves.
"""


def profile_keys(app_key: str, ext_ids: Sequence[str]) -> list[str]:
    """
    The keys of many profiles. All are encoded as one number, because one after the other in the standard library took
    two fifths of the time in which profiles are merged.
    """
    encoded = [ext_id.encode() for ext_id in ext_ids]
    data = b"".join([part.ljust(-(-len(part) // 5) * 5, b"\0") for part in encoded])
    lanes = bytearray(len(data) // 5 * 8)
    for at in range(5):
        lanes[3 + at :: 8] = data[at::5]
    bits = int.from_bytes(lanes, "big")
    for width, size, distance in _BASE32_STEPS:
        low = int.from_bytes(((1 << size) - 1).to_bytes(width, "big") * (len(lanes) // width), "big")
        bits = bits & low | (bits & low << size) << distance
    digits = bits.to_bytes(len(lanes), "big").translate(_BASE32).decode()
    keys: list[str] = []
    at = 0
    for part in encoded:
        keys.append(f"{app_key}.{digits[at : at + -(-len(part) * 8 // 5)]}")
        at += -(-len(part) // 5) * 8
    return keys


class Grant(Struct, frozen=True, kw_only=True):
    """
    What one user of NATS needs. Expanded to subjects by `permissions`.

    `makes` are the streams and buckets that it creates and updates at start, `reads` are pairs of stream and durable,
    `scans` pairs of stream and filter for short-lived consumers and direct gets. `writes`, `asks` and `answers` are
    subjects that it publishes on, requests and serves. From a stream of `purges` it may take messages out: NATS has no
    narrower right than one for the whole stream, so whoever has it is the one to mind whose messages they are.
    """

    makes: tuple[Stream | Bucket, ...] = ()
    reads: tuple[tuple[Stream, str], ...] = ()
    scans: tuple[tuple[str, str], ...] = ()
    writes: tuple[str, ...] = ()
    asks: tuple[str, ...] = ()
    answers: tuple[str, ...] = ()
    purges: tuple[Stream, ...] = ()


def _config(*kinds: str) -> tuple[tuple[str, str], ...]:
    return tuple((CONFIG.stream, f"$KV.CONFIG.{kind}") for kind in (*kinds, "tokens.*"))


GRANTS: dict[str, Grant] = {
    "storage": Grant(
        makes=(OBJECTS, ALERTS, CONFIG, MEDIA),
        scans=(
            *_config("connectors.*.amazon-storage", "connectors.*.azure-storage"),
            (MEDIA.stream, "$KV.MEDIA.>"),
        ),
        writes=(
            object_stored("*"),
            alert("storage", "*", "*"),
            "$KV.CONFIG.connectors.*.amazon-storage",
            "$KV.CONFIG.connectors.*.azure-storage",
            "$KV.MEDIA.>",
        ),
        answers=(STORE_MEDIA, RESOLVE_MEDIA, connector_test("storage")),
    ),
    "hooks": Grant(
        makes=(EVENTS, DLQ, ALERTS, CONFIG, PROFILES, LEASES, HOOKS),
        reads=tuple((EVENTS, hooks_consumer(partition)) for partition in range(PARTITIONS)),
        scans=(
            *_config("connectors.*.kinesis", "hooks.*.*"),
            (PROFILES.stream, "$KV.PROFILES.>"),
            (EVENTS.name, EVENTS.subjects[0]),
            (DLQ.name, dead_letter("hooks", "*", "*", "*")),
            (LEASES.stream, "$KV.LEASES.hooks.>"),
            (HOOKS.stream, "$KV.HOOKS.>"),
        ),
        writes=(
            EVENTS.subjects[0],
            dead_letter("hooks", "*", "*", "*"),
            alert("hooks", "*", "*"),
            "$KV.CONFIG.connectors.*.kinesis",
            "$KV.CONFIG.hooks.*.*",
            "$KV.LEASES.hooks.>",
            "$KV.HOOKS.>",
        ),
        answers=(connector_test("hooks"),),
        purges=(DLQ,),
    ),
    "ftp-gateway": Grant(
        makes=(PUSH, PROFILE_UPDATES, FILES, DLQ, ALERTS, CONFIG, PROFILES, DEFENDER, SUMMARIES, REMOTES),
        reads=((PROFILE_UPDATES, PROFILES_CONSUMER),),
        scans=(
            *_config("apps.*", "ftp_users.*.*", "host_keys.*", "remotes.*.*"),
            (PUSH.name, push_send("*", "*")),
            (PROFILE_UPDATES.name, profile_update("*", "*")),
            (FILES.name, "ftp.file.*.*"),
            (PROFILES.stream, "$KV.PROFILES.>"),
            (DEFENDER.stream, "$KV.DEFENDER.>"),
            (SUMMARIES.stream, "$KV.SUMMARIES.*"),
            (REMOTES.stream, "$KV.REMOTES.>"),
        ),
        writes=(
            push_send("*", "*"),
            profile_update("*", "*"),
            "ftp.file.*.*",
            dead_letter("ftp-gateway", "*", "*", "*"),
            alert("ftp-gateway", "*", "*"),
            "$KV.CONFIG.apps.*",
            "$KV.CONFIG.ftp_users.*.*",
            "$KV.CONFIG.host_keys.*",
            "$KV.CONFIG.remotes.*.*",
            "$KV.PROFILES.>",
            "$KV.DEFENDER.>",
            "$KV.SUMMARIES.*",
            "$KV.REMOTES.>",
        ),
        asks=(f"$JS.API.DIRECT.GET.{PROFILES.stream}",),
    ),
    "exporter": Grant(
        makes=(EVENTS, ALERTS, CONFIG, RUNS, PLANS),
        scans=(
            *_config("exports.*.*"),
            (EVENTS.name, EVENTS.subjects[0]),
            (RUNS.stream, "$KV.RUNS.>"),
            (PLANS.stream, "$KV.PLANS.>"),
        ),
        writes=(
            alert("exporter", "*", "*"),
            "$KV.CONFIG.exports.*.*",
            "$KV.RUNS.>",
            "$KV.PLANS.>",
        ),
        answers=(connector_test("exporter"),),
    ),
    "operator": Grant(
        makes=(CONFIG,),
        scans=((CONFIG.stream, "$KV.CONFIG.>"),),
        writes=("$KV.CONFIG.>",),
        asks=("$SRV.PING", "$SRV.INFO", "$SRV.STATS", *map(connector_test, ("storage", "hooks", "exporter"))),
    ),
    "publisher": Grant(makes=(EVENTS,), writes=(EVENTS.subjects[0],), asks=(STORE_MEDIA, RESOLVE_MEDIA)),
    "push-engine": Grant(
        makes=(EVENTS, PUSH),
        reads=((PUSH, PUSH_ENGINE_CONSUMER),),
        writes=(EVENTS.subjects[0],),
    ),
}
"""
Every user of the mesh's NATS account. `operator` is the command line, `publisher` a program of the platform that puts
events and media in, `push-engine` the platform's sender of pushes. None of the three is a service of ours.
"""


class Permissions(Struct, frozen=True, kw_only=True):
    """Subjects a user may publish and subscribe. Replies to a received request are always allowed, once."""

    publish: tuple[str, ...]
    subscribe: tuple[str, ...]


def inbox_prefix(user: str) -> str:
    """Each user has inboxes of its own, so that nobody can listen to another's replies."""
    return f"_INBOX_{user}"


def permissions(user: str) -> Permissions:
    """What a user may do, from its grant (JetStream API subjects: NATS ADR-1, ADR-31)."""
    grant = GRANTS[user]
    publish: list[str] = [*grant.writes, *grant.asks]
    for made in grant.makes:
        name = made.stream if isinstance(made, Bucket) else made.name
        publish += [f"$JS.API.STREAM.{verb}.{name}" for verb in ("INFO", "CREATE", "UPDATE")]
    for stream, durable in grant.reads:
        publish += [
            f"$JS.API.CONSUMER.CREATE.{stream.name}.{durable}.>",
            f"$JS.API.CONSUMER.INFO.{stream.name}.{durable}",
            f"$JS.API.CONSUMER.MSG.NEXT.{stream.name}.{durable}",
            f"$JS.API.CONSUMER.RESET.{stream.name}.{durable}",
            f"$JS.ACK.{stream.name}.{durable}.>",
        ]
    for name, subject in grant.scans:
        publish += [f"$JS.API.CONSUMER.CREATE.{name}.*.{subject}", f"$JS.API.DIRECT.GET.{name}.{subject}"]
    for name in sorted({name for name, _ in grant.scans}):
        publish += [f"$JS.API.CONSUMER.{verb}.{name}.*" for verb in ("INFO", "DELETE", "MSG.NEXT")]
        if grant.answers:
            # Nobody acks what he scans. But the server remembers for a minute each subject at which a user who answers
            # requests might answer and has no other right to; every message of a scan names one. That took a fifth of
            # its time while 300,000 profiles changed, and hooks was told of each.
            publish.append(f"$JS.ACK.{name}.*.>")
    for purged in grant.purges:
        publish += [f"$JS.API.STREAM.{verb}.{purged.name}" for verb in ("PURGE", "MSG.DELETE")]
    subscribe = [f"{inbox_prefix(user)}.>", *grant.answers]
    if grant.answers:
        subscribe += ["$SRV.>"]
    return Permissions(publish=tuple(dict.fromkeys(publish)), subscribe=tuple(subscribe))
