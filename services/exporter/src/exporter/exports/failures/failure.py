"""
The failure of an export as a state machine: retrying, blocked, dropping. Pure: the time is passed in as `now`.

A failure begins with the first attempt that fails, a run or a probe of the destination, and ends with one that shows
that it works. While the customer is at fault their 48 hours are used up. Then each failed run drops what is older than
48 hours. Faults of the platform, and of a provider such as AWS, use up nothing: their events wait.
"""

from datetime import datetime, timedelta
from typing import Final, Literal

from msgspec import Struct
from msgspec.structs import replace

from exporter.pipeline.ports import Operator
from shared.errors import CredentialsError, MillraceError
from shared.objects.errors import store_code

KEPT_S: Final = 48 * 3600.0
"""
The time that customers have to mend their destination, and the age from which on events are dropped then (Braze
Currents, Event delivery semantics). `EVENTS` keeps 72 h, so what is dropped is a decision and no accident.
"""
LONGEST_WAIT_S: Final = 900.0
FIRST_WAIT_S: Final = 30.0
ERROR_CHARACTERS: Final = 1000

FailureState = Literal["retrying", "blocked", "dropping"]
Fault = Operator
Attempt = Literal["run", "probe"]
Notice = Literal["failed", "half", "most", "dropped", "recovered"]
"""Notices, each told once in a failure: it began, 50 % and 90 % of the time are used, the first drop, and its end."""

MARKS: Final[tuple[tuple[float, Notice], ...]] = ((90.0, "most"), (50.0, "half"))
"""Percents at which is told, the highest first. One that is passed together with a higher one is not told."""

TOLD_DROP: Final = 100.0

CLOCK_CODES: Final = frozenset({"RequestTimeTooSkewed", "RequestExpired"})
"""Codes by which a store refuses the clock of this machine."""


class Undelivered(Struct, frozen=True, kw_only=True):
    """The oldest event that waits: its sequence in `EVENTS`, and the time when the stream stored it."""

    sequence: int
    at: datetime


class DroppedEvents(Struct, frozen=True, kw_only=True):
    """Events that were dropped, between the first and the last sequence of `EVENTS` that held one."""

    events: int
    first_sequence: int
    last_sequence: int


class FailedAttempt(Struct, frozen=True, kw_only=True):
    """
    An attempt that failed.

    `temporary` failures may end by themselves. `of_destination` says whether the destination failed, or something else.
    `has_delivered` says that it had delivered a file before. `revision` is that of the configuration, and `every_s` the
    export's period.
    """

    kind: Attempt
    code: str
    message: str
    fault: Fault
    temporary: bool
    of_destination: bool
    revision: int
    every_s: float
    has_delivered: bool = False


class UndeliveredEvents(Struct, frozen=True, kw_only=True):
    """Events that wait: the oldest one, and those that were older than 48 hours and are dropped."""

    oldest: Undelivered | None = None
    dropped: DroppedEvents | None = None


