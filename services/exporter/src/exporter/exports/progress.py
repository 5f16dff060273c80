"""
What an export has done and is about to do, as data: its cursor, the plan of its file in hand, who works on it. Pure.

A plan is stored before its object is written. It holds all that the object's key and bytes depend on, so that whoever
finds it after a crash writes the same object again, and tells its own object from a stranger's.
"""

from datetime import UTC, datetime, timedelta
from typing import Literal

from msgspec import Struct
from msgspec.structs import replace

from exporter.pipeline.selection import EventSelection

Trigger = Literal["schedule", "manual"]

LEASE_S = 180.0
"""How long a run that says nothing keeps its export. Longer than one attempt at an upload may take."""


class FilePlan(Struct, frozen=True, kw_only=True):
    """
    One file: the events `first_sequence`..`last_sequence` of `EVENTS` that `selection` takes, under `key`.

    `revision` is the configuration it was made under and `location` where that pointed. `sha256` and `size_bytes` are
    the object's, by which it is known again.
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
    """A run in progress, and which process has it until when."""

    run_id: str
    owner: str
    trigger: Trigger
    started_at: datetime
    until: datetime


class Failing(Struct, frozen=True, kw_only=True):
    """Since when an export fails, and with which code the operator was told."""

    code: str
    since: datetime


class ExportProgress(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """
    Everything that is known of an export's progress, under one key, so that it changes in one write.

    Every event up to `cursor` (a sequence of `EVENTS`) is delivered. `slot_at` is the last slot that was run, and
    `named_at` the second after which the last file was named: no two files of an export have one name.
    """

    cursor: int
    slot_at: datetime
    named_at: datetime = datetime(1970, 1, 1, tzinfo=UTC)
    claim: Claim | None = None
    plan: FilePlan | None = None
    failing: Failing | None = None


def may_claim(progress: ExportProgress, owner: str, now: datetime) -> bool:
    """Nobody has it, or we do, or whoever had it has not been heard of for the time of a lease."""
    return progress.claim is None or progress.claim.owner == owner or progress.claim.until <= now


def lease_until(now: datetime) -> datetime:
    """When a claim made or renewed now ends."""
    return now + timedelta(seconds=LEASE_S)


def renewed(progress: ExportProgress, now: datetime) -> ExportProgress:
    """The same progress, its claim as good as new."""
    return replace(progress, claim=replace(progress.claim, until=lease_until(now))) if progress.claim else progress


def needs_renewal(progress: ExportProgress, now: datetime) -> bool:
    """Half of the lease is over."""
    return progress.claim is not None and (progress.claim.until - now).total_seconds() < LEASE_S / 2


def name_at(now: datetime, named_at: datetime) -> datetime:
    """The second to name a file after: this one, or the next that no file of this export was named after."""
    return max(now.replace(microsecond=0), named_at + timedelta(seconds=1))
