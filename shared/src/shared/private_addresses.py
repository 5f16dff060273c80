"""
Endpoints that a customer enters must not be a way into our own network: what a host's name says, and what its addresses
say. An operator who wants such endpoints allows them (`allow_private_endpoints`), and then nobody asks here.
"""

import asyncio
import ipaddress
import socket
from urllib.parse import urlsplit

from shared.errors import InvalidError


def is_private(host: str) -> bool:
    """Whether a host's name or address says by itself that it is not reached from the internet."""
    try:
        return not ipaddress.ip_address(host).is_global
    except ValueError:
        return "." not in host or host.endswith((".localhost", ".local", ".internal"))


def refuse_private_host(url: str, field: str) -> None:
    """
    Refuse a URL whose host is private by its name. Asks nobody.

    Raises:
        InvalidError: The host is not reached from the internet; names `field`.
    """
    if is_private(urlsplit(url).hostname or ""):
        raise _unreachable(field)


async def refuse_private_addresses(url: str, field: str) -> None:
    """
    Look the host up and refuse one inside our own network, whatever its name is.

    Raises:
        InvalidError: One of its addresses is not a public one; names `field`.
    """
    parts = urlsplit(url)
    try:
        found = await asyncio.get_running_loop().getaddrinfo(parts.hostname, parts.port or 443, type=socket.SOCK_STREAM)
    except OSError:
        # A host that has no address cannot be reached; who then tries says so in its own words.
        return
    if any(is_private(str(address[0])) for *_, address in found):
        raise _unreachable(field)


def _unreachable(field: str) -> InvalidError:
    return InvalidError("expected a host that is reachable from the internet", field=field)
