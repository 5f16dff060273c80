"""
SFTP server: its socket, its host keys, and its open connections.

Configuration: `MILLRACE_SFTP_*`; port 0 takes a free port, which is announced.
Implementation: asyncio listens, `listener` admits, `authentication` signs in and serves. Changes of users and host keys
    in the configuration hold at once.
"""

import asyncio
from collections.abc import Callable
from datetime import datetime
from types import TracebackType

import asyncssh
import structlog
from asyncssh import SSHServerConnection
from msgspec import Struct

from ftp_gateway.access.accounts import Account, FindAccount, Passwords, split_login
from ftp_gateway.access.defender import Defender
from ftp_gateway.access.host_keys import HostKeys
from ftp_gateway.access.quotas import QuotaUsages
from ftp_gateway.sftp.app_report_folder import AppReportFolder
from ftp_gateway.sftp.asyncssh_internals import check_internals
from ftp_gateway.sftp.authentication import Authenticator
from ftp_gateway.sftp.connection_limits import ConnectionLimits
from ftp_gateway.sftp.filesystem import SftpFileSystem
from ftp_gateway.sftp.host_key_algorithms import (
    ENCRYPTION,
    KEX,
    MACS,
    SIGNATURES,
    load_private_keys,
    restrict_rsa_to_sha2,
)
from ftp_gateway.sftp.listener import ConnectionAdmission, PendingConnection
from ftp_gateway.spool.store import Spool
from shared.client_addresses import Network
from shared.errors import UnavailableError
from shared.runtime.telemetry import Metrics

log = structlog.get_logger()

BACKLOG = 1024
KEEPALIVE_S = 30
CHECK_INTERVAL_S = 0.5
"""Interval of the check for idle and expired sessions."""
GRACE_S = 10.0
"""Time that open uploads get when the service stops. Then they are broken off, to be resumed after the restart."""


class ServerOptions(Struct, frozen=True, kw_only=True):
    """
    Parts of the service that the SFTP server works with, and its settings.

    `connections` may be open at a time, and `connections_per_address` from one address. A connection has `login_s` to
    sign in; a session ends after it was idle for `idle_s`. Port 0 takes a free port.

    `proxies` are the networks whose connections begin with a PROXY header. `find_account` returns an enabled user, and
    `host_keys` the host keys, as the configuration is now. `clock` returns aware UTC.
    """

    host: str
    port: int
    connections: int
    connections_per_address: int
    login_s: float
    idle_s: float
    proxies: tuple[Network, ...]
    spool: Spool
    report_folder: AppReportFolder
    find_account: FindAccount
    passwords: Passwords
    defender: Defender
    host_keys: Callable[[], HostKeys]
    metrics: Metrics
    clock: Callable[[], datetime]


