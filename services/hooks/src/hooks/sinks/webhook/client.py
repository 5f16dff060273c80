"""The HTTP session that all webhooks of a process share."""

from collections.abc import Callable
from datetime import datetime

import aiohttp
from msgspec import Struct

from shared.private_addresses import public_socket


class WebhookClient(Struct, frozen=True):
    """A session of `open_session`, the clock that stamps messages, and whether private addresses are allowed."""

    http: aiohttp.ClientSession
    clock: Callable[[], datetime]
    allow_private: bool


def open_session(*, allow_private: bool) -> aiohttp.ClientSession:
    """A session without cookies that does not connect to our own network unless that is allowed."""
    return aiohttp.ClientSession(
        # Each sink limits itself; a limit here would let one silent receiver hold up the others.
        connector=aiohttp.TCPConnector(limit=0, socket_factory=None if allow_private else public_socket),
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
    )
