"""Client addresses: parsing, comparing, and counting by network. No I/O."""

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

Network = IPv4Network | IPv6Network


def parse_address(text: str) -> IPv4Address | IPv6Address | None:
    """Parse an address without its zone, as IPv4 where it is mapped into IPv6; None for other text."""
    try:
        found = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return found.ipv4_mapped or found if isinstance(found, IPv6Address) else found


def network_of(text: str) -> str:
    """
    Return the network that counts as one client: an IPv4 address, or the first address of a /64 of IPv6.

    One customer of a provider has a /64. Text that is no address counts as itself.
    """
    found = parse_address(text)
    if isinstance(found, IPv6Address):
        return str(IPv6Network((int(found) >> 64 << 64, 64)).network_address)
    return str(found) if found is not None else text


def is_within(text: str, networks: Sequence[Network]) -> bool:
    """Return whether the address is in one of the networks."""
    found = parse_address(text)
    return found is not None and any(found in network for network in networks)


def parse_network(text: str) -> Network:
    """Parse an address or a range. Raises `ValueError`."""
    return ip_network(text.strip(), strict=False)
