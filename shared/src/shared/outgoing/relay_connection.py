"""
One connection of a library to the relay, and the one to the library's host that belongs to it. HTTP/1.1, one request
after another.

A request has to name the host that its credential admits; its body and the answer pass as they come. Only the head of
each is read. A redirect, and what keeps the host from answering, is answered with a status of `FAILURES`, which an
answer to HEAD can carry too.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable
from typing import Final, Literal

from msgspec import Struct

HEAD_BYTES: Final = 64 << 10
LOGIN_S: Final = 10.0
"""Time for the first head to arrive."""

Failure = Literal[
    "PrivateAddress",
    "OtherHost",
    "LeadsElsewhere",
    "HostNotFound",
    "CertificateInvalid",
    "TlsFailed",
    "Timeout",
    "ConnectionFailed",
]

FAILURES: Final[dict[Failure, int]] = {
    "PrivateAddress": 461,
    "OtherHost": 462,
    "LeadsElsewhere": 463,
    "HostNotFound": 561,
    "CertificateInvalid": 562,
    "TlsFailed": 563,
    "Timeout": 564,
    "ConnectionFailed": 565,
}
"""The status for each. None is assigned (IANA, HTTP Status Code Registry). Libraries repeat what gets 5xx."""

REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})

_STATUS: Final = re.compile(rb"HTTP/1\.[01] (\d{3})[ \r]")
_OURS: Final = frozenset(FAILURES.values())


class HostFailedError(Exception):
    """The host was not connected to."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure)
        self.failure = failure


class HostRoute(Struct, frozen=True, kw_only=True):
    """
    A host that a credential admits.

    Args:
        prefix: The beginning of each request's target, `http://host[:port]`; its slash follows.
        absolute: Whether the next hop is a proxy, which wants the whole target, and `headers` for itself.
        connect: Connects to the host, for a protocol. Raises `HostFailedError`.
    """

    prefix: bytes
    absolute: bool
    headers: tuple[bytes, ...]
    connect: Callable[[Callable[[], asyncio.Protocol]], Awaitable[None]]


class _Head(Struct, frozen=True):
    """The head of a request, with the credential in it, its headers for the host, and the length of its body."""

    method: bytes
    target: bytes
    credential: bytes
    headers: list[bytes]
    body_bytes: int


def parse_head(head: bytes) -> _Head:
    """
    Parse the head of a request, without the empty line.

    Raises:
        ValueError: It is none, or its body has no length.
    """
    first, *lines = head.split(b"\r\n")
    method, target, _ = first.split(b" ")
    credential, body_bytes, headers = b"", 0, []
    for line in lines:
        name, _, value = line.partition(b":")
        name = name.lower()
        if name == b"proxy-authorization":
            credential = value.strip()
        elif name == b"transfer-encoding":
            raise ValueError("a body of unknown length")
        elif not name.startswith(b"proxy-"):
            if name == b"content-length":
                body_bytes = int(value)
            headers.append(line)
    return _Head(method, target, credential, headers, body_bytes)


