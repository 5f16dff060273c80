"""
The progress of an export as data: its cursor, the plan of its current file, and the claim of a process. Pure.

A plan is stored before its object is written. It holds everything that the object's key and bytes depend on. The
process that finds it after a crash writes the same object again, and distinguishes it from another writer's.
"""

from datetime import UTC, datetime, timedelta
from typing import Literal

from msgspec import Struct
from msgspec.structs import replace

from exporter.pipeline.selection import EventSelection

Trigger = Literal["schedule", "manual"]

LEASE_S = 180.0
"""The time after which an unrenewed claim ends. Longer than one attempt at an upload may take."""


class FilePlan(Struct, frozen=True, kw_only=True):
    """
    One file: the events `first_sequence`..`last_sequence` of `EVENTS` that match `selection`, under `key`.

    `revision` is that of the configuration it was made under, and `location` that configuration's destination. `sha256`
    and `size_bytes` identify the object.
    """

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


class Claim(Struct, frozen=True, kw_only=True):
    """A run in progress: the process that works on it, and the end of its lease."""

    run_id: str
    owner: str
    trigger: Trigger
    started_at: datetime
    until: datetime


class ExportFailure(Struct, frozen=True, kw_only=True):
    """The beginning of an export's failure, and the error code of its alert."""

    code: str
    since: datetime


class ExportProgress(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """
    The whole progress of an export, under one key, so that it changes in one write.

    Every event up to `cursor` (a sequence of `EVENTS`) is delivered. `slot_at` is the last slot that was run.
    `named_at` is the second in the name of the last file: no two files of an export have the same name.
    """

    cursor: int
    slot_at: datetime
    named_at: datetime = datetime(1970, 1, 1, tzinfo=UTC)
    claim: Claim | None = None
    plan: FilePlan | None = None
    failing: ExportFailure | None = None


def may_claim(progress: ExportProgress, owner: str, now: datetime) -> bool:
    """Return whether the export is unclaimed, claimed by `owner`, or its claim has expired."""
    return progress.claim is None or progress.claim.owner == owner or progress.claim.until <= now


def lease_until(now: datetime) -> datetime:
    """The end of a claim that is made or renewed now."""
    return now + timedelta(seconds=LEASE_S)


def renewed(progress: ExportProgress, now: datetime) -> ExportProgress:
    """The same progress with a renewed claim."""
    return replace(progress, claim=replace(progress.claim, until=lease_until(now))) if progress.claim else progress


def needs_renewal(progress: ExportProgress, now: datetime) -> bool:
    """Return whether half of the lease is over."""
    return progress.claim is not None and (progress.claim.until - now).total_seconds() < LEASE_S / 2


def name_at(now: datetime, named_at: datetime) -> datetime:
    """The second for the name of a file: this one, or the next that no file of this export has in its name."""
    return max(now.replace(microsecond=0), named_at + timedelta(seconds=1))
