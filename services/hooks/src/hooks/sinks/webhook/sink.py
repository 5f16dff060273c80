"""
Post records to one address.

Implementation: one POST a record, several at a time. A record that is sent again keeps its `webhook-id` and gets a new
time. An answer of 2xx is a confirmation; its body is not read.
Considerations: by 410 a receiver ends its subscription; 401, 403, 404 and redirects are more often a faulty
deployment. All of them pause the hook, because another record would fare no better. Of the 4xx only 400, 409, 413 and
422 say something of a record (RFC 9110, 15.5).
"""

import asyncio
import hashlib
import io
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final

import aiohttp

from hooks.delivery.model import PAUSING, Failed, Outcome, Record, Sent, SinkLimits
from hooks.delivery.packing import PackedRecord
from hooks.sinks.webhook.client import WebhookClient
from hooks.sinks.webhook.signing import sign, signing_key
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
from shared.outgoing.addresses import UNREACHABLE, is_refused

LIMITS: Final = SinkLimits(call_records=32, call_bytes=10 << 20, record_bytes=10 << 20)
"""Our own: a call is as slow as the slowest of its requests."""
AT_ONCE: Final = 16
"""Requests to one hook's address."""
REQUEST_S: Final = 15.0
ANSWER_BYTES: Final = 1 << 16
"""Most of an answer that is read, so that its connection can be used again. A longer one costs a new connection."""
MOST_WAIT_S: Final = 3600.0
"""The longest `Retry-After` that is obeyed."""

_STATUSES: Final[dict[int, tuple[type[MillraceError], str]]] = {
    400: (InvalidError, "refuses the record"),
    401: (CredentialsError, "does not take the signature"),
    403: (DeniedError, "refuses"),
    404: (NotFoundError, "is not there"),
    405: (DeniedError, "does not take POST"),
    408: (UnavailableError, "did not wait for the request"),
    409: (InvalidError, "refuses the record"),
    410: (NotFoundError, "is gone"),
    413: (TooLargeError, "finds the record too large"),
    422: (InvalidError, "refuses the record"),
    425: (UnavailableError, "is not ready"),
    429: (BusyError, "is asked too often"),
}


class WebhookSink:
    """One address. Satisfies `hooks.delivery.model.Sink`."""

    def __init__(
        self,
        client: WebhookClient,
        url: str,
        secret: Secret,
        content_type: str = "application/json",
        request_s: float = REQUEST_S,
    ) -> None:
        self.limits = LIMITS
        self._http = client.outgoing.guarded
        self._clock = client.clock
        self._url = url
        self._secret = secret
        self._content_type = content_type
        self._timeout = aiohttp.ClientTimeout(total=request_s)
        self._at_once = asyncio.Semaphore(AT_ONCE)

    async def send(self, batch: Sequence[Record]) -> Sequence[Outcome]:
        """
        One request a record.

        Where no record is accepted, the error of the first is raised for the whole call. Where some are, each has an
        outcome of its own: a failed call would send the accepted ones again.
        """
        try:
            key = signing_key(self._secret)
        except InvalidError as error:
            # The secret is wrong, and no record is.
            raise CredentialsError(error.message) from None
        errors: list[MillraceError | None] = [None] * len(batch)
        pressing: list[MillraceError] = []

        async def post(place: int, record: Record) -> None:
            async with self._at_once:
                # A receiver that is busy, or has no such address, gets none of the others.
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
        status, error = await self._request("HEAD")
        # A receiver that takes POST alone is there.
        if error is not None and status != 405 and not _about_record(error):
            raise error

    async def _post(self, record: Record, key: bytes) -> MillraceError | None:
        _, error = await self._post_signed(_message_id(record), record.data, key)
        return error

    async def probe(self, message_id: str, body: bytes) -> tuple[int | None, MillraceError | None]:
        """Post one message that is no record; returns as `_request` does."""
        return await self._post_signed(message_id, body, signing_key(self._secret))

    async def _post_signed(self, message_id: str, body: bytes, key: bytes) -> tuple[int | None, MillraceError | None]:
        timestamp = int(self._clock().timestamp())
        headers = {
            "Content-Type": self._content_type,
            "webhook-id": message_id,
            "webhook-timestamp": str(timestamp),
            "webhook-signature": sign(key, message_id, timestamp, body),
        }
        return await self._request("POST", headers, body)

    async def _request(
        self, method: str, headers: dict[str, str] | None = None, body: bytes | None = None
    ) -> tuple[int | None, MillraceError | None]:
        """
        One request.

        Returns:
            The status where there was an answer, and the error that it stands for unless it is a confirmation.
        """
        try:
            async with self._http.request(
                method,
                self._url,
                # As a file, because aiohttp warns of large bodies in one piece.
                data=io.BytesIO(body) if body is not None else None,
                headers={"User-Agent": "millrace"} | (headers or {}),
                timeout=self._timeout,
            ) as answer:
                error = self._error(answer.status, answer.headers.get("Retry-After"))
                with suppress(aiohttp.ClientError, TimeoutError):
                    # The status alone decides.
                    await answer.content.read(ANSWER_BYTES)
        except TimeoutError:
            return None, UnavailableError(f"the receiver did not answer within {self._timeout.total:g} s")
        except ValueError as refused:
            # yarl and aiohttp refuse some addresses that `URL` lets pass.
            return None, NotFoundError(f"the receiver's address is none ({type(refused).__name__})")
        except (aiohttp.ClientError, OSError) as refused:
            if is_refused(refused):
                return None, DeniedError(f"the receiver's address is {UNREACHABLE}")
            return None, UnavailableError(f"the receiver cannot be reached ({type(refused).__name__})")
        return answer.status, error

    def _error(self, status: int, retry_after: str | None) -> MillraceError | None:
        if 200 <= status < 300:
            return None
        if status in _STATUSES:
            kind, reason = _STATUSES[status]
        elif 300 <= status < 400:
            kind, reason = NotFoundError, "redirects, which is not followed"
        elif 400 <= status < 500:
            # These say something of the request, and so of every record: 402, 406, 407, 415, 426, 451 and others.
            kind, reason = DeniedError, "refuses what every record has"
        else:
            kind, reason = UnavailableError, "fails"
        message = f"the receiver {reason}: HTTP {status}"
        return kind(message, retry_after_s=_seconds(retry_after, self._clock) if kind.retryable else None)


def _message_id(record: Record) -> str:
    """
    The id of a record, by its hook and its events alone: the same after a restart and a change of the configuration. A
    record of several events may hold others after a restart, which the receiver would drop unread under the same id.
    """
    if not isinstance(record, PackedRecord):
        return f"{record.hook_id}:{record.source}"
    sources = ",".join(single.source for single in record.records)
    content = hashlib.blake2b(sources.encode(), digest_size=8).hexdigest()
    return f"{record.hook_id}:{record.source}:{content}"


def _about_record(error: MillraceError) -> bool:
    """Return whether the record causes the error, and not the receiver."""
    return isinstance(error, InvalidError | TooLargeError)


def _outcome(error: MillraceError | None) -> Outcome:
    if error is None:
        return Sent()
    throttled = isinstance(error, BusyError)
    return Failed(error.code, error.message, retryable=not _about_record(error), throttled=throttled)


def _seconds(retry_after: str | None, clock: Callable[[], datetime]) -> float | None:
    """RFC 9110, 10.2.3: seconds, or a date. None for any other value."""
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
