"""
How many connections there are: in all, from one address, and of those that have not signed in. No I/O.
"""

from collections.abc import Callable

from ftp_gateway.access.addresses import network_of


class ConnectionLimits:
    """
    Everybody who is connected.

    Who has not signed in may take half of the places. One more takes the place of the one who has tried for longest: so
    connections that are opened and left alone keep nobody out.

    Args:
        most: Connections in all.
        most_per_address: Of one IPv4 address, or of one /64 of IPv6.
    """

    def __init__(self, most: int, most_per_address: int) -> None:
        self._most = most
        self._most_per_address = most_per_address
        self._here: dict[object, str] = {}
        self._strangers: dict[object, Callable[[], None]] = {}
        self._by_network: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._here)

    def has_room(self, address: str) -> bool:
        """Whether one more may come from there."""
        if len(self._here) >= self._most:
            return False
        return self._by_network.get(network_of(address), 0) < self._most_per_address

    def enter(self, visitor: object, address: str, turn_out: Callable[[], None]) -> None:
        """
        Someone comes, for whom there is room.

        Args:
            turn_out: Ends his connection, if he has not signed in by the time that others need the place.
        """
        network = network_of(address)
        self._here[visitor] = network
        self._by_network[network] = self._by_network.get(network, 0) + 1
        self._strangers[visitor] = turn_out
        if len(self._strangers) > max(1, self._most // 2):
            oldest = next(iter(self._strangers))
            self._strangers.pop(oldest)()

    def sign_in(self, visitor: object) -> None:
        """He is no stranger any more."""
        self._strangers.pop(visitor, None)

    def leave(self, visitor: object) -> None:
        """He is gone; also for one who never came in."""
        network = self._here.pop(visitor, None)
        self._strangers.pop(visitor, None)
        if network is None:
            return
        self._by_network[network] -= 1
        if not self._by_network[network]:
            del self._by_network[network]
