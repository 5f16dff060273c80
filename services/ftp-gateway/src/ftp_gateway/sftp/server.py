"""
The SFTP server: the listener, its host keys, and everybody who is connected.

Configuration: `MILLRACE_SFTP_*`; port 0 takes a free port, which is announced.
Implementation: asyncio listens; `sftp_entrance` lets in, `sftp_gate` signs in and serves. What changes in the
    configuration, users or host keys, is taken over at once.
"""

import asyncio
import resource
from collections.abc import Callable
from datetime import datetime
from types import TracebackType

import asyncssh
import structlog
from asyncssh import SSHServerConnection

from ftp_gateway.access.accounts import Account, Find, Passwords, split_login
from ftp_gateway.access.addresses import Network
from ftp_gateway.access.defender import Defender
from ftp_gateway.access.host_keys import HostKeys
from ftp_gateway.access.quotas import QuotaUsages
from ftp_gateway.sftp.authentication import Authenticator
from ftp_gateway.sftp.connection_limits import ConnectionLimits
from ftp_gateway.sftp.filesystem import SftpFileSystem
from ftp_gateway.sftp.host_key_algorithms import ENCRYPTION, KEX, MACS, SIGNATURES, loaded, offer_sha2_alone
from ftp_gateway.sftp.listener import Listener, ListeningSocket
from ftp_gateway.sftp.packets import check_hooks
from ftp_gateway.sftp.report_folder import ReportFolder
from ftp_gateway.spool.store import Spool
from shared.errors import UnavailableError
from shared.runtime.settings import Settings
from shared.runtime.telemetry import Metrics

log = structlog.get_logger()

BACKLOG = 1024
KEEPALIVE_S = 30
LOOK_S = 0.5
"""How often it is looked for who is idle or has expired."""
GRACE_S = 10.0
"""How long an open upload may still take when the service stops. Then it is a part, to be resumed after the restart."""


class SftpServer:
    """
    The server, which listens while it is entered as an async context manager. `close` and `join` are those of
    `shared.service.Intake`; `keep` is a task of the service.

    Args:
        proxies: Who must send a PROXY header.
        find: An enabled user, as the configuration is now.
        host_keys: The host keys, as they are now.
        clock: Aware UTC.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        proxies: tuple[Network, ...],
        spool: Spool,
        app_reports: ReportFolder,
        find: Find,
        passwords: Passwords,
        defender: Defender,
        host_keys: Callable[[], HostKeys],
        metrics: Metrics,
        clock: Callable[[], datetime],
    ) -> None:
        self.spool = spool
        self.app_reports = app_reports
        self.passwords = passwords
        self.defender = defender
        self.clock = clock
        self.monotonic = asyncio.get_running_loop().time
        self.usages = QuotaUsages(self._waiting_of, self.monotonic)
        self._settings = settings
        self._find = find
        self._host_keys = host_keys
        self._metrics = metrics
        self._gates: dict[SSHServerConnection, Authenticator] = {}
        self._trees: set[SftpFileSystem] = set()
        self._changed = asyncio.Event()
        self._crowd = ConnectionLimits(settings.sftp_connections, settings.sftp_connections_per_address)
        self._door = ListeningSocket(
            proxies=proxies,
            crowd=self._crowd,
            banned=defender.banned,
            options=lambda: self._options,
            metrics=metrics,
        )
        self._shown: HostKeys | None = None
        self._listener: asyncio.Server | None = None

    async def __aenter__(self) -> "SftpServer":
        """Raises `UnavailableError` when the port is taken, or this asyncssh is not the one we know."""
        check_hooks()
        _allow_many_files()
        await self._load_keys()
        host, port = self._settings.sftp_host, self._settings.sftp_port
        try:
            self._listener = await asyncio.get_running_loop().create_server(
                lambda: Listener(self._door), host, port, backlog=BACKLOG
            )
        except OSError as error:
            raise UnavailableError(f"SFTP cannot listen on {host}:{port}: {error.strerror}") from None
        log.info("sftp_listens", address=self.address)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
        await self.join()

    @property
    def address(self) -> str:
        """Where it listens: `host:port`."""
        assert self._listener is not None
        host, port = self._listener.sockets[0].getsockname()[:2]
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    async def keep(self) -> None:
        """Take over new host keys, and end sessions whose time is over, for ever."""
        while True:
            await asyncio.sleep(LOOK_S)
            if self._host_keys() is not self._shown:
                await self._load_keys()
            now = self.clock()
            for gate in list(self._gates.values()):
                gate.check_time(now, self._settings.sftp_idle_s)

    def recheck(self) -> None:
        """Users have changed: whoever may not be here any more has to go."""
        for gate in list(self._gates.values()):
            gate.recheck()

    async def _load_keys(self) -> None:
        known = self._host_keys()
        keys = await asyncio.to_thread(loaded, known)
        self._options = asyncssh.SSHServerConnectionOptions(
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
            login_timeout=self._settings.sftp_login_s,
            keepalive_interval=KEEPALIVE_S,
            keepalive_count_max=3,
            sftp_version=3,
        )
        offer_sha2_alone(self._options, keys)
        self._shown = known
        shown = [key.fingerprint for generation in known.ordered for key in generation.keys]
        log.info("host_keys", in_use=known.in_use, fingerprints=shown)

    def _waiting_of(self, login: str) -> tuple[int, int]:
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
        """The user of a login name who may sign in now."""
        parts = split_login(login)
        account = self._find(*parts) if parts else None
        return account if account is not None and not account.expired(self.clock()) else None

    def arrive(self, gate: Authenticator, connection: SSHServerConnection) -> None:
        """A connection is there."""
        self._gates[connection] = gate

    def sign_in(self, connection: SSHServerConnection) -> None:
        """It has signed in."""
        self._crowd.sign_in(connection)

    def leave(self, gate: Authenticator, connection: SSHServerConnection) -> None:
        """It is gone."""
        self._gates.pop(connection, None)
        self._crowd.leave(connection)
        self._changed.set()

    def begin(self, tree: SftpFileSystem) -> None:
        """A session has begun."""
        self._trees.add(tree)
        self._metrics.gauge("millrace_ftp_sessions", len(self._trees))

    def end(self, tree: SftpFileSystem) -> None:
        """A session is over; no handle of it is left."""
        tree.exit()
        self._trees.discard(tree)
        self._metrics.gauge("millrace_ftp_sessions", len(self._trees))
        self._changed.set()

    def close(self) -> None:
        """Take no new connections."""
        if self._listener is not None:
            self._listener.close()
        self._door.close()

    async def join(self) -> None:
        """Let open uploads end for a while, then close the connections."""
        try:
            async with asyncio.timeout(GRACE_S):
                await self._wait_until(lambda: not any(tree.uploading for tree in self._trees))
        except TimeoutError:
            log.warning("uploads_cut_off", sessions=len(self._trees))
        for connection in list(self._gates):
            connection.close()
        await self._wait_until(lambda: not self._gates and not self._trees)

    async def _wait_until(self, holds: Callable[[], bool]) -> None:
        while not holds():
            self._changed.clear()
            # A closed handle wakes nobody, so look again soon.
            try:
                async with asyncio.timeout(0.1):
                    await self._changed.wait()
            except TimeoutError:
                continue


def _allow_many_files() -> None:
    """Every session may hold files open; the usual soft limit of 1024 would stop all logins."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = min(hard, 65_536) if hard != resource.RLIM_INFINITY else 65_536
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
