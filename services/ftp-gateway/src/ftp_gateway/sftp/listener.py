"""
Admission of SFTP connections: PROXY header, ban and limits, then the start of SSH.

Configuration: `MILLRACE_SFTP_PROXIES` (networks that must send a PROXY header), `MILLRACE_SFTP_CONNECTIONS`,
    `MILLRACE_SFTP_CONNECTIONS_PER_ADDRESS`.
Implementation: an asyncio protocol takes the first bytes, and then hands the transport to a connection of asyncssh
    (`set_protocol`). Bans and limits are checked before SSH says a word, so they cost no key exchange.
Considerations: paramiko asks for the authentication service again before each try, so also for a password after a key
    that was refused. OpenSSH's server allows it; asyncssh takes it for an error and would end the connection.
    asyncssh does not heed `pause_writing`, so answers to a client that reads none would pile up in memory. Nothing more
    is read from such a client until it reads. It also handles all packets that have come in one callback: 256 KiB hold
    7,000 of them. So a connection has turns of `SLICE_S`, and nothing more is read from it until its next turn.
"""

import asyncio
from collections.abc import Callable, Sequence
from time import perf_counter
from typing import Literal, cast

import asyncssh
import structlog
from asyncssh import SSHServerConnection
from asyncssh.constants import MSG_SERVICE_REQUEST
from asyncssh.packet import SSHPacket

from ftp_gateway.sftp.asyncssh_internals import packet_handlers
from ftp_gateway.sftp.connection_limits import ConnectionLimits
from ftp_gateway.sftp.proxy_protocol import read_header
from shared.client_addresses import Network, is_within
from shared.errors import InvalidError
from shared.runtime.slices import SLICE_S
from shared.runtime.telemetry import Metrics

log = structlog.get_logger()

HEADER_S = 3.0
"""Time limit of a proxy's header."""
MAX_HEADERS = 256
"""Connections from proxies whose header has not come yet."""
MAX_UNREAD_BYTES = 256 * 1024
"""Answers that a client has not read, beyond what the operating system holds."""
MAX_UNHANDLED_BYTES = 1 << 20
"""Bytes of a client that wait, as while its password is checked. More than the longest packet and one read."""

PauseReason = Literal["unread", "unhandled", "turn"]


def _service_requested(self: SSHServerConnection, kind: int, number: int, packet: SSHPacket) -> None:
    if self._auth_in_progress and not self._auth_complete:
        self._next_service = b"ssh-userauth"
    self._process_service_request(kind, number, packet)


_HANDLERS = {**packet_handlers(SSHServerConnection), MSG_SERVICE_REQUEST: _service_requested}


class Connection(SSHServerConnection):
    """One SSH connection from `address`, which is not the address of its peer behind a proxy."""

    _packet_handlers = _HANDLERS

    def __init__(self, options: asyncssh.SSHServerConnectionOptions, address: str) -> None:
        super().__init__(asyncio.get_running_loop(), options)
        self.address = address
        self._read_by_client = asyncio.Event()
        self._read_by_client.set()
        self._socket: asyncio.Transport | None = None
        self._pauses: set[PauseReason] = set()
        self._turn_ends_at = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._socket = cast(asyncio.Transport, transport)
        self._socket.set_write_buffer_limits(high=MAX_UNREAD_BYTES)
        super().connection_made(transport)

    def pause_writing(self) -> None:
        self._read_by_client.clear()
        self._pause_reading("unread")

    def resume_writing(self) -> None:
        self._read_by_client.set()
        self._resume_reading("unread")

    def data_received(self, data: bytes, datatype: int | None = None) -> None:
        self._turn_ends_at = perf_counter() + SLICE_S
        super().data_received(data, datatype)
        if len(self._inpbuf) > MAX_UNHANDLED_BYTES:
            self._pause_reading("unhandled")

    def _recv_pkthdr(self) -> bool:
        """As asyncssh's, at the beginning of a packet: False ends the callback, and the next turn goes on."""
        if "turn" in self._pauses:
            return False
        if perf_counter() > self._turn_ends_at:
            self._pause_reading("turn")
            self._loop.call_soon(self._take_turn)
            return False
        if "unhandled" in self._pauses and len(self._inpbuf) <= MAX_UNHANDLED_BYTES:
            self._resume_reading("unhandled")
        return super()._recv_pkthdr()

    def _take_turn(self) -> None:
        self._pauses.discard("turn")
        self._turn_ends_at = perf_counter() + SLICE_S
        self._recv_data()
        if "turn" not in self._pauses:
            self._resume_reading("turn")

    def _pause_reading(self, reason: PauseReason) -> None:
        self._pauses.add(reason)
        if self._socket is not None:
            self._socket.pause_reading()

    def _resume_reading(self, reason: PauseReason) -> None:
        self._pauses.discard(reason)
        if self._socket is not None and not self._pauses:
            self._socket.resume_reading()

    def connection_lost(self, exc: Exception | None = None) -> None:
        self._read_by_client.set()
        super().connection_lost(exc)

    async def wait_until_read(self) -> None:
        """Return when the client has read what was sent, or has disconnected."""
        await self._read_by_client.wait()