class ExportFailure(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """
    A failure since `since`, whose first code is `code`. The rest is that of the last failed attempt, at `failed_at`.

    `used_s` of `KEPT_S` are used up. `attempts` counts the failed ones since the last edit or wake, and the next one
    begins at `next_at`. `told` is the highest percent that was told, 100 at the first drop. A release before stored
    `code` and `since` alone.
    """

    code: str
    since: datetime
    state: FailureState = "retrying"
    state_at: datetime | None = None
    kind: Attempt = "run"
    last_code: str = ""
    message: str = ""
    fault: Fault = "platform"
    of_destination: bool = True
    failed_at: datetime | None = None
    used_s: float = 0.0
    attempts: int = 0
    next_at: datetime | None = None
    revision: int = 0
    told: float = 0.0
    oldest: Undelivered | None = None
    dropped: DroppedEvents | None = None


def fault_of(error: MillraceError, operator: Operator, *, has_our_keys: bool = False) -> Fault:
    """
    The one at fault when a store failed with `error`.

    Args:
        operator: Who operates the store. The customer answers for an own one, whether it refuses or is not reached.
        has_our_keys: The keys are the platform's, for a role of the customer.
    """
    if operator == "platform" or store_code(error) in CLOCK_CODES:
        return "platform"
    if has_our_keys and isinstance(error, CredentialsError):
        return "platform"
    return operator if error.retryable else "customer"


def is_over(before: ExportFailure | None, attempt: FailedAttempt, now: datetime) -> bool:
    """Return whether the 48 hours are over with this attempt, so that it drops what is older."""
    return attempt.fault == "customer" and _used_s(before, attempt, now) >= KEPT_S


def failed(
    before: ExportFailure | None, attempt: FailedAttempt, now: datetime, backlog: UndeliveredEvents | None = None
) -> tuple[ExportFailure, list[Notice]]:
    """
    The failure after one more attempt that failed, and what is to be told of it.

    Args:
        backlog: What waits and what is dropped now; None where it is not known.
    """
    used_s = _used_s(before, attempt, now)
    oldest = backlog.oldest if backlog is not None else before.oldest if before is not None else None
    newly = backlog.dropped if backlog is not None else None
    state: FailureState = "retrying"
    if is_over(before, attempt, now) and (oldest or newly):
        state = "dropping"
    elif attempt.fault == "customer" and not attempt.temporary:
        state = "blocked"
    if before is None:
        before = ExportFailure(code=attempt.code, since=now, state=state, state_at=now, revision=attempt.revision)
        notices: list[Notice] = ["failed"]
    else:
        notices = []
    told = before.told
    for percent, notice in MARKS:
        if told < percent <= _percent_of(used_s):
            notices.append(notice)
            told = percent
    if newly is not None and told < TOLD_DROP:
        notices.append("dropped")
        told = TOLD_DROP
    attempts = 1 + (before.attempts if before.revision == attempt.revision else 0)
    return replace(
        before,
        state=state,
        state_at=before.state_at if before.state == state and before.state_at else now,
        kind=attempt.kind,
        last_code=attempt.code,
        message=attempt.message[:ERROR_CHARACTERS],
        fault=attempt.fault,
        of_destination=attempt.of_destination,
        failed_at=now,
        used_s=used_s,
        attempts=attempts,
        next_at=now + timedelta(seconds=wait_s(attempts, attempt.every_s)),
        revision=attempt.revision,
        told=told,
        oldest=oldest,
        dropped=_together(before.dropped, newly),
    ), notices


def woken(failure: ExportFailure, now: datetime) -> ExportFailure:
    """The failure when the next attempt is to begin now, and the waits from the shortest one on."""
    return replace(failure, next_at=now, attempts=0)


def trying(failure: ExportFailure, revision: int, now: datetime, within_s: float) -> ExportFailure:
    """The failure while an attempt is made that ends `within_s`; until then no other process makes one."""
    attempts = failure.attempts if failure.revision == revision else 0
    return replace(failure, next_at=now + timedelta(seconds=within_s), attempts=attempts, revision=revision)


def to_be_probed(failure: ExportFailure, now: datetime) -> ExportFailure:
    """The failure after a run that had nothing to deliver, and so shows nothing about the destination."""
    return replace(failure, kind="probe", next_at=now)


def is_due(failure: ExportFailure, revision: int, now: datetime) -> bool:
    """Return whether the next attempt begins now: its time has come, or the export was edited."""
    return failure.revision != revision or due_in_s(failure, now) <= 0


def due_in_s(failure: ExportFailure, now: datetime) -> float:
    """Seconds until the next attempt; 0 also when the clock was set back over it, as nobody knows how long it is."""
    left_s = (failure.next_at - now).total_seconds() if failure.next_at else 0.0
    return left_s if 0 < left_s <= LONGEST_WAIT_S else 0.0


def wait_s(attempts: int, every_s: float) -> float:
    """Seconds from failed attempt number `attempts` to the next: twice as long each time, up to 15 minutes."""
    return float(min(LONGEST_WAIT_S, min(FIRST_WAIT_S, every_s) * 2 ** min(attempts - 1, 16)))


def used_percent(failure: ExportFailure, now: datetime) -> float:
    """The share of the 48 hours that is used up, 0 to 100, as if an attempt failed now."""
    return _percent_of(_used_until(failure, now) if failure.fault == "customer" else failure.used_s)


def _percent_of(used_s: float) -> float:
    return min(100.0, used_s / KEPT_S * 100)


def _used_s(before: ExportFailure | None, attempt: FailedAttempt, now: datetime) -> float:
    """Used seconds: those between two attempts in a row at which the customer was at fault."""
    if before is None or attempt.has_delivered:
        return 0.0
    if before.fault != "customer" or attempt.fault != "customer":
        return before.used_s
    return _used_until(before, now)


def _used_until(failure: ExportFailure, now: datetime) -> float:
    # A clock that was set back gives nothing back, and takes nothing away.
    return failure.used_s + max(0.0, (now - (failure.failed_at or now)).total_seconds())


def _together(before: DroppedEvents | None, newly: DroppedEvents | None) -> DroppedEvents | None:
    if before is None or newly is None:
        return before or newly
    return DroppedEvents(
        events=before.events + newly.events,
        first_sequence=before.first_sequence,
        last_sequence=newly.last_sequence,
    )
