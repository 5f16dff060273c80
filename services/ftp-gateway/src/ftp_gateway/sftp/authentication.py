"""
Authentication of one SFTP connection, the checks while it lasts, and its one session.

Configuration: none; the users are `ftp_users`.
Implementation: asyncssh without its session factories. A connection may ask for one session, whose `sftp` subsystem is
    our `PacketHandler` on our `SftpFileSystem`. Shell, exec, scp, pty and every forwarding are refused, because nothing
    grants them.
Considerations: asyncssh has no limit of tries for a connection: 300 wrong passwords reached the check in 0.16 s.
    Wrong keys count once for a connection, and not for one that signs in: an agent offers every key that it has.
"""

from collections.abc import Callable
from datetime import datetime
from typing import Protocol, cast

import asyncssh
import structlog
from asyncssh import SSHReader, SSHServer, SSHServerConnection, SSHWriter
from asyncssh.constants import DISC_BY_APPLICATION, OPEN_RESOURCE_SHORTAGE
from asyncssh.stream import SSHServerStreamSession

from ftp_gateway.access.accounts import Account, Passwords
from ftp_gateway.access.defender import Defender
from ftp_gateway.access.quotas import QuotaUsage, QuotaUsages
from ftp_gateway.sftp.app_report_folder import AppReportFolder
from ftp_gateway.sftp.filesystem import SftpFileSystem
from ftp_gateway.sftp.listener import Connection
from ftp_gateway.sftp.packets import PacketHandler
from ftp_gateway.spool.store import Spool
from shared.errors import BusyError
from shared.runtime.slices import Slices

log = structlog.get_logger()

MAX_TRIES = 6
"""Wrong passwords and keys on one connection, as OpenSSH's `MaxAuthTries`."""
MIN_PACKET_BYTES = 4096
"""
Least packet that a client may ask for, because an answer is sent in packets of its size, at once. RFC 4253 asks for
32,768 bytes.
"""
PIECE_BYTES = 4096
"""Size up to which pieces that have come are joined. asyncssh's lists of them take the square of their number."""


class ConnectionHost(Protocol):
    """Port of the server, as its connections see it."""

    spool: Spool
    report_folder: AppReportFolder
    passwords: Passwords
    defender: Defender
    usages: QuotaUsages

    @property
    def clock(self) -> Callable[[], datetime]:
        """Return the time, aware UTC."""
        ...

    def monotonic(self) -> float:
        """Return seconds that only grow."""
        ...

    def account(self, login: str) -> Account | None:
        """Return the user of a login name who may sign in now."""
        ...

    def connection_opened(self, authenticator: "Authenticator", connection: SSHServerConnection) -> None:
        """Count a new connection."""
        ...

    def connection_signed_in(self, connection: SSHServerConnection) -> None:
        """Count a connection as signed in."""
        ...

    def connection_closed(self, authenticator: "Authenticator", connection: SSHServerConnection) -> None:
        """Count a connection as closed."""
        ...

    def session_started(self, filesystem: SftpFileSystem) -> None:
        """Count a new session."""
        ...

    def session_ended(self, filesystem: SftpFileSystem) -> None:
        """Close the handles of a session, and count it as ended."""
        ...


