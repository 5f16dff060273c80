"""
HTTP of the SDK by our own client, so that what holds for all outgoing connections holds for the SDK: the check of
addresses, proxies and certificate authorities of the settings, and no redirect.

Considerations: the SDK's own session lets aiohttp follow redirects (aio-libs/aiobotocore#267), and reads proxies and
bundles from the environment. `AioConfig` takes another class of sessions; what this one replaces is private, and
`shared.aws.sdk_internals` checks it.
"""

from typing import Any

# aiobotocore brings no types.
from aiobotocore.httpsession import AIOHTTPSession  # type: ignore[import-untyped]

from shared.outgoing.http_client import HttpClient


def session_class(http: HttpClient) -> type[Any]:
    """The class for `AioConfig(http_session_cls=…)` whose sessions send by a client."""

    class OutgoingSession(AIOHTTPSession):  # type: ignore[misc]
        async def _get_session(self, proxy_url: str | None) -> "_Requests":
            return _Requests(http, self._timeout)

    return OutgoingSession


class _Requests:
    """The part of `aiohttp.ClientSession` that `AIOHTTPSession.send` uses."""

    def __init__(self, http: HttpClient, timeout: Any) -> None:
        self._http = http
        self._timeout = timeout

    async def request(self, method: str, *, url: Any, **options: Any) -> Any:
        """The answer, which the SDK reads to its end or closes."""
        for name in ("proxy", "proxy_headers"):
            options.pop(name)
        options.setdefault("timeout", self._timeout)
        return await self._http.request(method, url, skip_auto_headers=("Content-Type",), **options)
