"""
Sessions of the SDK and the configuration of their clients, with HTTP by our own client: what holds for all outgoing
connections holds for the SDK, which is the check of addresses, proxies and certificate authorities of the settings, no
redirect, and no answer without end.

Considerations: the SDK's own session lets aiohttp follow redirects (aio-libs/aiobotocore#267), and reads proxies and
bundles from the environment. `AioConfig` takes another class of sessions; what this one replaces is private, and
`shared.aws.sdk_internals` checks it.
"""

from functools import cache
from typing import Any, Final

# aiobotocore brings no types.
from aiobotocore.config import AioConfig  # type: ignore[import-untyped]
from aiobotocore.httpsession import AIOHTTPSession  # type: ignore[import-untyped]
from aiobotocore.session import AioSession  # type: ignore[import-untyped]

from shared.outgoing.http_client import HttpClient, read_answer

CONNECT_S: Final = 5.0
READ_S: Final = 30.0


@cache
def _sdk_data() -> Any:
    """The SDK's data, as its sessions read and keep them."""
    return AioSession().get_component("data_loader")


def new_session() -> Any:
    """A session of the SDK. All of a process share its data."""
    session = AioSession()
    session.register_component("data_loader", _sdk_data())
    return session


def client_config(endpoint_url: str | None, http: HttpClient) -> Any:
    """The configuration of a client that sends by `http`. `endpoint_url` is None for AWS's own."""
    return AioConfig(
        connect_timeout=CONNECT_S,
        read_timeout=READ_S,
        retries={"total_max_attempts": 1, "mode": "standard"},
        # Many stores that speak S3 refuse the checksums that the SDK adds by default (boto/botocore#3277).
        request_checksum_calculation="when_required" if endpoint_url else "when_supported",
        response_checksum_validation="when_required" if endpoint_url else "when_supported",
        s3={"addressing_style": "path"} if endpoint_url else {},
        http_session_cls=session_class(http),
        # `OutgoingSession` has them.
        proxies={},
        # AWS_ENDPOINT_URL of the machine must not send a customer's keys elsewhere.
        ignore_configured_endpoint_urls=True,
        # Reads the service's model in a thread: it is megabytes of JSON.
        warm_up_loader_caches=True,
        user_agent_extra="millrace",
    )


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
        return _BoundedAnswer(await self._http.request(method, url, skip_auto_headers=("Content-Type",), **options))


class _BoundedAnswer:
    """An answer of aiohttp that is not read without end. Of an object, the SDK reads the `content` piece by piece."""

    def __init__(self, answer: Any) -> None:
        self._answer = answer

    def __getattr__(self, name: str) -> Any:
        return getattr(self._answer, name)

    async def read(self) -> bytes:
        return await read_answer(self._answer)