class LibrarySide(asyncio.Protocol):
    """
    The side of the library.

    Args:
        route_of: The route of a credential, None for an unknown one.
        connections: Every connection whose sides are not both closed; this one adds and removes itself.
    """

    def __init__(self, route_of: Callable[[bytes], HostRoute | None], connections: "set[LibrarySide]") -> None:
        self._route_of = route_of
        self._connections = connections
        self._connecting: asyncio.Task[None] | None = None
        self._route: HostRoute | None = None
        self._host = HostSide(self)
        self._head = b""
        self._left = 0
        self._ending = False
        self.ended = asyncio.Event()
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self._connections.add(self)
        self._timer = asyncio.get_running_loop().call_later(LOGIN_S, transport.abort)

    def connection_lost(self, error: Exception | None) -> None:
        self._timer.cancel()
        self.transport = None
        if self._connecting is not None:
            self._connecting.cancel()
        self._host.close()
        self.settle()

    def settle(self) -> None:
        """Forget the connection when both sides are closed."""
        if self.transport is None and not self._host.is_open:
            self._connections.discard(self)
            self.ended.set()

    def pause_writing(self) -> None:
        self._host.pause_reading()

    def resume_writing(self) -> None:
        self._host.resume_reading()

    def data_received(self, data: bytes) -> None:
        if self._ending:
            self._discard(len(data))
        elif self._left:
            self._left -= len(data)
            self._host.write(data)
        else:
            # A head mostly comes whole and with its body, which is copied once, into what is sent.
            data = self._head + data
            if (end := data.find(b"\r\n\r\n")) >= 0:
                self._head = b""
                self._begin(data[:end], memoryview(data)[end + 4 :])
            elif len(data) > HEAD_BYTES:
                self.abort()
            else:
                self._head = data

    def _begin(self, head: bytes, rest: memoryview) -> None:
        self._timer.cancel()
        try:
            request = parse_head(head)
        except ValueError:
            self.abort()
            return
        route = self._route_of(request.credential)
        if route is None or len(rest) > request.body_bytes:
            self.abort()
            return
        self._left = request.body_bytes - len(rest)
        if not request.target.startswith(route.prefix + b"/") or self._route not in {None, route}:
            self.refuse("OtherHost")
            return
        target = request.target if route.absolute else request.target[len(route.prefix) :]
        line = b"%b %b HTTP/1.1" % (request.method, target)
        self._host.write(b"\r\n".join((line, *route.headers, *request.headers, b"", rest)), begins=True)
        if self._route is None:
            self._route = route
            assert self.transport is not None
            self.transport.pause_reading()
            self._connecting = asyncio.get_running_loop().create_task(self._connect(route))

    async def _connect(self, route: HostRoute) -> None:
        try:
            await route.connect(lambda: self._host)
        except HostFailedError as error:
            self.refuse(error.failure)
        if self.transport is not None and not self._host.paused:
            self.transport.resume_reading()

    def refuse(self, failure: Failure) -> None:
        """Answer in the host's place, and close."""
        if self.transport is None or self._ending:
            return
        self._host.close()
        line = f"HTTP/1.1 {FAILURES[failure]} {failure}"
        self.transport.write(f"{line}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode())
        self.finish()

    def _discard(self, length: int) -> None:
        self._left -= length
        if self._left <= 0 and self.transport is not None:
            self.transport.close()

    def abort(self) -> None:
        """Close without an answer."""
        self._host.close()
        if self.transport is not None:
            self.transport.abort()

    def finish(self) -> None:
        """
        Close after what was written, when the whole request is here: a library that cannot write it may not read the
        answer.
        """
        if not self._ending and self.transport is not None:
            self._ending = True
            self.transport.resume_reading()
            self._discard(0)


class HostSide(asyncio.Protocol):
    """The side of the host. What is written before it is connected waits; only the head of an answer is read."""

    def __init__(self, library: LibrarySide) -> None:
        self._library = library
        self._transport: asyncio.Transport | None = None
        self._waiting: list[bytes] = []
        self._head: bytearray | None = None
        self.paused = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        if self._library.transport is None:
            transport.abort()
            return
        transport.writelines(self._waiting)
        self._waiting.clear()

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        self._library.finish()
        self._library.settle()

    @property
    def is_open(self) -> bool:
        """Return whether there is a connection."""
        return self._transport is not None

    def write(self, data: bytes, *, begins: bool = False) -> None:
        """Send a part of a request; `begins` tells that the next thing to come is the head of its answer."""
        if begins:
            self._head = bytearray()
        if self._transport is None:
            self._waiting.append(data)
        else:
            self._transport.write(data)

    def close(self) -> None:
        """Close at once: nobody waits for the answer."""
        if self._transport is not None:
            self._transport.abort()

    def pause_reading(self) -> None:
        if self._transport is not None:
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        if self._transport is not None:
            self._transport.resume_reading()

    def pause_writing(self) -> None:
        self.paused = True
        if self._library.transport is not None:
            self._library.transport.pause_reading()

    def resume_writing(self) -> None:
        self.paused = False
        if self._library.transport is not None:
            self._library.transport.resume_reading()

    def data_received(self, data: bytes) -> None:
        library = self._library.transport
        if library is None:
            return
        if self._head is None:
            library.write(data)
            return
        self._head += data
        while (end := self._head.find(b"\r\n\r\n") + 4) >= 4:
            found = _STATUS.match(self._head)
            if found is None:
                break
            status = int(found[1])
            if status in REDIRECTS and b"location" in self._head[:end].lower():
                self._library.refuse("LeadsElsewhere")
                return
            if status in _OURS:
                break
            if status >= 200:
                library.write(bytes(self._head))
                self._head = None
                return
            # 1xx is followed by the answer.
            del self._head[:end]
        else:
            if len(self._head) <= HEAD_BYTES:
                return
        self._library.abort()
