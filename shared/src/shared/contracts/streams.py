"""
Streams and key-value buckets of the mesh: names, subjects, how much they keep and for how long.

`shared.messaging.provisioning` makes them. The settings override the age of `EVENTS` and all sizes. Bulk bytes are in
none.
"""

from typing import Literal

from msgspec import Struct

from shared.contracts.subjects import PARTITIONS, events_of_partition

DAY_S = 24 * 3600.0
MIB = 1 << 20

StorageClass = Literal["file", "memory"]


class Stream(Struct, frozen=True, kw_only=True):
    """
    A stream.

    `max_bytes` bounds the messages before compression. JetStream reserves as much of the disk that it may use.
    `duplicate_window_s` bounds the server's memory for `Nats-Msg-Id`; what must hold for longer is read back from the
    stream itself. `refuses_when_full` is JetStream's *discard new*: publishing fails, and no old message is dropped.
    """

    name: str
    owner: str
    """The service that alerts when it is nearly full."""
    subjects: tuple[str, ...]
    max_age_s: float
    max_bytes: int
    duplicate_window_s: float = 120.0
    refuses_when_full: bool = False


class Bucket(Struct, frozen=True, kw_only=True):
    """
    A key-value bucket. With `ttl_s` 0 it keeps entries for ever.

    `max_bytes` is that of a stream. A full bucket refuses new keys, and goes on with those that it has.
    """

    name: str
    owner: str
    """As that of a stream."""
    max_bytes: int
    ttl_s: float = 0.0

    @property
    def stream(self) -> str:
        """The stream under the bucket (NATS ADR-8)."""
        return f"KV_{self.name}"

    @property
    def prefix(self) -> str:
        """The beginning of every subject of the bucket (NATS ADR-8)."""
        return f"$KV.{self.name}."

    def subject_of(self, key: str) -> str:
        """The subject of a key, or of a filter over keys."""
        return f"$KV.{self.name}.{key}"

    def key_of(self, subject: str) -> str:
        """The key of a subject."""
        return subject.removeprefix(f"$KV.{self.name}.")


EVENTS = Stream(
    name="EVENTS",
    owner="hooks",
    # Not `events.*.*`: an event in a partition that nobody reads would be acknowledged and never delivered.
    subjects=tuple(events_of_partition(partition) for partition in range(PARTITIONS)),
    max_age_s=3 * DAY_S,
    max_bytes=8192 * MIB,
    refuses_when_full=True,
)
PUSH = Stream(
    name="PUSH",
    owner="ftp-gateway",
    subjects=("push.send.*.*",),
    max_age_s=7 * DAY_S,
    max_bytes=512 * MIB,
    duplicate_window_s=1800.0,
    refuses_when_full=True,
)
PROFILE_UPDATES = Stream(
    name="PROFILE_UPDATES",
    owner="ftp-gateway",
    subjects=("profile.update.*.*",),
    max_age_s=7 * DAY_S,
    max_bytes=512 * MIB,
    duplicate_window_s=1800.0,
    refuses_when_full=True,
)
"""The rows of files. Refused, the file waits in the spool; dropped, rows would be lost that were accepted."""
FILES = Stream(name="FILES", owner="ftp-gateway", subjects=("ftp.file.*.*",), max_age_s=30 * DAY_S, max_bytes=128 * MIB)
OBJECTS = Stream(
    name="OBJECTS", owner="storage", subjects=("storage.object.*.stored",), max_age_s=7 * DAY_S, max_bytes=128 * MIB
)
DLQ = Stream(name="DLQ", owner="hooks", subjects=("dlq.*.*.*.*",), max_age_s=14 * DAY_S, max_bytes=512 * MIB)
ALERTS = Stream(
    name="ALERTS",
    owner="hooks",
    subjects=("alerts.*.*.*",),
    max_age_s=30 * DAY_S,
    max_bytes=32 * MIB,
    duplicate_window_s=600.0,
)
"""
Notices, and records that were put aside. These four drop the oldest when they are full: refusing would hold up the work
that they report on, for every app, because of one app's letters or files. What they drop is counted and alerted.
"""

CONFIG = Bucket(name="CONFIG", owner="hooks", max_bytes=128 * MIB)
MEDIA = Bucket(name="MEDIA", owner="storage", max_bytes=512 * MIB)
PROFILES = Bucket(name="PROFILES", owner="ftp-gateway", max_bytes=1024 * MIB)
RUNS = Bucket(name="RUNS", owner="exporter", max_bytes=128 * MIB, ttl_s=90 * DAY_S)
PLANS = Bucket(name="PLANS", owner="exporter", max_bytes=64 * MIB)
LAKE = Bucket(name="LAKE", owner="exporter", max_bytes=64 * MIB)
"""The files of the lake: one entry for each app, type and day."""
CLAIMS = Bucket(name="CLAIMS", owner="exporter", max_bytes=64 * MIB)
"""The folders that exports have claimed: one entry for each bucket of a customer."""
LEASES = Bucket(name="LEASES", owner="hooks", max_bytes=16 * MIB, ttl_s=60.0)
HOOKS = Bucket(name="HOOKS", owner="hooks", max_bytes=64 * MIB)
"""Backlogs of hooks: from where a target that was blocked catches up. One entry per partition and target."""
DEFENDER = Bucket(name="DEFENDER", owner="ftp-gateway", max_bytes=32 * MIB, ttl_s=3 * DAY_S)
"""Scores of addresses that try passwords. Kept for longer than a ban and the quiet time after it."""
SUMMARIES = Bucket(name="SUMMARIES", owner="ftp-gateway", max_bytes=16 * MIB, ttl_s=30 * DAY_S)
"""Day of the last summary of files that each app was sent; the key is the app's."""
REMOTES = Bucket(name="REMOTES", owner="ftp-gateway", max_bytes=128 * MIB)
"""Files pulled from customers' own servers, and the progress of the pulls."""

STREAMS = (EVENTS, PUSH, PROFILE_UPDATES, FILES, OBJECTS, DLQ, ALERTS)
BUCKETS = (CONFIG, MEDIA, PROFILES, RUNS, PLANS, LAKE, CLAIMS, LEASES, HOOKS, DEFENDER, SUMMARIES, REMOTES)
READ_IN_PARTS = (ALERTS, CONFIG)
"""
Several users read a part of each of these. The right to read a single message is for a whole stream, so nobody has it
here: single messages are read by a consumer, whose right names a filter (`shared.contracts.permissions`).
"""