class ConnectionAdmission:
    """
    Checks that every new connection passes.

    Args:
        proxies: Networks that must send the client's address, and are believed.
        banned: Whether an address is banned.
        options: Returns the present SSH options.
    """

    def __init__(
        self,
        *,
        proxies: Sequence[Network],
        limits: ConnectionLimits,
        banned: Callable[[str], bool],
        options: Callable[[], asyncssh.SSHServerConnectionOptions],
        metrics: Metrics,
    ) -> None:
        self._proxies = proxies
        self._limits = limits
        self._banned = banned
        self._options = options
        self._metrics = metrics
        self._pending: dict[PendingConnection, None] = {}

    def is_proxy(self, peer: str) -> bool:
        return bool(self._proxies) and is_within(peer, self._proxies)

    def header_expected(self, pending: "PendingConnection") -> None:
        """Keep a proxy's connection until its header comes. One too many ends the one that has waited longest."""
        self._pending[pending] = None
        if len(self._pending) > MAX_HEADERS:
            next(iter(self._pending)).refuse("header")

    def header_done(self, pending: "PendingConnection") -> None:
        """Stop waiting for the header of a connection."""
        self._pending.pop(pending, None)

    def admit(self, address: str) -> Connection | None:
        """Return the SSH connection for an address; None if it is banned or over a limit."""
        if self._banned(address):
            self.count_refusal("banned")
            return None
        if not self._limits.has_room(address):
            self.count_refusal("crowded")
            return None
        connection = Connection(self._options(), address)

        def disconnect() -> None:
            self.count_refusal("strangers")
            connection.abort()

        self._limits.add(connection, address, disconnect)
        return connection

    def count_refusal(self, reason: str) -> None:
        self._metrics.count("millrace_ftp_refused_total", reason=reason)

    def close(self) -> None:
        """Refuse the connections whose header has not come."""
        for pending in list(self._pending):
            pending.refuse("closing")


class PendingConnection(asyncio.Protocol):
    """A new connection, until SSH takes over."""

    def __init__(self, admission: ConnectionAdmission) -> None:
        self._admission = admission
        self._transport: asyncio.Transport | None = None
        self._peer = ""
        self._header = b""
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        peer = transport.get_extra_info("peername")
        if not peer:
            # Disconnected before it was accepted.
            self._transport.abort()
            return
        self._peer = str(peer[0])
        if not self._admission.is_proxy(self._peer):
            self._start_ssh(self._peer, b"")
            return
        self._timer = asyncio.get_running_loop().call_later(HEADER_S, self.refuse, "header")
        self._admission.header_expected(self)

    def data_received(self, data: bytes) -> None:
        self._header += data
        try:
            header = read_header(self._header)
        except InvalidError as error:
            log.warning("proxy_header_refused", address=self._peer, message=error.message)
            self.refuse("header")
            return
        if header is not None:
            self._stop_waiting()
            self._start_ssh(header.address or self._peer, self._header[header.size :])

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()

    def refuse(self, reason: str) -> None:
        """Close without an answer."""
        self._stop_waiting()
        self._admission.count_refusal(reason)
        if self._transport is not None:
            self._transport.abort()

    def _stop_waiting(self) -> None:
        self._admission.header_done(self)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _start_ssh(self, address: str, rest: bytes) -> None:
        assert self._transport is not None
        connection = self._admission.admit(address)
        if connection is None:
            self._transport.abort()
            return
        self._transport.set_protocol(connection)
        connection.connection_made(self._transport)
        if rest:
            connection.data_received(rest)
