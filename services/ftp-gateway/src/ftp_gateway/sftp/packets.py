"""
SFTP packets that asyncssh does not handle as a file gateway needs them (SFTP version 3).

Configuration: none.
Implementation: a subclass of asyncssh's packet handler with a table of its own. Packets not in it are "unsupported".
    - CLOSE by the client differs from the clean-up after a client that went away: asyncssh calls `close` for both.
    - WRITE with bytes after its data is accepted: rclone 1.60 and others on pkg/sftp of that age send a whole 32 KiB
      buffer with the last, shorter block. OpenSSH's server ignores the rest as well.
    - Packets are capped at 256 KiB, and handles per session. Errors are translated here and nowhere else.
    - A session ends with an exit status, which scp expects.
    - READ and WRITE pause for the user's bandwidth. Nothing is read from a client that does not read our answers.
    - A session has turns of 5 ms. asyncssh would answer in one callback all that has come: 2 MiB of small packets.
Considerations: the names of asyncssh used here are private. `asyncssh_internals` lists and checks them. SYMLINK, LINK,
    READLINK, copy-data (an unbounded loop on one request) and the ranges extension are not in the table.
"""

import errno
import functools
from collections.abc import Callable
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
    SFTPServer,
    SSHReader,
    SSHServerChannel,
    SSHWriter,
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
from asyncssh.sftp import SFTPInvalidHandle, SFTPLimits, SFTPServerHandler

from ftp_gateway.sftp.asyncssh_internals import Handler, packet_handler
from shared.errors import MillraceError
from shared.runtime.slices import Slices

log = structlog.get_logger()

VERSION = 3
MAX_PACKET_BYTES = 256 * 1024 + 1024
MAX_BLOCK_BYTES = 256 * 1024
"""Limit of one READ or WRITE. asyncssh allows 4 MiB, which every session may hold in memory."""

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


class PacketFileSystem(Protocol):
    """Needs of the handler beyond asyncssh's server."""

    @property
    def max_handles(self) -> int:
        """Files and folders that the session may have open."""
        ...

    async def close_by_client(self, file: object) -> None:
        """Close a file whose client asked for it."""
        ...

    async def pace(self, size: int) -> None:
        """Count transferred bytes and pause for as long as the bandwidth asks."""
        ...

    def note_progress(self) -> None:
        """Record that the client did something."""
        ...

    async def wait_until_read(self) -> None:
        """Return when the client reads."""
        ...


def sftp_error(error: Exception) -> SFTPError:
    """Translate a failure into SFTP. An unexpected error is a bug: it is logged, and answered with "failure"."""
    if isinstance(error, SFTPError):
        return error
    if isinstance(error, MillraceError):
        return _ERRORS.get(error.code, SFTPFailure)(error.message)
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return SFTPNoSpaceOnFilesystem("the disk is full")
    if isinstance(error, FileNotFoundError):
        return SFTPNoSuchFile("the file is gone")
    log.error("sftp_request_failed", message=type(error).__name__, exc_info=error)
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


def _filesystem(handler: SFTPServerHandler) -> PacketFileSystem:
    return cast(PacketFileSystem, handler._server)


async def _close(self: SFTPServerHandler, packet: SSHPacket) -> None:
    handle = packet.get_string()
    packet.check_end()
    file = self._file_handles.pop(handle, None)
    if file is not None:
        await _filesystem(self).close_by_client(file)
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
    await _filesystem(self).pace(len(data))


async def _read(self: SFTPServerHandler, packet: SSHPacket) -> tuple[bytes, bool]:
    data, at_end = await self._process_read(packet)
    await _filesystem(self).pace(len(data))
    return data, at_end


async def _limits(self: SFTPServerHandler, packet: SSHPacket) -> SFTPLimits:
    packet.check_end()
    return SFTPLimits(MAX_PACKET_BYTES, MAX_BLOCK_BYTES, MAX_BLOCK_BYTES, _filesystem(self).max_handles)


def _within_handle_limit(handler: Handler) -> Handler:
    @functools.wraps(handler)
    async def handle(self: SFTPServerHandler, packet: SSHPacket) -> object:
        most = _filesystem(self).max_handles
        if len(self._file_handles) + len(self._dir_handles) >= most:
            raise SFTPFailure(f"limit open_handles: expected at most {most} open files and folders")
        return await handler(self, packet)

    return handle


