"""Times of the next look at a remote: its schedule, and a back-off after a failure. Pure."""

from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

from ftp_gateway.remotes.cron import next_time
from ftp_gateway.remotes.remote import Remote
from ftp_gateway.remotes.state import PullProgress, RemoteFailure
from shared.errors import ConflictError, MillraceError

ALERT_AFTER = timedelta(minutes=15)
"""How long a failure that may pass by itself is nobody's business."""
LONGEST_BACKOFF_S = 1800.0
"""Between two looks at a server that fails."""
RETRY_S = 60.0
"""How soon at most to look again where the last look failed, or left something that is about to be there."""


def failure_after(
    trouble: RemoteFailure | None, error: MillraceError, now: datetime, revision: int
) -> tuple[RemoteFailure, bool]:
    """
    The trouble that a remote is in after a failure, and whether an operator has to hear of it now: once for each
    configuration; at once where nothing but a person can help, else when it lasts.
    """
    since = trouble.since if trouble else now
    told = trouble.told_revision if trouble else 0
    tell = told != revision and (not _may_pass(error) or now - since >= ALERT_AFTER)
    return RemoteFailure(
        code=error.code, message=error.message, since=since, told_revision=revision if tell else told
    ), tell


def _may_pass(error: MillraceError) -> bool:
    return error.retryable or isinstance(error, ConflictError)


def first_poll_at(remote: Remote, revision: int, progress: PullProgress, now: datetime) -> datetime:
    """
    When a replica looks that begins with a remote. By a schedule it goes on where the one before has stopped, so what
    was due while nobody was there is done once; a new schedule begins now. Otherwise, and after a failure, at once.
    """
    if remote.schedule is None or progress.trouble is not None:
        return now
    if progress.revision == revision and progress.next_look_at is not None:
        return progress.next_look_at
    return next_poll_at(remote, now)


def next_poll_at(remote: Remote, now: datetime, *, failures: int = 0, unfinished: bool = False) -> datetime:
    """When to look again, after so many failures in a row, or after a look that has left something for soon."""
    again_s = RETRY_S if remote.schedule is not None else min(RETRY_S, remote.every_s)
    if failures:
        return now + timedelta(seconds=min(again_s * 2.0 ** min(failures, 16), LONGEST_BACKOFF_S))
    regular = now + timedelta(seconds=remote.every_s)
    if remote.schedule is not None:
        regular = next_time(remote.schedule, now, ZoneInfo(remote.timezone))
    return min(regular, now + timedelta(seconds=max(again_s, remote.settle_s))) if unfinished else regular
