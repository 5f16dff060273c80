"""Times of the next poll of a remote: its schedule, and a back-off after a failure. Pure."""

from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

from ftp_gateway.remotes.cron import next_time
from ftp_gateway.remotes.remote import Remote
from ftp_gateway.remotes.state import PullProgress, RemoteFailure
from shared.errors import ConflictError, MillraceError

ALERT_AFTER = timedelta(minutes=15)
"""Age of a transient failure at which an operator is alerted."""
LONGEST_BACKOFF_S = 1800.0
"""Longest wait between two polls of a server that fails."""
RETRY_S = 60.0
"""Shortest wait after a poll that failed, or that left files which are about to be ready."""


def failure_after(
    failure: RemoteFailure | None, error: MillraceError, now: datetime, revision: int
) -> tuple[RemoteFailure, bool]:
    """
    Return the failure to store, and whether to alert an operator now.

    There is one alert for each revision of the configuration: at once where only a person can help, else after
    `ALERT_AFTER`.
    """
    since = failure.since if failure else now
    alerted_revision = failure.told_revision if failure else 0
    alert_now = alerted_revision != revision and (not _is_transient(error) or now - since >= ALERT_AFTER)
    return RemoteFailure(
        code=error.code, message=error.message, since=since, told_revision=revision if alert_now else alerted_revision
    ), alert_now


def _is_transient(error: MillraceError) -> bool:
    return error.retryable or isinstance(error, ConflictError)


def first_poll_at(remote: Remote, revision: int, progress: PullProgress, now: datetime) -> datetime:
    """
    Return the time of the first poll by a replica that has just locked the remote.

    With a schedule it is the stored time of the next poll, so a poll that was missed is made up once; a changed
    configuration starts its schedule now. Without a schedule, and after a failure, it is now.
    """
    if remote.schedule is None or progress.trouble is not None:
        return now
    if progress.revision == revision and progress.next_look_at is not None:
        return progress.next_look_at
    return next_poll_at(remote, now)


def next_poll_at(remote: Remote, now: datetime, *, failures: int = 0, unfinished: bool = False) -> datetime:
    """Return the next poll, after so many failures in a row, or after a poll that left files which are nearly ready."""
    again_s = RETRY_S if remote.schedule is not None else min(RETRY_S, remote.every_s)
    if failures:
        return now + timedelta(seconds=min(again_s * 2.0 ** min(failures, 16), LONGEST_BACKOFF_S))
    regular = now + timedelta(seconds=remote.every_s)
    if remote.schedule is not None:
        regular = next_time(remote.schedule, now, ZoneInfo(remote.timezone))
    return min(regular, now + timedelta(seconds=max(again_s, remote.settle_s))) if unfinished else regular
