"""An HTTP client that follows no redirect. `shared.outgoing.door.Outgoing` makes the two of a process."""

from typing import TYPE_CHECKING, Any, Final

import aiohttp
from yarl import URL

from shared.outgoing.addresses import PrivateAddressError, is_private
from shared.outgoing.proxies import Proxies

if TYPE_CHECKING:
    from aiohttp.client import _RequestContextManager


ANSWER_BYTES: Final = 4 << 20
"""Most of an answer that is read into memory. The longest that we ask for are lists, of some 100 KB."""


async def read_answer(answer: aiohttp.ClientResponse) -> bytes:
    """The body of an answer. Raises `aiohttp.ClientPayloadError` above `ANSWER_BYTES`: a host may send without end."""
    pieces, size = [], 0
    async for piece in answer.content.iter_any():
        size += len(piece)
        if size > ANSWER_BYTES:
            answer.close()
            raise aiohttp.ClientPayloadError(f"expected an answer of at most {ANSWER_BYTES} bytes")
        pieces.append(piece)
    return b"".join(pieces)


class HttpClient:
    """
    Requests over shared connections, directly or by the proxy of the settings, without cookies and unpacking.

    Args:
        direct: Connects to the address that it has resolved.
        proxied: Connects to the proxy, whose address is the operator's own.
        guarded: Whether a host inside our own network is refused. `direct` checks its addresses; a proxy resolves names
            itself, so of what goes there only the name, or the address in it, can be checked here.
    """

    def __init__(
        self, direct: aiohttp.ClientSession, proxied: aiohttp.ClientSession, proxies: Proxies, *, guarded: bool
    ) -> None:
        self._direct = direct
        self._proxied = proxied
        self._proxies = proxies
        self._guarded = guarded

    def request(self, method: str, url: str | URL, **options: Any) -> "_RequestContextManager":
        """
        One request; its block closes the answer. A redirect is an answer like another. `options` are those of
        `aiohttp.ClientSession.request`.

        Raises:
            PrivateAddressError: The host is refused; where an address is, an error of aiohttp hides it
                (`shared.outgoing.addresses.is_refused`).
            ValueError: It is no URL.
        """
        proxy = self._proxies.of(str(url))
        if proxy is None:
            return self._direct.request(method, url, allow_redirects=False, **options)
        if self._guarded and is_private(URL(url).raw_host or ""):
            raise PrivateAddressError
        return self._proxied.request(method, url, allow_redirects=False, proxy=proxy, **options)

    def proxy_of(self, url: str) -> str | None:
        """The proxy by which a URL is reached; None where it is reached directly."""
        return self._proxies.of(url)
