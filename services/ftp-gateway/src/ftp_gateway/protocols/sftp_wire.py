"""
The SFTP packets that asyncssh does not handle as a file gateway needs them (SFTP version 3).

Configuration: none.
Implementation: a subclass of asyncssh's packet handler with a table of its own: what is not in it is "unsupported".
    - CLOSE by the client is told from the clean-up after a client that went away: asyncssh calls `close` for both.
    - WRITE with bytes after its data is accepted: rclone 1.60 and others on pkg/sftp of that age send a whole 32 KiB
      buffer with the last, shorter block. OpenSSH's server ignores the rest as well.
    - Packets are capped at 256 KiB, and handles per session; errors are translated here and nowhere else.
Considerations: `_packet_handlers`, `_file_handles`, `_dir_handles` and `_process_*` are private to asyncssh, so
    `check_hooks` is called when the service starts and the lock file pins one version. SYMLINK, LINK, READLINK,
    copy-data (an unbounded loop on one request) and the ranges extension are not in the table.
"""

import errno
import functools
from collections.abc import Awaitable, Callable
from typing import Any, Protocol, cast

import structlog
from asyncssh import (
    SFTPBadMessage,
    SFTPError,
    SFTPFailure,
    SFTPNoConnection,
    SFTPNoSpaceOnFilesystem,
    SFTPNoSuchFile,
    SFTPPermissionDenied,
    SFTPQuotaExceeded,
)
from asyncssh.constants import (
    FXP_CLOSE,
    FXP_FSETSTAT,
    FXP_FSTAT,
    FXP_LSTAT,
    FXP_MKDIR,
    FXP_OPEN,
    FXP_OPENDIR,
    FXP_READ,
    FXP_READDIR,
    FXP_REALPATH,
    FXP_REMOVE,
    FXP_RENAME,
    FXP_RMDIR,
    FXP_SETSTAT,
    FXP_STAT,
    FXP_WRITE,
)
from asyncssh.packet import PacketDecodeError, SSHPacket
from asyncssh.sftp import SFTPInvalidHandle, SFTPLimits, SFTPServer, SFTPServerHandler

from shared.errors import MillraceError, UnavailableError

log = structlog.get_logger()

MAX_PACKET_BYTES = 256 * 1024 + 1024
MAX_BLOCK_BYTES = 256 * 1024
"""Of one READ or WRITE. asyncssh allows 4 MiB, which every session may hold in memory."""
MAX_HANDLES = 64
"""Open files and folders of one session."""

Handler = Callable[[SFTPServerHandler, SSHPacket], Awaitable[object]]

_ERRORS: dict[str, Callable[[str], SFTPError]] = {
    "invalid": SFTPBadMessage,
    "denied": SFTPPermissionDenied,
    "unauthenticated": SFTPPermissionDenied,
    "not_found": SFTPNoSuchFile,
    "conflict": SFTPFailure,
    "too_large": SFTPQuotaExceeded,
    "busy": SFTPFailure,
    "unavailable": SFTPNoConnection,
}


class ClosingServer(Protocol):
    """What the handler needs beyond asyncssh's server: the file that a client closes itself."""

    async def close_by_client(self, file: object) -> None: ...


def sftp_error(error: Exception) -> SFTPError:
    """The SFTP translation of a failure. What is no kind of error is a bug: logged, and told as "failure"."""
    if isinstance(error, SFTPError):
        return error
    if isinstance(error, MillraceError):
        return _ERRORS.get(error.code, SFTPFailure)(error.message)
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return SFTPNoSpaceOnFilesystem("the disk is full")
    if isinstance(error, FileNotFoundError):
        return SFTPNoSuchFile("the file is gone")
    log.error("sftp_failed", message=type(error).__name__, exc_info=error)
    return SFTPFailure("internal error")


def _translated(handler: Handler) -> Handler:
    @functools.wraps(handler)
    async def handle(self: SFTPServerHandler, packet: SSHPacket) -> object:
        try:
            return await handler(self, packet)
        except (PacketDecodeError, NotImplementedError):
            raise
        except Exception as error:
            raise sftp_error(error) from None

    return handle


async def _close(self: SFTPServerHandler, packet: SSHPacket) -> None:
    handle = packet.get_string()
    packet.check_end()
    file = self._file_handles.pop(handle, None)
    if file is not None:
        await cast(ClosingServer, self._server).close_by_client(file)
    elif self._dir_handles.pop(handle, None) is None:
        raise SFTPInvalidHandle("Invalid file handle")


