"""
A proxy on loopback for libraries that cannot be told which addresses to refuse, or not to follow a redirect: obstore.

The library is given its host's address as `http://`, and this proxy. So it sends each request here, whole, and over
loopback alone. The relay connects to the one host that the credential admits, by the rules of this package, with TLS
where the host's own address says so.

Considerations: a proxy that grants tunnels, as stripe/smokescreen does, sees no redirect within the host. A web page at
a wrong endpoint that leads every request to its login page would then be a store that has every object.
"""

import asyncio
import ipaddress
import secrets
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Final
from urllib.parse import urlsplit

from msgspec import Struct

from shared.outgoing.addresses import PrivateAddressError
from shared.outgoing.proxies import proxy_credentials
from shared.outgoing.relay_connection import Failure, HostFailedError, HostRoute, LibrarySide
from shared.outgoing.tcp_client import TcpClient
from shared.runtime.logs import redactor

PORTS: Final = {"http": 80, "https": 443}


class RelayedHost(Struct, frozen=True):
    """The things a library is told: its host's address, and the proxy with the credential for it."""

    url: str
    proxy_url: str


class Relay:
    """The relay of a process, which listens from the first use on."""

    def __init__(self, tcp: TcpClient) -> None:
        self._tcp = tcp
        self._routes: dict[bytes, HostRoute] = {}
        self._connections: set[LibrarySide] = set()
        self._opening = asyncio.Lock()
        self._server: asyncio.Server | None = None

    async def close(self) -> None:
        """Accept no more, and close what is open: a library keeps connections for a while after the last request."""
        if self._server is not None:
            self._server.close()
        connections = tuple(self._connections)
        for connection in connections:
            connection.abort()
        for connection in connections:
            await connection.ended.wait()

    @asynccontextmanager
    async def admit(self, url: str, *, guarded: bool, connect_s: float) -> AsyncIterator[RelayedHost]:
        """
        Admit requests to the host of a URL for the block.

        Args:
            guarded: Whether a customer names the host, so that one inside our own network is refused.
            connect_s: The time limit of a connection, with its TLS.
        """
        parts = urlsplit(url)
        host = (parts.hostname or "").lower()
        # The library writes an address of IPv6 in its shortest form (RFC 5952), whatever form it was given.
        authority = f"[{ipaddress.IPv6Address(host)}]" if ":" in host else host
        if parts.port not in {None, PORTS[parts.scheme]}:
            authority = f"{authority}:{parts.port}"
        proxy = self._tcp.proxy_of(url) if parts.scheme == "http" else None
        credentials = proxy_credentials(proxy) if proxy else ""
        route = HostRoute(
            prefix=f"http://{authority}".encode(),
            absolute=proxy is not None,
            headers=(f"Proxy-Authorization: {credentials}".encode(),) if credentials else (),
            connect=partial(self._connect, url, guarded, connect_s),
        )
        secret = secrets.token_urlsafe(24)
        redactor.add(secret)
        proxy_url = f"http://relay:{secret}@127.0.0.1:{await self._port()}"
        credential = proxy_credentials(proxy_url).encode()
        self._routes[credential] = route
        try:
            yield RelayedHost(f"http://{authority}{parts.path}", proxy_url)
        finally:
            del self._routes[credential]

    async def _port(self) -> int:
        async with self._opening:
            if self._server is None:
                loop = asyncio.get_running_loop()
                self._server = await loop.create_server(
                    lambda: LibrarySide(self._routes.get, self._connections), "127.0.0.1", 0
                )
            port: int = self._server.sockets[0].getsockname()[1]
            return port

    async def _connect(
        self, url: str, guarded: bool, connect_s: float, make_protocol: Callable[[], asyncio.Protocol]
    ) -> None:
        try:
            async with asyncio.timeout(connect_s):
                await self._tcp.connect_http(url, make_protocol, guarded=guarded)
        except (OSError, UnicodeError) as error:
            raise HostFailedError(_failure_of(error)) from error


def _failure_of(error: Exception) -> Failure:
    failures: tuple[tuple[type[Exception], Failure], ...] = (
        (PrivateAddressError, "PrivateAddress"),
        (socket.gaierror, "HostNotFound"),
        (UnicodeError, "HostNotFound"),
        (ssl.SSLCertVerificationError, "CertificateInvalid"),
        (ssl.SSLError, "TlsFailed"),
        (TimeoutError, "Timeout"),
    )
    return next((failure for kind, failure in failures if isinstance(error, kind)), "ConnectionFailed")
