"""Open connections of the HTTP listener: how many, until when, and which one makes room. No I/O."""

from collections.abc import Iterable, Sequence
from typing import Final, Generic, TypeVar

from msgspec import Struct

from shared.client_addresses import Network, is_within, network_of, parse_network
from shared.errors import InvalidError
from shared.runtime.settings import Settings

RESERVED_FILES: Final = 512
"""Descriptors that are left to all else: NATS, stores, files, and a burst of connections before any is counted."""
LOOPBACK: Final = ("127.0.0.0/8", "::1/128")

C = TypeVar("C")


class HttpLimits(Struct, frozen=True, kw_only=True):
    """
    Limits on open connections.

    Args:
        total: Connections in all.
        per_address: Of one IPv4 address or one /64 of IPv6; 0 for no limit.
        exempt: Networks without a limit per address: loopback, and proxies, which bring the requests of many clients.
    """

    total: int
    per_address: int
    exempt: tuple[Network, ...] = ()


def http_limits(settings: Settings, max_files: int) -> HttpLimits:
    """
    The limits of the settings, within the number of files that the process may open.

    Raises:
        InvalidError: A trusted proxy is no address and no network.
    """
    texts = [text for text in settings.http_trusted_proxies.split(",") if text.strip()]
    try:
        exempt = tuple(parse_network(text) for text in (*LOOPBACK, *texts))
    except ValueError as error:
        raise InvalidError(f"expected addresses and networks: {error}", field="http_trusted_proxies") from None
    total = min(settings.http_connections, max(max_files - RESERVED_FILES, max_files // 2))
    # One address never takes the whole listener.
    per_address = min(settings.http_connections_per_address, max(1, total // 2))
    return HttpLimits(total=total, per_address=per_address, exempt=exempt)


class ConnectionTable(Generic[C]):
    """
    Counts connections. Where there is no room, one that waits is closed for a new one: first those that have never
    sent a whole request, then those that are idle between two, the longest waiting first.

    So connections that are opened and left alone keep nobody out. A request in progress is never closed for another.
    """

    def __init__(self, limits: HttpLimits) -> None:
        self._limits = limits
        self._networks: dict[C, str] = {}
        self._by_network: dict[str, dict[C, None]] = {}
        self._new: dict[C, None] = {}
        self._idle: dict[C, None] = {}
        self._deadlines: dict[C, float] = {}

    def __len__(self) -> int:
        return len(self._networks)

    def add(self, connection: C, address: str, until: float) -> C | None:
        """
        Count a connection, which has until then to send its first request.

        Returns:
            The connection to close for it, which is not counted any more; itself where no other one waits.
        """
        network = "" if is_within(address, self._limits.exempt) else network_of(address)
        of_network = self._by_network.get(network, {}) if network else {}
        closed: C | None = None
        if network and 0 < self._limits.per_address <= len(of_network):
            closed = self._longest_waiting(of_network)
        elif len(self._networks) >= self._limits.total:
            closed = next(iter(self._new), next(iter(self._idle), None))
        else:
            self._count(connection, network, until)
            return None
        if closed is None:
            return connection
        self.remove(closed)
        self._count(connection, network, until)
        return closed

    def set_busy(self, connection: C) -> None:
        """A whole request has come, and is answered."""
        self._new.pop(connection, None)
        self._idle.pop(connection, None)
        self._deadlines.pop(connection, None)

    def set_idle(self, connection: C, until: float) -> None:
        """The answer is sent; the next request may come until then."""
        if connection in self._networks:
            self._idle[connection] = None
            self._deadlines[connection] = until

    def set_deadline(self, connection: C, until: float) -> None:
        """The connection is to be closed then."""
        if connection in self._networks:
            self._deadlines[connection] = until

    def expired(self, now: float) -> list[C]:
        """Connections whose deadline has passed."""
        return [connection for connection, until in self._deadlines.items() if until <= now]

    def waiting(self) -> Sequence[C]:
        """Connections without a request, in the order in which they make room."""
        return [*self._new, *self._idle]

    def remove(self, connection: C) -> None:
        """Stop counting a connection. One that is not counted is ignored."""
        network = self._networks.pop(connection, "")
        self.set_busy(connection)
        if network:
            del self._by_network[network][connection]
            if not self._by_network[network]:
                del self._by_network[network]

    def _count(self, connection: C, network: str, until: float) -> None:
        self._networks[connection] = network
        self._new[connection] = None
        self._deadlines[connection] = until
        if network:
            self._by_network.setdefault(network, {})[connection] = None

    def _longest_waiting(self, connections: Iterable[C]) -> C | None:
        idle = None
        for connection in connections:
            if connection in self._new:
                return connection
            if idle is None and connection in self._idle:
                idle = connection
        return idle
