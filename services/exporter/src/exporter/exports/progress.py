"""
The progress of an export as data: its cursor, the plan of its current window, and the claim of a process. Pure.

A plan is stored before the first object of its window is written. It holds everything that the objects' keys and bytes
depend on. The process that finds it after a crash writes the same objects again, and distinguishes them from another
writer's.
"""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Final, Literal

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from exporter.exports.failures.failure import ExportFailure
from exporter.pipeline.content import Content
from exporter.pipeline.lane import Shards
from exporter.pipeline.selection import EventSelection
from shared.contracts.messages import Alert

Trigger = Literal["schedule", "manual"]

LEASE_S: Final = 15.0
"""The time after which an unrenewed claim ends."""
RENEW_S: Final = 4.0
"""The pause between renewals of a claim."""


class FileVersion(Struct, frozen=True, kw_only=True):
    """The content of a file as it was planned before. `sha256` and `size_bytes` identify the object."""

    rows: int
    size_bytes: int
    sha256: str


class PlannedFile(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """
    One file of a window: its rows are those of `part`. `sha256` and `size_bytes` identify the object of the key.

    `before` are earlier versions, with events that have expired or were dropped since. One of them may be stored.
    """

    key: str
    part: str = ""
    rows: int
    size_bytes: int
    sha256: str
    before: tuple[FileVersion, ...] = ()

    @property
    def version(self) -> FileVersion:
        """Its content as it is planned now."""
        return FileVersion(rows=self.rows, size_bytes=self.size_bytes, sha256=self.sha256)


class WindowPlan(Struct, frozen=True, kw_only=True):
    """
    A window: the events `first_sequence`..`last_sequence` of `EVENTS`, in the form of `content`, and its files.

    `revision` is that of the configuration it was made under, and `location` that configuration's destination.
    `rows_in` counts the events of the export's kind, `rows_dropped` what is no event. Events up to `trimmed_to` were
    dropped since it was made, and are not in its files any more.
    """

    named_at: datetime
    revision: int
    location: str
    content: Content
    first_sequence: int
    last_sequence: int
    rows_in: int
    rows_dropped: int
    files: tuple[PlannedFile, ...]
    trimmed_to: int = 0

    @property
    def rows_out(self) -> int:
        """The rows of all files."""
        return sum(file.rows for file in self.files)


def with_files(plan: WindowPlan, files: Sequence[PlannedFile]) -> WindowPlan:
    """The plan with other files. Rows that they have no more are counted, unless those were when they were dropped."""
    lost = plan.rows_out - sum(file.rows for file in files)
    counted_now = 0 if plan.trimmed_to else lost
    return replace(plan, files=tuple(files), rows_in=plan.rows_in - lost, rows_dropped=plan.rows_dropped + counted_now)


class FilePlan(Struct, frozen=True, kw_only=True):
    """A window of one file, as the release before planned it. Read, and not written any more."""

    key: str
    named_at: datetime
    revision: int
    location: str
    selection: EventSelection
    first_sequence: int
    last_sequence: int
    rows_in: int
    rows_out: int
    rows_dropped: int
    size_bytes: int
    sha256: str

    def as_window(self) -> WindowPlan:
        """The same window as it is planned now."""
        file = PlannedFile(
            key=self.key,
            part=self.selection.data,
            rows=self.rows_out,
            size_bytes=self.size_bytes,
            sha256=self.sha256,
        )
        return WindowPlan(
            named_at=self.named_at,
            revision=self.revision,
            location=self.location,
            content=Content(selection=self.selection),
            first_sequence=self.first_sequence,
            last_sequence=self.last_sequence,
            rows_in=self.rows_in,
            rows_dropped=self.rows_dropped,
            files=(file,),
        )


class Claim(Struct, frozen=True, kw_only=True):
    """A run in progress: the process that works on it, and the end of its lease."""

    run_id: str
    owner: str
    trigger: Trigger
    started_at: datetime
    until: datetime


class ExportProgress(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """
    The whole progress of an export, under one key, so that it changes in one write.

    Every event up to `cursor` (a sequence of `EVENTS`) is delivered, and every one up to `dropped_until` is dropped
    where it is not delivered. `slot_at` is the last slot that was run. `named_at` is the second in the name of the last
    file: no two files of an export have the same name. `window` is the plan of the current window; `plan` is that of a
    release before. A lane with `until` delivers nothing behind that sequence: others take its place there.

    `failing` is the failure that goes on, and `recovered_at` the end of the last one. `checked_at` is the last time
    when the destination took a file or was probed. `alerts` are to be published; they are stored together with what
    they tell.
    """

    cursor: int
    slot_at: datetime
    named_at: datetime = datetime(1970, 1, 1, tzinfo=UTC)
    claim: Claim | None = None
    plan: FilePlan | None = None
    window: WindowPlan | None = None
    failing: ExportFailure | None = None
    until: int | None = None
    dropped_until: int = 0
    checked_at: datetime | None = None
    recovered_at: datetime | None = None
    alerts: tuple[Alert, ...] = ()

    @property
    def passed(self) -> int:
        """The sequence behind which the next window begins."""
        return max(self.cursor, self.dropped_until)


SeveralShards = Literal[2, 4, 8, 16]


class LaneCount(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The number of an export's lanes, where it has several: in the place of its progress."""

    shards: SeveralShards


def lane_count(data: bytes) -> Shards | None:
    """The number of lanes that an entry tells, or None for one that holds progress or cannot be read."""
    try:
        return msgspec.json.decode(data, type=LaneCount).shards
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def may_claim(progress: ExportProgress, owner: str, now: datetime) -> bool:
    """Return whether the export is unclaimed, claimed by `owner`, or its claim has expired."""
    return progress.claim is None or progress.claim.owner == owner or progress.claim.until <= now


def lease_until(now: datetime) -> datetime:
    """The end of a claim that is made or renewed now."""
    return now + timedelta(seconds=LEASE_S)


def renewed(progress: ExportProgress, now: datetime) -> ExportProgress:
    """The same progress with a renewed claim."""
    return replace(progress, claim=replace(progress.claim, until=lease_until(now))) if progress.claim else progress


def name_at(now: datetime, named_at: datetime) -> datetime:
    """The second for the name of a file: this one, or the next that no file of this export has in its name."""
    return max(now.replace(microsecond=0), named_at + timedelta(seconds=1))
