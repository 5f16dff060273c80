"""Operations on remotes that the routes call: check, test, look up, accept a host key."""

from collections.abc import Awaitable, Callable

from msgspec import Struct

from ftp_gateway.remotes.remote import HostKey, Remote
from ftp_gateway.remotes.state_store import Memory
from shared.contracts.connection_report import ConnectionReport


class Desk(Struct, frozen=True, kw_only=True):
    """
    What these routes work on.

    `check` raises `InvalidError` for a remote that cannot be right; `probe` tries one out.
    """

    check: Callable[[Remote], Awaitable[None]]
    probe: Callable[[Remote], Awaitable[tuple[ConnectionReport, HostKey | None]]]
    memory: Callable[[str, str], Memory]
