"""
Send records to an address of the customer's, signed as Standard Webhooks tells (standardwebhooks.com, 1.0.0).

Configuration: nothing but the hook's own `url` and `secret`. The receiver checks `webhook-signature` over the id, the
time and the body as they came, refuses what is older than some minutes, and drops an id that it has seen.
Implementation: one POST a record, several at a time. What is sent again keeps its `webhook-id` and gets a new time.
An answer of 2xx is a confirmation; its body is not looked at.
Considerations: the address is the customer's word, so it may not lead into our own network: HTTPS, no redirects, and
the address that is really connected to is a public one, unless the operator allows others. A receiver says by 410 that
it wants no more; 401, 403, 404 and redirects are more often a deployment gone wrong. All of them pause the hook,
because another record would fare no better.
"""

import asyncio
import base64
import binascii
import hashlib
import hmac
import io
import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final
from urllib.parse import urlsplit

import aiohttp
from msgspec import Struct

from hooks.delivery.model import PAUSING, Failed, Outcome, Record, Sent, SinkLimits
from shared.config.secret import Secret
from shared.errors import (
    BusyError,
    CredentialsError,
    DeniedError,
    InvalidError,
    MillraceError,
    NotFoundError,
    TooLargeError,
    UnavailableError,
)
from shared.private_addresses import PrivateAddressError, public_socket, refuse_private_host

LIMITS: Final = SinkLimits(call_records=32, call_bytes=10 << 20, record_bytes=10 << 20)
"""Ours: a call is as slow as the slowest of its requests."""
AT_ONCE: Final = 16
"""Requests to one hook's address."""
REQUEST_S: Final = 15.0
ANSWER_BYTES: Final = 1 << 16
"""What is read of an answer, so that its connection can be used again. A longer one costs a new connection."""
MOST_WAIT_S: Final = 3600.0
"""The longest `Retry-After` that is obeyed."""

URL: Final = re.compile(r"https?://[!-~]+")
KEY_BYTES: Final = range(24, 65)
"""Standard Webhooks, Signature scheme: 192 to 512 bits."""

_STATUSES: Final[dict[int, tuple[type[MillraceError], str]]] = {
    401: (CredentialsError, "does not take the signature"),
    403: (DeniedError, "refuses"),
    404: (NotFoundError, "is not there"),
    408: (UnavailableError, "did not wait for the request"),
    410: (NotFoundError, "is gone"),
    413: (TooLargeError, "finds the record too large"),
    425: (UnavailableError, "is not ready"),
    429: (BusyError, "is asked too often"),
}


class WebhookConfig(Struct, frozen=True, kw_only=True):
    """Where one hook's records go, and what signs them: `whsec_` and the key in Base64."""

    url: str
    secret: Secret
    content_type: str = "application/json"

    def check(self, *, allow_private: bool) -> None:
        """
        Asks nobody.

        Raises:
            InvalidError: The address cannot be right, or is not reached from the internet although it has to be; or the
                secret is none. Names the field.
        """
        wrong = InvalidError("expected https://host[:port][/path][?query]", field="url")
        try:
            parts = urlsplit(self.url)
            host, _ = parts.hostname, parts.port
            (host or "").encode("idna")
        except ValueError:
            raise wrong from None
        if not URL.fullmatch(self.url) or not host or "@" in parts.netloc or "#" in self.url:
            raise wrong
        if not allow_private:
            if parts.scheme != "https":
                raise wrong
            refuse_private_host(self.url, "url")
        _ = self.key

    @property
    def key(self) -> bytes:
        """What signs. Raises `InvalidError` where the secret is none."""
        prefix, _, rest = self.secret.reveal().partition("_")
        try:
            key = base64.b64decode(rest, validate=True)
        except (binascii.Error, ValueError):
            key = b""
        if prefix != "whsec" or len(key) not in KEY_BYTES:
            raise InvalidError("expected whsec_ and 24 to 64 random bytes in Base64", field="secret")
        return key

    def open(
        self, http: aiohttp.ClientSession, clock: Callable[[], datetime], *, request_s: float = REQUEST_S
    ) -> "WebhookSink":
        """The sink. `http` is one of `open_session`."""
        return WebhookSink(self, http, clock, request_s)


def open_session(*, allow_private: bool) -> aiohttp.ClientSession:
    """For every webhook of the process: no cookies, and not into our own network unless that is allowed."""
    return aiohttp.ClientSession(
        # Each sink bounds itself; a bound here would let one silent receiver hold up the others.
        connector=aiohttp.TCPConnector(limit=0, socket_factory=None if allow_private else public_socket),
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
    )


def sign(key: bytes, message_id: str, timestamp: int, body: bytes) -> str:
    """The value of `webhook-signature`."""
    signed = b"%s.%d.%s" % (message_id.encode(), timestamp, body)
    return f"v1,{base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()}"