class Authenticator(SSHServer):
    """Authentication and state of one connection, from the first byte to its session."""

    def __init__(self, server: ConnectionHost) -> None:
        self._server = server
        self._connection: Connection | None = None
        self._address = ""
        self._tries = 0
        self._wrong_key_login: str | None = None
        self._credential: str | bytes | None = None
        self._account: Account | None = None
        self._usage: QuotaUsage | None = None
        self._progress_at = server.monotonic()

    def connection_made(self, conn: SSHServerConnection) -> None:
        assert isinstance(conn, Connection)
        self._connection = conn
        self._address = conn.address
        self._server.connection_opened(self, conn)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._usage is not None and self._account is not None:
            self._server.usages.close_session(self._account.login)
        if self._wrong_key_login is not None and self._account is None:
            self._record_failure(self._wrong_key_login, "publickey")
        if self._connection is not None:
            self._server.connection_closed(self, self._connection)

    def begin_auth(self, username: str) -> bool:
        return True

    def password_auth_supported(self) -> bool:
        return True

    def public_key_auth_supported(self) -> bool:
        return True

    async def validate_password(self, username: str, password: str) -> bool:
        # Counted before the work, since a client may send the next password without waiting.
        self._count_try(username)
        account = self._server.account(username)
        if account is not None and not account.allows_address(self._address):
            self._log_refusal(username)
            self._server.defender.record_failure(self._address)
            await self._server.passwords.delay_refusal()
            return False
        stored = account.password_hash if account else None
        if await self._server.passwords.verify(password, stored) and self._is_current_hash(username, stored):
            self._credential = stored
            return True
        self._record_failure(username, "password")
        return False

    def validate_public_key(self, username: str, key: asyncssh.SSHKey) -> bool:
        account = self._server.account(username)
        if account is not None and not account.allows_address(self._address):
            self._log_refusal(username)
        elif account is not None and key.public_data in account.keys:
            self._credential = key.public_data
            return True
        self._wrong_key_login = username
        self._count_try(username)
        return False

    def auth_completed(self) -> None:
        assert self._connection is not None
        # Read again: the user may have been changed during the login.
        self._account = self._server.account(self._connection.get_extra_info("username"))
        self._progress_at = self._server.monotonic()
        self._server.connection_signed_in(self._connection)
        self.recheck()

    def recheck(self) -> None:
        """End the connection if its user, address or credential is no longer valid; adopt changed settings."""
        if self._connection is None or not self._connection.get_extra_info("username"):
            return
        account = self._server.account(self._connection.get_extra_info("username"))
        if account is None:
            self.disconnect("the user is deleted, disabled or expired")
        elif not account.allows_address(self._address):
            self.disconnect("the address is not allowed any more")
        elif self._credential != account.password_hash and self._credential not in account.keys:
            self.disconnect("the password or key that was used is not valid any more")
        else:
            self._account = account

    def check_expiry(self, now: datetime, idle_s: float) -> None:
        """End the connection if its user has expired, or was idle for `idle_s`."""
        if self._account is None:
            return
        if self._account.expired(now):
            self.disconnect("the user is expired")
        elif self._server.monotonic() - self._progress_at > idle_s:
            self.disconnect("nothing was transferred for too long")

    def disconnect(self, reason: str) -> None:
        """Log the reason and end the connection with it."""
        if self._connection is not None:
            login = self._connection.get_extra_info("username")
            log.info("session_ended", login=login, address=self._address, message=reason)
            self._connection.disconnect(DISC_BY_APPLICATION, reason)

    def session_requested(self) -> "SftpSession | bool":
        if self._connection is None or self._usage is not None or self._account is None:
            return False
        try:
            self._usage = self._server.usages.open_session(self._account.login, self._account.quotas)
        except BusyError as error:
            log.warning("session_refused", login=self._account.login, address=self._address, message=error.message)
            raise asyncssh.ChannelOpenError(OPEN_RESOURCE_SHORTAGE, error.message) from None
        log.info("session_started", login=self._account.login, address=self._address)
        return SftpSession(self, self._usage)

    def filesystem(self, channel: "asyncssh.SSHServerChannel[bytes]", usage: QuotaUsage) -> SftpFileSystem:
        """Return the file system of the session."""
        assert self._connection is not None
        return SftpFileSystem(
            channel,
            self._server.spool,
            self._server.report_folder,
            self._current,
            usage,
            self._server.clock(),
            note_progress=self._progress,
            wait_until_read=self._connection.wait_until_read,
        )

    async def serve(self, filesystem: SftpFileSystem, handler: PacketHandler) -> None:
        """Answer the packets of the session until it ends."""
        try:
            await handler.run()
        finally:
            # asyncssh's own clean-up is skipped when the task is cancelled.
            self._server.session_ended(filesystem)

    def session_begins(self, filesystem: SftpFileSystem) -> None:
        self._server.session_started(filesystem)

    def _current(self) -> Account:
        assert self._account is not None
        return self._account

    def _progress(self) -> None:
        self._progress_at = self._server.monotonic()

    def _is_current_hash(self, username: str, stored: str | None) -> bool:
        account = self._server.account(username)
        return account is not None and account.password_hash == stored

    def _log_refusal(self, username: str) -> None:
        log.warning("login_refused", login=username, address=self._address, message="the address is not allowed")

    def _record_failure(self, username: str, method: str) -> None:
        log.warning("login_failed", login=username[:130], address=self._address, method=method)
        self._server.defender.record_failure(self._address)

    def _count_try(self, username: str) -> None:
        self._tries += 1
        if self._tries > MAX_TRIES:
            log.warning("login_tries_exceeded", login=username[:130], address=self._address, tries=MAX_TRIES)
            raise asyncssh.PermissionDenied("Too many authentication failures")
        if self._server.defender.is_banned(self._address):
            raise asyncssh.PermissionDenied("Too many authentication failures")


class _Pieces(list[tuple[bytes, int | None]]):
    """Pieces that have come while the session takes none. Small ones are joined."""

    def append(self, piece: tuple[bytes, int | None]) -> None:
        data, datatype = piece
        if self and self[-1][1] == datatype and len(self[-1][0]) < PIECE_BYTES:
            self[-1] = (self[-1][0] + data, datatype)
        else:
            super().append(piece)


class SftpSession(SSHServerStreamSession[bytes]):
    """The one channel of a connection. Only the `sftp` subsystem is granted."""

    def __init__(self, authenticator: Authenticator, usage: QuotaUsage) -> None:
        super().__init__(None)
        self._authenticator = authenticator
        self._usage = usage
        self._slices = Slices()

    def subsystem_requested(self, subsystem: str) -> bool:
        assert self._chan is not None
        if self._chan._send_pktsize < MIN_PACKET_BYTES:
            log.warning("session_refused", message=f"expected packets of at least {MIN_PACKET_BYTES} bytes")
            return False
        return subsystem == "sftp"

    def connection_made(self, chan: "asyncssh.channel.SSHChannel[bytes]") -> None:
        chan._recv_buf = _Pieces()
        super().connection_made(chan)

    def data_received(self, data: bytes, datatype: int | None) -> None:
        # The handler does not run now, so it begins a slice when it does.
        self._slices.begin()
        pieces = self._recv_buf[datatype]
        if pieces and isinstance(last := pieces[-1], bytes) and len(last) < PIECE_BYTES:
            pieces.pop()
            self._recv_buf_len -= len(last)
            data = last + data
        super().data_received(data, datatype)

    def session_started(self) -> None:
        assert self._chan is not None
        assert self._conn is not None
        channel = cast("asyncssh.SSHServerChannel[bytes]", self._chan)
        filesystem = self._authenticator.filesystem(channel, self._usage)
        handler = PacketHandler(filesystem, SSHReader(self, self._chan), SSHWriter(self, self._chan), self._slices)
        self._authenticator.session_begins(filesystem)
        self._conn.create_task(self._authenticator.serve(filesystem, handler))
