"""TCP connections to hosts that customers, providers or the operator name."""

import asyncio
import os
import socket
import ssl
from collections.abc import Callable
from typing import Final
from urllib.parse import urlsplit

from shared.errors import DeniedError, UnavailableError
from shared.outgoing.addresses import (
    UNREACHABLE,
    AddressInfo,
    IsPrivate,
    PrivateAddressError,
    checked_socket,
    is_private,
)
from shared.outgoing.proxies import Proxies, proxy_credentials
from shared.outgoing.resolver import Resolver

DIAL_S: Final = 15.0
ANSWER_BYTES: Final = 16 << 10
"""Most of a proxy's answer to CONNECT that is read."""


class TcpClient:
    """
    Sockets that are checked where they are made.

    Args:
        refuses: Tells which addresses a customer's host may not have.
    """

    def __init__(
        self, resolver: Resolver, proxies: Proxies, tls: ssl.SSLContext, refuses: IsPrivate, *, allow_private: bool
    ) -> None:
        self.tls = tls
        self._resolver = resolver
        self._proxies = proxies
        self._refuses = refuses
        self._allow_private = allow_private

    async def resolve(self, host: str, port: int) -> list[AddressInfo]:
        """The addresses of a host. Raises `OSError` or `UnicodeError` when it has none."""
        return await self._resolver.addresses(host, port)

    def refuses(self, info: AddressInfo) -> bool:
        """Return whether an address is one that a customer's host may not have."""
        return not self._allow_private and self._refuses(str(info[4][0]))

    def checked_socket(self, info: AddressInfo) -> socket.socket:
        """A socket for an address of a customer's host. Raises `PrivateAddressError`."""
        return socket.socket(*info[:3]) if self._allow_private else checked_socket(info, self._refuses)

    async def connect(self, info: AddressInfo, *, guarded: bool = True) -> socket.socket:
        """
        A connected, non-blocking socket to one address; `guarded` where a customer names the host.

        Raises:
            PrivateAddressError: The address is inside our own network, and that is not allowed.
            OSError: No server answers there.
        """
        connection = self.checked_socket(info) if guarded else socket.socket(*info[:3])
        try:
            connection.setblocking(False)
            await asyncio.get_running_loop().sock_connect(connection, info[4])
        except BaseException:
            connection.close()
            raise
        return connection

    async def connect_any(self, host: str, port: int, *, guarded: bool = True) -> socket.socket:
        """
        A socket to the first address of a host that answers, tried one after another in the time that the caller gives.

        Raises:
            PrivateAddressError: An address is inside our own network, and that is not allowed.
            OSError: No server answers, or the host has no address.
        """
        failure = OSError("no address")
        for info in await self.resolve(host, port):
            try:
                return await self.connect(info, guarded=guarded)
            except PrivateAddressError:
                raise
            except OSError as error:
                failure = error
        raise failure

    async def dial(self, host: str, port: int) -> socket.socket:
        """
        A socket to a customer's host. No proxy carries it.

        Raises:
            DeniedError: The host is inside our own network, and that is not allowed.
            UnavailableError: No server answers there.
        """
        try:
            async with asyncio.timeout(DIAL_S):
                return await self.connect_any(host, port)
        except PrivateAddressError:
            raise DeniedError(f"the host is {UNREACHABLE}") from None
        except TimeoutError:
            failure = f"no answer within {DIAL_S:g} s"
        except socket.gaierror as error:
            failure = error.strerror or str(error)
        except OSError as error:
            # asyncio's own text is that of a call, with the address once more.
            failure = os.strerror(error.errno) if error.errno else str(error)
        except UnicodeError as error:
            failure = str(error)
        raise UnavailableError(f"{host}:{port} cannot be reached: {failure}")

    def proxy_of(self, url: str) -> str | None:
        """The proxy by which a URL is reached; None where it is reached directly."""
        return self._proxies.of(url)

    async def connect_http(self, url: str, make_protocol: Callable[[], asyncio.Protocol], *, guarded: bool) -> None:
        """
        Connect a protocol to the host of a URL, with TLS for `https`, by the proxy where there is one. For `http` a
        proxy gets the requests themselves, as they would go to the host but with their whole target.

        Raises:
            PrivateAddressError: The host is inside our own network, and that is not allowed.
            OSError: It cannot be connected to; of the kinds of `socket` and `ssl`.
            UnicodeError: Its name is none.
        """
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
        authority = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        proxy = self._proxies.of(url)
        if proxy is None:
            connection = await self.connect_any(host, port, guarded=guarded)
        else:
            if guarded and not self._allow_private and is_private(host):
                raise PrivateAddressError
            connection = await self._connect_proxy(proxy, authority if parts.scheme == "https" else None)
        loop = asyncio.get_running_loop()
        if parts.scheme == "https":
            await loop.create_connection(make_protocol, sock=connection, ssl=self.tls, server_hostname=host)
        else:
            await loop.create_connection(make_protocol, sock=connection)

    async def _connect_proxy(self, proxy: str, tunnel_to: str | None) -> socket.socket:
        parts = urlsplit(proxy)
        connection = await self.connect_any(parts.hostname or "", parts.port or 80, guarded=False)
        try:
            if tunnel_to is not None:
                await _ask_proxy(connection, tunnel_to, proxy_credentials(proxy))
        except BaseException:
            connection.close()
            raise
        return connection


async def _ask_proxy(connection: socket.socket, authority: str, credentials: str) -> None:
    """Ask a proxy for a tunnel (RFC 9110, 9.3.6). Raises `ConnectionRefusedError` when it grants none."""
    loop = asyncio.get_running_loop()
    lines = [f"CONNECT {authority} HTTP/1.1", f"Host: {authority}"]
    if credentials:
        lines.append(f"Proxy-Authorization: {credentials}")
    await loop.sock_sendall(connection, "\r\n".join((*lines, "", "")).encode())
    answer = bytearray()
    # Byte by byte: what follows the answer is the host's.
    while not answer.endswith(b"\r\n\r\n"):
        piece = await loop.sock_recv(connection, 1)
        if not piece or len(answer) > ANSWER_BYTES:
            raise ConnectionRefusedError("the proxy's answer is none")
        answer += piece
    if not answer.startswith((b"HTTP/1.1 2", b"HTTP/1.0 2")):
        raise ConnectionRefusedError("the proxy refuses the host")