async def _write(self: SFTPServerHandler, packet: SSHPacket) -> None:
    handle = packet.get_string()
    offset = packet.get_uint64()
    data = packet.get_string()
    file = self._file_handles.get(handle)
    if file is None:
        raise SFTPInvalidHandle("Invalid file handle")
    self._server.write(file, offset, data)


async def _limits(self: SFTPServerHandler, packet: SSHPacket) -> SFTPLimits:
    packet.check_end()
    return SFTPLimits(MAX_PACKET_BYTES, MAX_BLOCK_BYTES, MAX_BLOCK_BYTES, MAX_HANDLES)


def _counted(handler: Handler) -> Handler:
    @functools.wraps(handler)
    async def handle(self: SFTPServerHandler, packet: SSHPacket) -> object:
        if len(self._file_handles) + len(self._dir_handles) >= MAX_HANDLES:
            raise SFTPFailure(f"expected at most {MAX_HANDLES} open handles")
        return await handler(self, packet)

    return handle


_EXTENSIONS = [
    (b"posix-rename@openssh.com", b"1"),
    (b"fsync@openssh.com", b"1"),
    (b"lsetstat@openssh.com", b"1"),
    (b"limits@openssh.com", b"1"),
]
_HANDLERS: dict[int | bytes, Handler] = {
    FXP_OPEN: _counted(SFTPServerHandler._process_open),
    FXP_CLOSE: _close,
    FXP_READ: SFTPServerHandler._process_read,
    FXP_WRITE: _write,
    FXP_LSTAT: SFTPServerHandler._process_lstat,
    FXP_FSTAT: SFTPServerHandler._process_fstat,
    FXP_SETSTAT: SFTPServerHandler._process_setstat,
    FXP_FSETSTAT: SFTPServerHandler._process_fsetstat,
    FXP_OPENDIR: _counted(SFTPServerHandler._process_opendir),
    FXP_READDIR: SFTPServerHandler._process_readdir,
    FXP_REMOVE: SFTPServerHandler._process_remove,
    FXP_MKDIR: SFTPServerHandler._process_mkdir,
    FXP_RMDIR: SFTPServerHandler._process_rmdir,
    FXP_REALPATH: SFTPServerHandler._process_realpath,
    FXP_STAT: SFTPServerHandler._process_stat,
    FXP_RENAME: SFTPServerHandler._process_rename,
    b"posix-rename@openssh.com": SFTPServerHandler._process_posix_rename,
    b"fsync@openssh.com": SFTPServerHandler._process_fsync,
    b"lsetstat@openssh.com": SFTPServerHandler._process_lsetstat,
    b"limits@openssh.com": _limits,
}
_TRANSLATED: dict[int | bytes, Any] = {kind: _translated(handler) for kind, handler in _HANDLERS.items()}


class PacketHandler(SFTPServerHandler):
    """asyncssh's packet handler with our table. Made for each session by `protocols.sftp`."""

    _extensions = _EXTENSIONS
    _packet_handlers = _TRANSLATED

    async def recv_packet(self) -> SSHPacket:
        """As asyncssh's, with our limit instead of 4 MiB."""
        assert self._reader is not None
        size = int.from_bytes(await self._reader.readexactly(4))
        if size > MAX_PACKET_BYTES:
            raise SFTPBadMessage(f"expected a packet of at most {MAX_PACKET_BYTES} bytes")
        return SSHPacket(await self._reader.readexactly(size))


def check_hooks() -> None:
    """Raises `UnavailableError` when this asyncssh no longer has what `PacketHandler` replaces."""
    original = SFTPServerHandler.__dict__
    methods = ("_process_packet", "_process_close", "_process_write", "_process_limits", "_cleanup")
    missing = [name for name in methods if name not in original]
    table = original.get("_packet_handlers", {})
    moved = [kind for kind in (FXP_CLOSE, FXP_WRITE, b"limits@openssh.com") if kind not in table]
    if missing or moved or not hasattr(SFTPServerHandler, "recv_packet") or not hasattr(SFTPServer, "channel"):
        raise UnavailableError(f"this asyncssh has moved its packet handlers: {missing or moved}")