_EXTENSIONS = [
    (b"posix-rename@openssh.com", b"1"),
    (b"fsync@openssh.com", b"1"),
    (b"lsetstat@openssh.com", b"1"),
    (b"limits@openssh.com", b"1"),
]
_HANDLERS: dict[int | bytes, Handler] = {
    FXP_OPEN: _within_handle_limit(packet_handler("_process_open")),
    FXP_CLOSE: _close,
    FXP_READ: _read,
    FXP_WRITE: _write,
    FXP_LSTAT: packet_handler("_process_lstat"),
    FXP_FSTAT: packet_handler("_process_fstat"),
    FXP_SETSTAT: packet_handler("_process_setstat"),
    FXP_FSETSTAT: packet_handler("_process_fsetstat"),
    FXP_OPENDIR: _within_handle_limit(packet_handler("_process_opendir")),
    FXP_READDIR: packet_handler("_process_readdir"),
    FXP_REMOVE: packet_handler("_process_remove"),
    FXP_MKDIR: packet_handler("_process_mkdir"),
    FXP_RMDIR: packet_handler("_process_rmdir"),
    FXP_REALPATH: packet_handler("_process_realpath"),
    FXP_STAT: packet_handler("_process_stat"),
    FXP_RENAME: packet_handler("_process_rename"),
    b"posix-rename@openssh.com": packet_handler("_process_posix_rename"),
    b"fsync@openssh.com": packet_handler("_process_fsync"),
    b"lsetstat@openssh.com": packet_handler("_process_lsetstat"),
    b"limits@openssh.com": _limits,
}
_KEEPALIVE_REQUESTS: frozenset[int | bytes] = frozenset(
    (FXP_STAT, FXP_LSTAT, FXP_FSTAT, FXP_REALPATH, b"limits@openssh.com")
)
"""Requests that clients send only to keep a session open: they are no progress."""


def _noting_progress(kind: int | bytes, handler: Handler) -> Handler:
    if kind in _KEEPALIVE_REQUESTS:
        return handler

    @functools.wraps(handler)
    async def handle(self: SFTPServerHandler, packet: SSHPacket) -> object:
        _filesystem(self).note_progress()
        return await handler(self, packet)

    return handle


_TRANSLATED: dict[int | bytes, Any] = {
    kind: _translated(_noting_progress(kind, handler)) for kind, handler in _HANDLERS.items()
}


class PacketHandler(SFTPServerHandler):
    """asyncssh's packet handler with our table. `authentication` makes one for each session."""

    _extensions = _EXTENSIONS
    _packet_handlers = _TRANSLATED

    def __init__(
        self, server: SFTPServer, reader: "SSHReader[bytes]", writer: "SSHWriter[bytes]", slices: Slices
    ) -> None:
        super().__init__(server, reader, writer, VERSION)
        self._slices = slices

    async def run(self) -> None:
        """
        As asyncssh's, also for a client that goes before its first packet: that would end the connection as a bug.
        """
        try:
            await super().run()
        except EOFError:
            await self._cleanup(None)

    async def recv_packets(self) -> None:
        """As asyncssh's, for version 3 alone: asyncssh would agree to an older one, whose packets it does not know."""
        if self._version != VERSION:
            await self._cleanup(SFTPBadMessage(f"expected SFTP version {VERSION} or later"))
            return
        await super().recv_packets()

    async def recv_packet(self) -> SSHPacket:
        """As asyncssh's, with our limit instead of 4 MiB, and not before the last answers are on their way."""
        assert self._reader is not None
        assert self._writer is not None
        await self._slices.turn()
        await self._writer.drain()
        await _filesystem(self).wait_until_read()
        size = int.from_bytes(await self._reader.readexactly(4))
        if size > MAX_PACKET_BYTES:
            raise SFTPBadMessage(f"expected a packet of at most {MAX_PACKET_BYTES} bytes")
        return SSHPacket(await self._reader.readexactly(size))

    async def _cleanup(self, exc: Exception | None) -> None:
        # Without an exit status scp takes the file for lost, and sends it again.
        if self._writer is not None:
            cast(SSHServerChannel[bytes], self._writer.channel).exit(0 if exc is None else 1)
        await super()._cleanup(exc)