class SftpServer:
    """
    SFTP server, which listens while it is entered as an async context manager.

    `close` and `join` are those of `shared.service.Intake`; `run` is a task of the service.
    """

    def __init__(self, options: ServerOptions) -> None:
        self.spool = options.spool
        self.report_folder = options.report_folder
        self.passwords = options.passwords
        self.defender = options.defender
        self.clock = options.clock
        self.monotonic = asyncio.get_running_loop().time
        self.usages = QuotaUsages(self._waiting_of_login, self.monotonic)
        self._host, self._port = options.host, options.port
        self._login_s, self._idle_s = options.login_s, options.idle_s
        self._find_account = options.find_account
        self._host_keys = options.host_keys
        self._metrics = options.metrics
        self._authenticators: dict[SSHServerConnection, Authenticator] = {}
        self._filesystems: set[SftpFileSystem] = set()
        self._changed = asyncio.Event()
        self._limits = ConnectionLimits(options.connections, options.connections_per_address)
        self._admission = ConnectionAdmission(
            proxies=options.proxies,
            limits=self._limits,
            banned=self.defender.is_banned,
            options=lambda: self._ssh_options,
            metrics=self._metrics,
        )
        self._loaded_host_keys: HostKeys | None = None
        self._listener: asyncio.Server | None = None

    async def __aenter__(self) -> "SftpServer":
        """Raises `UnavailableError` when the port is taken, or asyncssh lacks a name that we use."""
        check_internals()
        await self._load_keys()
        host, port = self._host, self._port
        try:
            self._listener = await asyncio.get_running_loop().create_server(
                lambda: PendingConnection(self._admission), host, port, backlog=BACKLOG
            )
        except OSError as error:
            raise UnavailableError(f"SFTP cannot listen on {host}:{port}: {error.strerror}") from None
        log.info("sftp_server_started", address=self.address)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
        await self.join()

    @property
    def address(self) -> str:
        """The address it listens on: `host:port`."""
        assert self._listener is not None
        host, port = self._listener.sockets[0].getsockname()[:2]
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    async def run(self) -> None:
        """Adopt new host keys, and end sessions that are idle or expired, for ever."""
        while True:
            await asyncio.sleep(CHECK_INTERVAL_S)
            if self._host_keys() is not self._loaded_host_keys:
                await self._load_keys()
            now = self.clock()
            for authenticator in list(self._authenticators.values()):
                authenticator.check_expiry(now, self._idle_s)

    def recheck(self) -> None:
        """End the connections whose users have changed and may no longer be connected."""
        for authenticator in list(self._authenticators.values()):
            authenticator.recheck()

    async def _load_keys(self) -> None:
        known = self._host_keys()
        keys = await asyncio.to_thread(load_private_keys, known)
        self._ssh_options = asyncssh.SSHServerConnectionOptions(
            config=None,
            server_factory=lambda: Authenticator(self),
            server_host_keys=keys,
            send_server_host_keys=True,
            server_version="Millrace",
            kex_algs=KEX,
            encryption_algs=ENCRYPTION,
            mac_algs=MACS,
            signature_algs=SIGNATURES,
            compression_algs=("none",),
            encoding=None,
            line_editor=False,
            allow_pty=False,
            allow_scp=False,
            agent_forwarding=False,
            gss_host=None,
            host_based_auth=False,
            kbdint_auth=False,
            login_timeout=self._login_s,
            keepalive_interval=KEEPALIVE_S,
            keepalive_count_max=3,
            sftp_version=3,
        )
        restrict_rsa_to_sha2(self._ssh_options, keys)
        self._loaded_host_keys = known
        shown = [key.fingerprint for generation in known.ordered for key in generation.keys]
        log.info("host_keys_loaded", in_use=known.in_use, fingerprints=shown)

    def _waiting_of_login(self, login: str) -> tuple[int, int]:
        parts = split_login(login)
        assert parts is not None, "he has signed in"
        app_key, name = parts
        sizes = [upload.size_bytes for upload in self.spool.waiting(app_key) if upload.info.user == name]
        return len(sizes), sum(sizes)

    async def ping(self) -> None:
        """Raises `UnavailableError` when it does not listen."""
        if self._listener is None:
            raise UnavailableError("SFTP does not listen")

    def account(self, login: str) -> Account | None:
        """Return the user of a login name who may sign in now."""
        parts = split_login(login)
        account = self._find_account(*parts) if parts else None
        return account if account is not None and not account.expired(self.clock()) else None

    def connection_opened(self, authenticator: Authenticator, connection: SSHServerConnection) -> None:
        """Count a new connection."""
        self._authenticators[connection] = authenticator

    def connection_signed_in(self, connection: SSHServerConnection) -> None:
        """Count a connection as signed in."""
        self._limits.mark_signed_in(connection)

    def connection_closed(self, authenticator: Authenticator, connection: SSHServerConnection) -> None:
        """Count a connection as closed."""
        self._authenticators.pop(connection, None)
        self._limits.remove(connection)
        self._changed.set()

    def session_started(self, filesystem: SftpFileSystem) -> None:
        """Count a new session."""
        self._filesystems.add(filesystem)
        self._metrics.gauge("millrace_ftp_sessions", len(self._filesystems))

    def session_ended(self, filesystem: SftpFileSystem) -> None:
        """Close the handles of a session, and count it as ended."""
        filesystem.exit()
        self._filesystems.discard(filesystem)
        self._metrics.gauge("millrace_ftp_sessions", len(self._filesystems))
        self._changed.set()

    def close(self) -> None:
        """Take no new connections."""
        if self._listener is not None:
            self._listener.close()
        self._admission.close()

    async def join(self) -> None:
        """Wait a while for open uploads, then close the connections."""
        try:
            async with asyncio.timeout(GRACE_S):
                await self._wait_until(lambda: not any(filesystem.uploading for filesystem in self._filesystems))
        except TimeoutError:
            log.warning("uploads_interrupted", sessions=len(self._filesystems))
        for connection in list(self._authenticators):
            connection.close()
        await self._wait_until(lambda: not self._authenticators and not self._filesystems)

    async def _wait_until(self, holds: Callable[[], bool]) -> None:
        while not holds():
            self._changed.clear()
            # A closed handle sets no event, so check again soon.
            try:
                async with asyncio.timeout(0.1):
                    await self._changed.wait()
            except TimeoutError:
                continue
