"""
Checks of hosts and addresses: those inside our own network, or at least not reached from the internet, are refused.

Customers enter endpoints, and none may be a way into the network. An operator who wants such endpoints sets
`allow_private_endpoints`, and then none of these checks runs.
"""

import errno
import ipaddress
import socket
from collections.abc import Callable
from typing import Any, Final

from shared.errors import InvalidError

UNREACHABLE: Final = "not reachable from the internet"

GLOBAL_UNICAST: Final = ipaddress.ip_network("2000::/3")
"""The only IPv6 addresses that are assigned for the internet (IANA, Internet Protocol Version 6 Address Space)."""

NAT64: Final = ipaddress.ip_network("64:ff9b::/96")
"""IPv6 prefix before an IPv4 address (RFC 6052), by which an IPv6-only host reaches older ones."""

NOT_GLOBAL: Final = tuple(map(ipaddress.ip_network, ("2002::/16", "3fff::/20")))
"""6to4, with an IPv4 address inside (RFC 7526), and the newer documentation prefix (RFC 9637). `ipaddress` takes both
for global."""

NOT_GLOBAL_V4: Final = tuple(map(ipaddress.ip_network, ("192.0.0.0/24", "192.88.99.0/24", "168.63.129.16/32")))
"""Protocol assignments (RFC 6890), among which Oracle's cloud has its metadata, at 192.0.0.192; Python takes a part of
them for global before 3.11.10. Relays of 6to4, deprecated by RFC 7526. Azure's own services of a machine (Azure virtual
network, "What is IP address 168.63.129.16"): a public address that is inside every network of Azure."""

AddressInfo = tuple[Any, ...]
"""An entry of `getaddrinfo`: family, type, protocol, canonical name, and the address to connect to."""

IsPrivate = Callable[[str], bool]


class PrivateAddressError(OSError):
    """A connection was about to go into our own network."""

    def __init__(self) -> None:
        super().__init__(errno.EACCES, UNREACHABLE)


def is_private_address(address: str) -> bool:
    """
    Return whether an IPv4 or IPv6 address, as `getaddrinfo` gives it, is not one of the internet's. What is no address
    is private.
    """
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return True
    if isinstance(found, ipaddress.IPv6Address):
        if found in NAT64:
            found = ipaddress.IPv4Address(int(found) & 0xFFFFFFFF)
        elif found.ipv4_mapped is not None:
            found = found.ipv4_mapped
        elif (
            found.scope_id is not None or found not in GLOBAL_UNICAST or any(found in network for network in NOT_GLOBAL)
        ):
            return True
    return not found.is_global or found.is_multicast or any(found in network for network in NOT_GLOBAL_V4)


def is_private(host: str) -> bool:
    """
    Return whether a host's name or address alone shows that it is not reached from the internet. Resolves nothing.

    Some clients read a last label that is a number as part of an IPv4 address, in any of its old forms (URL Standard,
    "ends in a number"), so such a name is private too.
    """
    host = host.lower().removesuffix(".")
    try:
        ipaddress.ip_address(host)
    except ValueError:
        last = host.rpartition(".")[2]
        numeric = last.isdigit() or last.startswith("0x")
        return "." not in host or numeric or f".{host}".endswith((".localhost", ".local", ".internal"))
    return is_private_address(host)


def checked_socket(info: AddressInfo, refuses: IsPrivate) -> socket.socket:
    """
    A socket for the very address that is connected to next, so a name that resolves differently the second time gains
    nothing.

    Raises:
        PrivateAddressError: The address is refused.
    """
    family, kind, protocol, _, target = info
    if refuses(str(target[0])):
        raise PrivateAddressError
    return socket.socket(family, kind, protocol)


def is_refused(error: BaseException | None) -> bool:
    """Return whether an error of a client, or one that it was raised from, is a `PrivateAddressError`."""
    while error is not None:
        if isinstance(error, PrivateAddressError) or UNREACHABLE in str(getattr(error, "os_error", "")):
            return True
        error = error.__cause__ or error.__context__
    return False


def unreachable(field: str | None = None) -> InvalidError:
    """The error for a host inside our own network that a field names."""
    return InvalidError("expected a host that is reachable from the internet", field=field)
