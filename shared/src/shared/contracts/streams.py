"""
Streams and key-value buckets of the mesh, as the services make them: names, subjects and how long they keep what.

`shared.messaging.streams` makes them. The settings override the age and size of `EVENTS`. Bulk bytes are in none.
"""

from typing import Literal

from msgspec import Struct

DAY_S = 24 * 3600.0

StorageClass = Literal["file", "memory"]


class Stream(Struct, frozen=True, kw_only=True):
    """
    A stream.

    `duplicate_window_s` bounds the server's memory for `Nats-Msg-Id`; what must hold for longer is read back from the
    stream itself. `refuses_when_full` is JetStream's *discard new*: publishing fails, and no old message is dropped.
    """

    name: str
    subjects: tuple[str, ...]
    max_age_s: float
    duplicate_window_s: float = 120.0
    refuses_when_full: bool = False


class Bucket(Struct, frozen=True, kw_only=True):
    """A key-value bucket. With `ttl_s` 0 it keeps entries for ever."""

    name: str
    history: int = 1
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
"""Backlogs of hooks: from where a target that was blocked catches up. One entry per partition and target."""
DEFENDER = Bucket(name="DEFENDER", ttl_s=3 * DAY_S)
"""Scores of addresses that try passwords. Kept for longer than a ban and the quiet time after it."""
SUMMARIES = Bucket(name="SUMMARIES", ttl_s=30 * DAY_S)
"""Day of the last summary of files that each app was sent; the key is the app's."""
REMOTES = Bucket(name="REMOTES")
"""Files pulled from customers' own servers, and the progress of the pulls."""

STREAMS = (EVENTS, PUSH, PROFILE_UPDATES, FILES, OBJECTS, DLQ, ALERTS)
BUCKETS = (CONFIG, MEDIA, PROFILES, RUNS, PLANS, LEASES, HOOKS, DEFENDER, SUMMARIES, REMOTES)
