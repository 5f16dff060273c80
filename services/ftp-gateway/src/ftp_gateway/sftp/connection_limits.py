"""Limits on open connections: in all, from one address, and of those that have not signed in. No I/O."""

from collections.abc import Callable

from shared.client_addresses import network_of


class ConnectionLimits:
    """
    Limits on open connections.

    Connections that have not signed in may be half of all. One more ends the oldest of them, so connections that are
    opened and left alone keep no client out.

    Args:
        max_connections: Connections in all.
        max_per_address: Of one IPv4 address, or of one /64 of IPv6.
    """

    def __init__(self, max_connections: int, max_per_address: int) -> None:
        self._max_connections = max_connections
        self._max_per_address = max_per_address
        self._networks: dict[object, str] = {}
        self._unauthenticated: dict[object, Callable[[], None]] = {}
        self._by_network: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._networks)

    def has_room(self, address: str) -> bool:
        """Return whether one more connection may come from an address."""
        if len(self._networks) >= self._max_connections:
            return False
        return self._by_network.get(network_of(address), 0) < self._max_per_address

    def add(self, connection: object, address: str, disconnect: Callable[[], None]) -> None:
        """
        Count a connection, for which there is room.

        Args:
            disconnect: Ends the connection, if it has not signed in by the time that others need its slot.
        """
        network = network_of(address)
        self._networks[connection] = network
        self._by_network[network] = self._by_network.get(network, 0) + 1
        self._unauthenticated[connection] = disconnect
        if len(self._unauthenticated) > max(1, self._max_connections // 2):
            oldest = next(iter(self._unauthenticated))
            self._unauthenticated.pop(oldest)()

    def mark_signed_in(self, connection: object) -> None:
        """Stop counting a connection as one that has not signed in."""
        self._unauthenticated.pop(connection, None)

    def remove(self, connection: object) -> None:
        """Stop counting a connection. One that was never counted is ignored."""
        network = self._networks.pop(connection, None)
        self._unauthenticated.pop(connection, None)
        if network is None:
            return
        self._by_network[network] -= 1
        if not self._by_network[network]:
            del self._by_network[network]
