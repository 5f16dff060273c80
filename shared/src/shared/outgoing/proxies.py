"""
The proxy of a URL, by the customary settings `HTTP_PROXY`, `HTTPS_PROXY` and `NO_PROXY`.
"""

import base64
import ipaddress
from functools import lru_cache
from urllib.parse import unquote, urlsplit

from msgspec import Struct

from shared.errors import InvalidError


class Proxies(Struct, frozen=True):
    """
    A proxy for each scheme, empty where there is none, and the hosts that are reached without it.

    `no_proxy` holds, separated by commas: `*` for every host; a domain, which stands for its subdomains too, with or
    without a dot before it; an address; a network such as `10.0.0.0/8`. Each but the network may end in `:port`.
    Loopback is always reached without a proxy, which would take it for its own.
    """

    http: str = ""
    https: str = ""
    no_proxy: str = ""

    @property
    def passwords(self) -> tuple[str, ...]:
        """The secrets in the proxies' URLs."""
        return tuple(filter(None, (urlsplit(proxy).password for proxy in (self.http, self.https))))

    def check(self) -> None:
        """Raises `InvalidError`, naming the setting, for a proxy that is no URL. Its password is not repeated."""
        for field, proxy in (("http_proxy", self.http), ("https_proxy", self.https)):
            try:
                parts = urlsplit(proxy)
                good = not proxy or (parts.scheme == "http" and bool(parts.hostname) and parts.port != 0)
            except ValueError:
                good = False
            if not good:
                raise InvalidError("expected http://[user:password@]host:port", field=field)

    def of(self, url: str) -> str | None:
        """The proxy by which a URL is reached; None where it is reached directly. Raises `ValueError` for no URL."""
        if not self.http and not self.https:
            return None
        parts = urlsplit(url)
        proxy = self.https if parts.scheme == "https" else self.http
        if not proxy or not parts.hostname:
            return None
        port = parts.port or (443 if parts.scheme == "https" else 80)
        return None if _is_excluded(self.no_proxy, parts.hostname.removesuffix("."), port) else proxy


def proxy_credentials(proxy: str) -> str:
    """The header `Proxy-Authorization` for a proxy (RFC 7617); empty where its URL holds no user."""
    parts = urlsplit(proxy)
    if parts.username is None:
        return ""
    pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    return f"Basic {base64.b64encode(pair.encode()).decode()}"


@lru_cache(maxsize=1024)
def _is_excluded(no_proxy: str, host: str, port: int) -> bool:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        address = None
    if host == "localhost" or host.endswith(".localhost") or (address is not None and address.is_loopback):
        return True
    for entry in filter(None, (part.strip().lower() for part in no_proxy.split(","))):
        if entry == "*":
            return True
        if address is not None:
            try:
                if address in ipaddress.ip_network(entry.strip("[]"), strict=False):
                    return True
                continue
            except ValueError:
                pass
        name, _, wanted = entry.rpartition(":") if entry.rpartition(":")[2].isdigit() else (entry, "", "")
        name = name.strip("[]").removeprefix("*").removeprefix(".")
        if (not wanted or int(wanted) == port) and name and (host == name or host.endswith(f".{name}")):
            return True
    return False
