"""
The SFTP server: listener, host key, sign-in, and one session for each connection.

Configuration: `MILLRACE_SFTP_HOST`, `MILLRACE_SFTP_PORT` (0 takes a free port, which is announced).
Implementation: asyncssh without its session factories: a connection may ask for one session, whose `sftp` subsystem is
    our `PacketHandler` on our `Tree`. Shell, exec, scp, pty and every forwarding are refused, because nothing grants
    them.
Considerations: asyncssh has no limit of tries for a connection: 300 wrong passwords reached the check in 0.16 s.
"""

import asyncio
import resource
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import cast

import asyncssh
import structlog
from asyncssh import SSHReader, SSHServer, SSHServerConnection, SSHWriter
from asyncssh.stream import SSHServerStreamSession

from ftp_gateway.accounts import Account, Find, Passwords, split_login
from ftp_gateway.protocols.sftp_keys import ENCRYPTION, KEX, MACS, SIGNATURES, load_host_key
from ftp_gateway.protocols.sftp_tree import Tree
from ftp_gateway.protocols.sftp_wire import PacketHandler, check_hooks
from ftp_gateway.spool import Spool
from shared.errors import UnavailableError
from shared.telemetry import Metrics

log = structlog.get_logger()

MAX_TRIES = 6
"""Wrong passwords and keys on one connection, as OpenSSH's `MaxAuthTries`."""
MAX_CONNECTIONS = 512
LOGIN_TIMEOUT_S = 20
KEEPALIVE_S = 30
GRACE_S = 10.0
"""How long an open upload may still take when the service stops. Then it is a part, to be resumed after the restart."""


class SftpServer:
    """
    The running server. `close` and `join` are those of `shared.service.Intake`.

    Args:
        find: An enabled user, as the configuration is now.
        clock: Aware UTC.
    """

    def __init__(
        self, spool: Spool, find: Find, passwords: Passwords, metrics: Metrics, clock: Callable[[], datetime]
    ) -> None:
        self.spool = spool
        self.passwords = passwords
        self.clock = clock
        self._find = find
        self._metrics = metrics
        self._connections: set[SSHServerConnection] = set()
        self._trees: set[Tree] = set()
        self._changed = asyncio.Event()
        self._acceptor: asyncssh.SSHAcceptor | None = None

    @property
    def address(self) -> str:
        """Where it listens: `host:port`."""
        assert self._acceptor is not None
        host, port = self._acceptor.sockets[0].getsockname()[:2]
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    async def listen(self, host: str, port: int, host_key: asyncssh.SSHKey) -> None:
        """Raises `UnavailableError` when the port is taken."""
        try:
            self._acceptor = await asyncssh.listen(
                host,
                port,
                config=None,
                server_factory=lambda: Gate(self),
                server_host_keys=[host_key],
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
                login_timeout=LOGIN_TIMEOUT_S,
                keepalive_interval=KEEPALIVE_S,
                keepalive_count_max=3,
                sftp_version=3,
            )
        except OSError as error:
            raise UnavailableError(f"SFTP cannot listen on {host}:{port}: {error.strerror}") from None

    async def ping(self) -> None:
        """Raises `UnavailableError` when it does not listen."""
        if self._acceptor is None:
            raise UnavailableError("SFTP does not listen")

    def account(self, login: str) -> Account | None:
        """The enabled user of a login name."""
        parts = split_login(login)
        return self._find(*parts) if parts else None

    def arrive(self, connection: SSHServerConnection) -> bool:
        """Count a connection; gives False when there are too many."""
        if len(self._connections) >= MAX_CONNECTIONS:
            return False
        self._connections.add(connection)
        return True

    def leave(self, connection: SSHServerConnection) -> None:
        self._connections.discard(connection)
        self._changed.set()

    def begin(self, tree: Tree) -> None:
        """A session has begun."""
        self._trees.add(tree)
        self._metrics.gauge("millrace_ftp_sessions", len(self._trees))

    def end(self, tree: Tree) -> None:
        """A session is over; no handle of it is left."""
        tree.exit()
        self._trees.discard(tree)
        self._metrics.gauge("millrace_ftp_sessions", len(self._trees))
        self._changed.set()

    def close(self) -> None:
        """Take no new connections."""
        if self._acceptor is not None:
            self._acceptor.close()

    async def join(self) -> None:
        """Let open uploads end for a while, then close the connections."""
        try:
            async with asyncio.timeout(GRACE_S):
                await self._wait_until(lambda: not any(tree.uploading for tree in self._trees))
        except TimeoutError:
            log.warning("uploads_cut_off", sessions=len(self._trees))
        for connection in list(self._connections):
            connection.close()
        await self._wait_until(lambda: not self._connections and not self._trees)

    async def _wait_until(self, holds: Callable[[], bool]) -> None:
        while not holds():
            self._changed.clear()
            # A closed handle wakes nobody, so look again soon.
            try:
                async with asyncio.timeout(0.1):
                    await self._changed.wait()
            except TimeoutError:
                continue


