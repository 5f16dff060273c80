"""
Refusal of endpoints inside our own network: by a host's name, by its addresses, and by the address that a connection
goes to. Customers enter endpoints, and none may be a way into the network. An operator who wants such endpoints sets
`allow_private_endpoints`, and then none of these checks runs.
"""

import asyncio
import errno
import ipaddress
import socket
from typing import Any, Final
from urllib.parse import urlsplit

from shared.errors import InvalidError

NAT64: Final = ipaddress.ip_network("64:ff9b::/96")
"""IPv6 prefix before an IPv4 address (RFC 6052), by which an IPv6-only host reaches older ones."""

NO_MORE_GLOBAL: Final = tuple(map(ipaddress.ip_network, ("::/96", "2002::/16", "fec0::/10")))
"""Deprecated IPv6 ranges, with an IPv4 address or a site's own inside, which `ipaddress` takes for global."""


class PrivateAddressError(OSError):
    """A connection was about to go into our own network."""


def is_private(host: str) -> bool:
    """Return whether a host's name or address alone shows that it is not reached from the internet."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return "." not in host or host.endswith((".localhost", ".local", ".internal"))
    if address in NAT64:
        address = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return not address.is_global or address.is_multicast or any(address in network for network in NO_MORE_GLOBAL)


def public_socket(address: tuple[Any, ...]) -> socket.socket:
    """
    A socket for an entry of `getaddrinfo`, for aiohttp's `socket_factory`. It gets the very address that is connected
    to next, so a name that resolves differently the second time gains nothing.

    Raises:
        PrivateAddressError: The address is not a public one.
    """
    family, kind, protocol, _, target = address
    if is_private(target[0]):
        raise PrivateAddressError(errno.EACCES, "not reachable from the internet")
    return socket.socket(family, kind, protocol)


def refuse_private_host(url: str, field: str) -> None:
    """
    Refuse a URL whose host is private by its name. Resolves nothing.

    Raises:
        InvalidError: The host is not reached from the internet; names `field`.
    """
    if is_private(urlsplit(url).hostname or ""):
        raise _unreachable(field)


async def refuse_private_addresses(url: str, field: str) -> None:
    """
    Resolve the host and refuse one inside our own network, whatever its name is.

    Raises:
        InvalidError: One of its addresses is not a public one; names `field`.
    """
    parts = urlsplit(url)
    try:
        found = await asyncio.get_running_loop().getaddrinfo(parts.hostname, parts.port or 443, type=socket.SOCK_STREAM)
    except OSError:
        # A host that has no address cannot be reached, and the connection itself will say so.
        return
    if any(is_private(str(address[0])) for *_, address in found):
        raise _unreachable(field)


def _unreachable(field: str) -> InvalidError:
    return InvalidError("expected a host that is reachable from the internet", field=field)
