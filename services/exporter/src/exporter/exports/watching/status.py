"""The state of an export, as its customer sees it."""

from collections.abc import Sequence
from datetime import datetime
from typing import Final, Literal

from msgspec import Struct

from exporter.exports.failures.failure import DroppedEvents, Fault, Undelivered, used_percent
from exporter.exports.progress import ExportProgress

ExportState = Literal["active", "retrying", "blocked", "dropping"]
STATES: Final[tuple[ExportState, ...]] = ("active", "retrying", "blocked", "dropping")


class ExportStatus(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """
    The state of an export, since `since`; absent for one that has never failed.

    The rest describes a failure that goes on: the time and code of its first failed attempt, the error of the last one
    and who can mend it, the number of failed attempts since the last edit, and the time of the next. `used_percent` is
    the share of the customer's 48 hours that is used up; then events older than that are `dropped`.
    `oldest_undelivered` is the oldest event that waits. `checked_at` is the last time when the destination was used or
    probed.
    """

    state: ExportState
    since: datetime | None = None
    checked_at: datetime | None = None
    first_failed_at: datetime | None = None
    first_code: str | None = None
    code: str | None = None
    message: str | None = None
    fault: Fault | None = None
    failed_attempts: int | None = None
    next_try_at: datetime | None = None
    used_percent: float | None = None
    oldest_undelivered: Undelivered | None = None
    dropped: DroppedEvents | None = None


def status_of(progress: ExportProgress, now: datetime) -> ExportStatus:
    """The status of an export with this progress."""
    failure = progress.failing
    if failure is None:
        return ExportStatus(state="active", since=progress.recovered_at, checked_at=progress.checked_at)
    return ExportStatus(
        state=failure.state,
        since=failure.state_at or failure.since,
        checked_at=progress.checked_at,
        first_failed_at=failure.since,
        first_code=failure.code,
        code=failure.last_code or failure.code,
        message=failure.message or None,
        fault=failure.fault if failure.failed_at else None,
        failed_attempts=failure.attempts,
        next_try_at=failure.next_at,
        used_percent=round(used_percent(failure, now), 1),
        oldest_undelivered=failure.oldest,
        dropped=failure.dropped,
    )


def worst_of(statuses: Sequence[ExportStatus]) -> ExportStatus:
    """The status of the lane that is worst off."""
    return max(
        statuses,
        key=lambda one: (STATES.index(one.state), one.used_percent or 0.0),
        default=ExportStatus(state="active"),
    )
