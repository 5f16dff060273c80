"""
Quotas of one user, and their present usage. No I/O.

Usage is counted in this process: a user on several replicas has each quota on each of them. Only the quotas on waiting
files hold over all replicas, because they are counted from the shared spool.
"""

from collections.abc import Callable
from typing import Annotated

from msgspec import Meta, Struct

from ftp_gateway.spool.upload import MAX_FILE_BYTES
from shared.errors import BusyError, TooLargeError

MAX_HANDLES = 512
RECOUNT_S = 1.0
"""Age that the count of waiting bytes may have. After it, a processed file makes room."""


class Quotas(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """
    The quotas of one user.

    `open_handles` limits the files and folders that one session has open. `waiting_files` and `waiting_bytes` limit the
    uploads that are not processed yet. `bandwidth_bytes_s` holds for uploads and downloads of all sessions together;
    None is no limit.
    """

    sessions: Annotated[int, Meta(ge=1, le=100)] = 10
    open_handles: Annotated[int, Meta(ge=1, le=MAX_HANDLES)] = 64
    waiting_files: Annotated[int, Meta(ge=1, le=1000)] = 1000
    waiting_bytes: Annotated[int, Meta(ge=1, le=1 << 40)] = 8 << 30
    file_bytes: Annotated[int, Meta(ge=1, le=MAX_FILE_BYTES)] = MAX_FILE_BYTES
    bandwidth_bytes_s: Annotated[int, Meta(ge=16 << 10)] | None = None


class QuotaUsage:
    """
    Usage of one user, over all sessions.

    Args:
        waiting: Counts the waiting files and bytes of the user, each time.
        clock: Seconds that only grow.
    """

    def __init__(self, waiting: Callable[[], tuple[int, int]], clock: Callable[[], float]) -> None:
        self._waiting = waiting
        self._clock = clock
        self._waiting_bytes = 0
        self._counted_at: float | None = None
        self._debt_bytes = 0.0
        self._debt_at = clock()
        self.sessions = 0

    def check_file(self, quotas: Quotas) -> None:
        """Check that the user may begin one more file. Raises `BusyError`."""
        files, _ = self._waiting()
        if files >= quotas.waiting_files:
            raise BusyError(f"limit waiting_files: expected at most {quotas.waiting_files} files that wait")

    def reserve(self, quotas: Quotas, size: int, growth: int) -> None:
        """
        Reserve room for a file that grows by `growth` to `size` bytes.

        Raises:
            TooLargeError: Over the limit of a file.
            BusyError: Over the limit of all waiting files.
        """
        if size > quotas.file_bytes:
            raise TooLargeError(f"limit file_bytes: expected a file of at most {quotas.file_bytes} bytes")
        if growth <= 0:
            return
        now = self._clock()
        if self._counted_at is None or now - self._counted_at >= RECOUNT_S:
            _, self._waiting_bytes = self._waiting()
            self._counted_at = now
        if self._waiting_bytes + growth > quotas.waiting_bytes:
            raise BusyError(f"limit waiting_bytes: expected at most {quotas.waiting_bytes} bytes that wait")
        self._waiting_bytes += growth

    def record_transfer(self, size: int) -> None:
        """Count bytes that were transferred. `pause_s` says for how long to pause after them."""
        if not self._debt_bytes:
            # Time without a transfer saves up no bandwidth.
            self._debt_at = self._clock()
        self._debt_bytes += size

    def pause_s(self, quotas: Quotas) -> float:
        """Return the pause that the bandwidth still asks for. Asked again, it heeds a changed rate."""
        now = self._clock()
        rate = quotas.bandwidth_bytes_s
        passed_s, self._debt_at = now - self._debt_at, now
        self._debt_bytes = max(0.0, self._debt_bytes - passed_s * rate) if rate is not None else 0.0
        return self._debt_bytes / rate if rate is not None else 0.0


class QuotaUsages:
    """Usage of every user who has a session. The connection limits bound it."""

    def __init__(self, waiting: Callable[[str], tuple[int, int]], clock: Callable[[], float]) -> None:
        self._waiting = waiting
        self._clock = clock
        self._by_login: dict[str, QuotaUsage] = {}

    def open_session(self, login: str, quotas: Quotas) -> QuotaUsage:
        """Count a new session. Raises `BusyError` when it is one too many."""
        usage = self._by_login.get(login) or QuotaUsage(lambda: self._waiting(login), self._clock)
        if usage.sessions >= quotas.sessions:
            raise BusyError(f"limit sessions: expected at most {quotas.sessions} sessions at a time")
        usage.sessions += 1
        self._by_login[login] = usage
        return usage

    def close_session(self, login: str) -> None:
        """Count the end of a session."""
        usage = self._by_login[login]
        usage.sessions -= 1
        if not usage.sessions:
            del self._by_login[login]
