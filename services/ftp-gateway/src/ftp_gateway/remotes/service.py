"""Operations on remotes that the routes call: check, test, look up, accept a host key."""

from collections.abc import Awaitable, Callable

from msgspec import Struct

from ftp_gateway.remotes.remote import OfferedHostKey, Remote
from ftp_gateway.remotes.state_store import RemoteStateStore
from shared.contracts.connection_report import ConnectionReport


class RemoteService(Struct, frozen=True, kw_only=True):
    """
    The operations, as functions.

    `check` raises `InvalidError` for a remote that cannot be right; `probe` tries one out.
    """

    check: Callable[[Remote], Awaitable[None]]
    probe: Callable[[Remote], Awaitable[tuple[ConnectionReport, OfferedHostKey | None]]]
    state_of: Callable[[str, str], RemoteStateStore]