class Gate(SSHServer):
    """One connection, from the first byte to its session."""

    def __init__(self, server: SftpServer) -> None:
        self._server = server
        self._connection: SSHServerConnection | None = None
        self._address = ""
        self._tries = 0
        self._has_session = False

    def connection_made(self, conn: SSHServerConnection) -> None:
        self._connection = conn
        self._address = str(conn.get_extra_info("peername", ("",))[0])
        if not self._server.arrive(conn):
            log.warning("connection_refused", address=self._address, message="too many connections")
            conn.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._connection is not None:
            self._server.leave(self._connection)

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
        if account is not None and not account.admits(self._address):
            log.warning("login_refused", login=username, address=self._address, message="the address is not allowed")
            await self._server.passwords.waste_time()
            return False
        if await self._server.passwords.verify(password, account.password_hash if account else None):
            return True
        log.warning("login_failed", login=username[:130], address=self._address, method="password")
        return False

    def validate_public_key(self, username: str, key: asyncssh.SSHKey) -> bool:
        account = self._server.account(username)
        if account is not None and account.admits(self._address) and key.public_data in account.keys:
            return True
        self._count_try(username)
        return False

    def _count_try(self, username: str) -> None:
        self._tries += 1
        if self._tries > MAX_TRIES:
            log.warning("login_given_up", login=username[:130], address=self._address, tries=MAX_TRIES)
            raise asyncssh.PermissionDenied("Too many authentication failures")

    def session_requested(self) -> "Session | bool":
        if self._connection is None or self._has_session:
            return False
        # Read anew: the user may have been disabled between sign-in and session.
        account = self._server.account(self._connection.get_extra_info("username"))
        if account is None:
            return False
        self._has_session = True
        log.info("session_begun", login=account.login, address=self._address)
        return Session(self._server, account)


class Session(SSHServerStreamSession[bytes]):
    """The one channel of a connection: only the `sftp` subsystem is granted."""

    def __init__(self, server: SftpServer, account: Account) -> None:
        super().__init__(None)
        self._server = server
        self._account = account

    def subsystem_requested(self, subsystem: str) -> bool:
        return subsystem == "sftp"

    def session_started(self) -> None:
        assert self._chan is not None
        assert self._conn is not None
        channel = cast("asyncssh.SSHServerChannel[bytes]", self._chan)
        tree = Tree(channel, self._server.spool, self._account, self._server.clock())
        handler = PacketHandler(tree, SSHReader(self, self._chan), SSHWriter(self, self._chan), 3)
        self._server.begin(tree)
        self._conn.create_task(self._serve(tree, handler))

    async def _serve(self, tree: Tree, handler: PacketHandler) -> None:
        try:
            await handler.run()
        finally:
            # asyncssh's own clean-up is skipped when the task is cancelled.
            self._server.end(tree)


@asynccontextmanager
async def open_sftp(
    host: str,
    port: int,
    *,
    directory: Path,
    spool: Spool,
    find: Find,
    passwords: Passwords,
    metrics: Metrics,
    clock: Callable[[], datetime],
) -> AsyncIterator[SftpServer]:
    """
    Listen, with the host key in the directory.

    Raises:
        UnavailableError: The port is taken, or this asyncssh is not the one we know.
    """
    check_hooks()
    _allow_many_files()
    key = await asyncio.to_thread(load_host_key, directory / "host_key")
    server = SftpServer(spool, find, passwords, metrics, clock)
    await server.listen(host, port, key)
    log.info("sftp_listens", address=server.address, host_key=key.get_fingerprint())
    try:
        yield server
    finally:
        server.close()
        await server.join()


def _allow_many_files() -> None:
    """Every session may hold files open; the usual soft limit of 1024 would stop all logins."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = min(hard, 65_536) if hard != resource.RLIM_INFINITY else 65_536
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
