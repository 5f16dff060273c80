"""
Private names of asyncssh that this package uses, all of them, and the check that this release still has them.

asyncssh has no public hook for the packets that a file gateway answers otherwise. So `packets`, `listener` and
`authentication` build on the names below. `pyproject.toml` bounds the release, and `check_internals` runs at the start
of the service. Importing this package does not fail for a missing name: the check reports it.
"""

from collections.abc import Awaitable, Callable
from typing import Any, Final

from asyncssh import SSHServerChannel, SSHServerConnection
from asyncssh.connection import SSHConnection
from asyncssh.constants import FXP_CLOSE, FXP_READ, FXP_WRITE, MSG_SERVICE_REQUEST
from asyncssh.packet import SSHPacket
from asyncssh.sftp import SFTPHandler, SFTPServer, SFTPServerHandler
from asyncssh.stream import SSHServerStreamSession

from shared.runtime.internals import mentions, refuse_moved_names

Handler = Callable[[SFTPServerHandler, SSHPacket], Awaitable[object]]

ATTRIBUTES: Final[tuple[tuple[type, tuple[str, ...]], ...]] = (
    (
        SFTPServerHandler,
        (
            "run",
            "_cleanup",
            "_extensions",
            "_packet_handlers",
            "_process_close",
            "_process_fsetstat",
            "_process_fstat",
            "_process_fsync",
            "_process_limits",
            "_process_lsetstat",
            "_process_lstat",
            "_process_mkdir",
            "_process_open",
            "_process_opendir",
            "_process_packet",
            "_process_posix_rename",
            "_process_read",
            "_process_readdir",
            "_process_realpath",
            "_process_remove",
            "_process_rename",
            "_process_rmdir",
            "_process_setstat",
            "_process_stat",
            "_process_write",
        ),
    ),
    (SFTPHandler, ("recv_packet", "recv_packets")),
    (SFTPServer, ("channel",)),
    (SSHConnection, ("_packet_handlers", "_process_service_request", "_recv_data", "_recv_pkthdr")),
)
"""Methods and tables that each class itself defines, called or replaced."""

FIELDS: Final[tuple[tuple[type, tuple[str, ...]], ...]] = (
    (SFTPServerHandler, ("_dir_handles", "_file_handles", "_reader", "_server", "_version", "_writer")),
    (SSHServerConnection, ("_auth_complete", "_auth_in_progress", "_inpbuf", "_loop", "_next_service")),
    (SSHServerChannel, ("_recv_buf", "_send_pktsize")),
    (SSHServerStreamSession, ("_chan", "_conn", "_recv_buf", "_recv_buf_len")),
)
"""Fields that the constructors of the classes set."""

REPLACED: Final[tuple[tuple[type, tuple[int | bytes, ...]], ...]] = (
    (SFTPServerHandler, (FXP_CLOSE, FXP_READ, FXP_WRITE, b"limits@openssh.com")),
    (SSHServerConnection, (MSG_SERVICE_REQUEST,)),
)
"""Packets in `_packet_handlers` of the classes that the gateway handles itself."""


def packet_handlers(owner: type) -> dict[Any, Any]:
    """Return asyncssh's table of packet handlers; an empty one where it is missing."""
    return dict(getattr(owner, "_packet_handlers", {}))


def packet_handler(name: str) -> Handler:
    """Return asyncssh's handler of an SFTP packet; one that refuses where it is missing."""
    return getattr(SFTPServerHandler, name, _missing)


def check_internals() -> None:
    """Raises `UnavailableError` when this release of asyncssh lacks a name: the message has release and name."""
    names = {f"{owner.__name__}.{name}": name in vars(owner) for owner, names in ATTRIBUTES for name in names}
    # A field shows in the constructor's code alone: an instance would need a connection.
    names |= {
        f"{owner.__name__}.{name}": any(mentions(vars(base).get("__init__"), name) for base in owner.__mro__)
        for owner, names in FIELDS
        for name in names
    }
    names |= {
        f"{owner.__name__}._packet_handlers[{kind!r}]": kind in packet_handlers(owner)
        for owner, kinds in REPLACED
        for kind in kinds
    }
    refuse_moved_names("asyncssh", names)


async def _missing(handler: SFTPServerHandler, packet: SSHPacket) -> object:
    raise NotImplementedError
