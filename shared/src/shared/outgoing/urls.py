"""Checks of URLs and hosts that customers enter. No I/O: what a name leads to is checked when it is connected to."""

import ipaddress
import re
from typing import Final
from urllib.parse import SplitResult, urlsplit

from shared.errors import InvalidError
from shared.outgoing.addresses import is_private, unreachable

VISIBLE: Final = re.compile(r"[!-~]+")
HOST_NAME: Final = re.compile(
    r"(?=.{1,253}$)(?:[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?\.)*(?![0-9]+$|0x)[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?",
    re.IGNORECASE,
)
"""RFC 1123, 2.1, with the underscores that DNS allows. A last label that is a number is an address (URL Standard)."""

EXPECTED_HOST: Final = (
    "expected a host name of letters, digits, '-' and '.' (others written as xn--…), or an IP address"
)


def is_host(host: str) -> bool:
    """Return whether a text is a host name, or an IPv4 or IPv6 address in its usual form, without brackets."""
    try:
        return isinstance(ipaddress.ip_address(host), ipaddress.IPv4Address) or "%" not in host
    except ValueError:
        return HOST_NAME.fullmatch(host) is not None


def check_host(host: str, field: str, *, allow_private: bool) -> None:
    """
    Check a host.

    Raises:
        InvalidError: It is none; or, unless `allow_private`, its name or address is one of our own network.
    """
    if not allow_private and is_private(host):
        raise unreachable(field)
    if not is_host(host):
        raise InvalidError(EXPECTED_HOST, field=field)


def check_url(url: str, field: str, *, allow_private: bool, form: str = "https://host[:port]") -> SplitResult:
    """
    Check the scheme, the host and the port of a URL.

    Args:
        form: The expected form, for the message.

    Returns:
        Its parts.

    Raises:
        InvalidError: It has another scheme, a user or a fragment, or it is no URL; its host is none; or, unless
            `allow_private`, it is without TLS or in our own network.
    """
    wrong = InvalidError(f"expected {form}", field=field)
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise wrong from None
    if parts.scheme not in ({"https", "http"} if allow_private else {"https"}) or "@" in parts.netloc:
        raise wrong
    if not host or port == 0 or "#" in url:
        raise wrong
    check_host(host, field, allow_private=allow_private)
    if not VISIBLE.fullmatch(url):
        raise wrong
    return parts
