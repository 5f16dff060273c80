"""
The outgoing connections of one process: HTTP clients, TCP, and the certificate authorities that all of them trust.

Considerations: an address is checked where its socket is made (aiohttp's `socket_factory`), after each resolution and
for addresses in URLs, which are never resolved. aiohttp tries the next address when one is refused.
"""

import socket
import ssl
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import aiohttp

from shared.errors import InvalidError
from shared.outgoing.addresses import (
    AddressInfo,
    IsPrivate,
    is_private_address,
)
from shared.outgoing.http_client import HttpClient
from shared.outgoing.proxies import Proxies
from shared.outgoing.relay import Relay
from shared.outgoing.resolver import Resolver
from shared.outgoing.tcp_client import TcpClient
from shared.runtime.logs import redactor
from shared.runtime.settings import Settings

IDLE_S: Final = 15.0
"""AWS closes a connection that was idle for 20 s, and a request on it would be lost."""


class Outgoing:
    """
    Connections to hosts outside the mesh. An async context manager: leaving it closes them.

    `guarded` is for hosts that a customer names: one inside our own network is refused, unless the settings allow it.
    `trusted` is for hosts that AWS, Azure or the operator names. `authorities` are the certificates, in PEM, that are
    trusted in place of the usual ones; None for those. `tls` trusts the same. `tcp` makes sockets, and `relay` carries
    the requests of libraries with HTTP of their own.

    Args:
        is_private_address: Tells which addresses are refused.

    Raises:
        InvalidError: A setting of proxies or certificates cannot be right.
    """

    guarded: HttpClient
    trusted: HttpClient

    def __init__(self, settings: Settings, *, is_private_address: IsPrivate = is_private_address) -> None:
        self.allow_private = settings.allow_private_endpoints
        self.proxies = Proxies(settings.http_proxy, settings.https_proxy, settings.no_proxy)
        self.proxies.check()
        for password in self.proxies.passwords:
            redactor.add(password)
        self.authorities = _read_authorities(settings.ca_bundle)
        self.tls = _tls_context(self.authorities)
        self._resolver = Resolver()
        self.tcp = TcpClient(
            self._resolver, self.proxies, self.tls, is_private_address, allow_private=self.allow_private
        )
        self.relay = Relay(self.tcp)
        self._sessions: list[aiohttp.ClientSession] = []

    async def __aenter__(self) -> Self:
        anywhere = self._open_session()
        checked = anywhere if self.allow_private else self._open_session(self.tcp.checked_socket)
        self.trusted = HttpClient(anywhere, anywhere, self.proxies, guarded=False)
        self.guarded = HttpClient(checked, anywhere, self.proxies, guarded=not self.allow_private)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.relay.close()
        for session in self._sessions:
            await session.close()
        await self._resolver.close()

    def _open_session(self, make_socket: Callable[[AddressInfo], socket.socket] | None = None) -> aiohttp.ClientSession:
        session = aiohttp.ClientSession(
            # Callers limit themselves; a limit here would let one silent host hold up the others.
            connector=aiohttp.TCPConnector(
                limit=0,
                keepalive_timeout=IDLE_S,
                ssl=self.tls,
                socket_factory=make_socket,
                resolver=self._resolver,
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            skip_auto_headers=("User-Agent",),
        )
        self._sessions.append(session)
        return session


def _read_authorities(file: str) -> str | None:
    if not file:
        return None
    try:
        return Path(file).read_text()
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no text"
        raise InvalidError(f"{file} cannot be read: {reason}", field="ca_bundle") from None


def _tls_context(authorities: str | None) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cadata=authorities)
    except (ssl.SSLError, ValueError):
        raise InvalidError("expected a file of certificates in PEM", field="ca_bundle") from None