class WebhookSink:
    """One address. Satisfies `hooks.delivery.model.Sink`."""

    def __init__(
        self, config: WebhookConfig, http: aiohttp.ClientSession, clock: Callable[[], datetime], request_s: float
    ) -> None:
        self.limits = LIMITS
        self._config = config
        self._http = http
        self._clock = clock
        self._timeout = aiohttp.ClientTimeout(total=request_s)
        self._at_once = asyncio.Semaphore(AT_ONCE)

    async def send(self, batch: Sequence[Record]) -> Sequence[Outcome]:
        """
        One request a record.

        Where none is taken, what the receiver said of the first is raised as said of the whole call. Otherwise a call
        as a whole would make those that were taken go again.
        """
        try:
            key = self._config.key
        except InvalidError as error:
            # No record is guilty of it.
            raise CredentialsError(error.message) from None
        errors: list[MillraceError | None] = [None] * len(batch)
        pressing: list[MillraceError] = []

        async def post(place: int, record: Record) -> None:
            async with self._at_once:
                # Who is asked too often, or has no such address, is not asked for the rest.
                errors[place] = pressing[0] if pressing else await self._post(record, key)
            if isinstance(error := errors[place], (BusyError, *PAUSING)):
                pressing.append(error)

        async with asyncio.TaskGroup() as requests:
            for place, record in enumerate(batch):
                requests.create_task(post(place, record))
        lasting = [error for error in errors if error is not None and not _about_record(error)]
        if len(lasting) == len(batch):
            raise (pressing or lasting)[0]
        return [_outcome(error) for error in errors]

    async def ping(self) -> None:
        _, error = await self._ask("HEAD")
        if error is not None and not _about_record(error):
            raise error

    async def _post(self, record: Record, key: bytes) -> MillraceError | None:
        # A record of several events begins at the source of its first, and may hold others after a restart: under the
        # same id they would be dropped unread.
        content = hashlib.blake2b(record.data, digest_size=8).hexdigest()
        _, error = await self.post(f"{record.hook_id}:{record.source}:{content}", record.data, key)
        return error

    async def post(self, message_id: str, body: bytes, key: bytes) -> tuple[int | None, MillraceError | None]:
        """
        One signed request.

        Gives:
            The status where there was an answer, and what it means unless it is a confirmation.
        """
        timestamp = int(self._clock().timestamp())
        headers = {
            "Content-Type": self._config.content_type,
            "webhook-id": message_id,
            "webhook-timestamp": str(timestamp),
            "webhook-signature": sign(key, message_id, timestamp, body),
        }
        return await self._ask("POST", headers, body)

    async def _ask(
        self, method: str, headers: dict[str, str] | None = None, body: bytes | None = None
    ) -> tuple[int | None, MillraceError | None]:
        try:
            async with self._http.request(
                method,
                self._config.url,
                # As a file, because aiohttp warns of large bodies in one piece.
                data=io.BytesIO(body) if body is not None else None,
                headers={"User-Agent": "millrace"} | (headers or {}),
                allow_redirects=False,
                timeout=self._timeout,
            ) as answer:
                error = self._error(answer.status, answer.headers.get("Retry-After"))
                with suppress(aiohttp.ClientError, TimeoutError):
                    # The status has said everything.
                    await answer.content.read(ANSWER_BYTES)
        except TimeoutError:
            return None, UnavailableError(f"the receiver did not answer within {self._timeout.total:g} s")
        except ValueError as refused:
            # yarl and aiohttp find addresses wrong by rules of their own.
            return None, NotFoundError(f"the receiver's address is none ({type(refused).__name__})")
        except (aiohttp.ClientError, OSError) as refused:
            if isinstance(getattr(refused, "os_error", None), PrivateAddressError):
                return None, DeniedError("the receiver's address is not reachable from the internet")
            return None, UnavailableError(f"the receiver cannot be reached ({type(refused).__name__})")
        return answer.status, error

    def _error(self, status: int, retry_after: str | None) -> MillraceError | None:
        if 200 <= status < 300:
            return None
        if status in _STATUSES:
            kind, said = _STATUSES[status]
        elif 300 <= status < 400:
            kind, said = NotFoundError, "redirects, which is not followed"
        elif 400 <= status < 500:
            kind, said = InvalidError, "refuses the record"
        else:
            kind, said = UnavailableError, "fails"
        message = f"the receiver {said}: HTTP {status}"
        return kind(message, retry_after_s=_seconds(retry_after, self._clock) if kind.retryable else None)


def _about_record(error: MillraceError) -> bool:
    """Whether a record is guilty of it, and not the receiver."""
    return isinstance(error, InvalidError | TooLargeError)


def _outcome(error: MillraceError | None) -> Outcome:
    return Sent() if error is None else Failed(error.code, error.message, retryable=not _about_record(error))


def _seconds(retry_after: str | None, clock: Callable[[], datetime]) -> float | None:
    """RFC 9110, 10.2.3: seconds, or a date. What is neither says nothing."""
    if retry_after is None:
        return None
    if retry_after.isascii() and retry_after.isdigit():
        seconds = float(retry_after)
    else:
        try:
            then = parsedate_to_datetime(retry_after)
        except ValueError:
            return None
        seconds = ((then if then.tzinfo else then.replace(tzinfo=UTC)) - clock()).total_seconds()
    return min(max(seconds, 0.0), MOST_WAIT_S)
