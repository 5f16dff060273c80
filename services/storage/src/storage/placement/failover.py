"""
Where an upload goes: to the first active provider of its app, or to the next one while that is in trouble. Holds the
port that a provider fills, and what is known of how each one does.

A provider that refuses keys or permissions is never passed over, because that would hide it (reference: storage.md,
decision 7).
"""

from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from typing import Final, Literal, Protocol, TypeVar

from msgspec import Struct

from shared.contracts.alerts import AlertSender, PublishAlert
from shared.errors import CredentialsError, DeniedError, InvalidError, MillraceError, NotFoundError, UnavailableError
from shared.objects.errors import is_outage
from storage.content.body import Body
from storage.placement.circuit_breaker import CircuitBreaker

T = TypeVar("T")

CACHE_CONTROL: Final = "public, max-age=31536000, immutable"
"""A year, the longest that RFC 9111 caches agree on: the content of a key never changes."""

AlertKind = Literal["provider-down", "provider-refuses", "provider-recovered"]
ProviderState = Literal["ok", "down", "refuses"]


class Headers(Struct, frozen=True, kw_only=True):
    """What a provider serves an object with."""

    content_type: str
    content_disposition: str
    cache_control: str = CACHE_CONTROL


class Provider(Protocol):
    """
    Where objects lie. Uploads call it, many at a time, and again for about two seconds while its error is retryable.

    `place` tells the bucket, container or directory and stays the same while objects are found there;
    `prefix` is what every key begins with, without a slash at the end, and may be empty.

    Errors decide what happens next: `CredentialsError` and `DeniedError` go to the uploader, as do `NotFoundError` (no
    such bucket) and `InvalidError` (the bucket is elsewhere), and an operator hears of them; an outage
    (`shared.objects.errors.is_outage`) lets the next provider take its place.
    """

    name: str
    place: str
    prefix: str

    async def put_if_absent(self, key: str, body: Body, headers: Headers) -> bool:
        """
        Store a whole object under a key that nobody else gives other content, and say whether it was new.

        Durable when it returns, which it does within a time that grows with the size alone. Cancelled, it has stored
        all or nothing.
        """
        ...

    async def delete(self, key: str) -> None:
        """Take an object away. One that is not there counts as taken away."""
        ...

    def url(self, key: str) -> str:
        """The permanent address of a key, which needs no credential."""
        ...


class ProviderHealth:
    """
    How one provider of one app does, and what an operator hears of it: once when it begins to fail, once when it is
    well again, and anew when its configuration was changed without mending it.
    """

    def __init__(
        self,
        app_key: str,
        name: str,
        *,
        alert: PublishAlert,
        now: Callable[[], datetime],
        clock: Callable[[], float],
    ) -> None:
        self.app_key = app_key
        self.name = name
        self.breaker = CircuitBreaker(clock)
        self.state: ProviderState = "ok"
        self.error: MillraceError | None = None
        self.since: datetime | None = None
        self._alerts = AlertSender("storage", alert, now)
        self._now = now
        self._alerted = False
        self._revision = 0

    def reset_if_changed(self, revision: int) -> None:
        """The configuration may have changed, and may have mended it."""
        if revision != self._revision:
            self._revision = revision
            self.state, self.error, self.since = "ok", None, None
            self.breaker.record_answer()

    async def record_outage(self, error: MillraceError) -> None:
        """It is not reached, is silent or fails by itself."""
        self.breaker.record_failure()
        await self._record_failure("down", error, f"{self.name} is passed over until it answers: {error.message}")

    async def record_refusal(self, error: MillraceError) -> None:
        """It answers, and refuses keys or permissions."""
        self.breaker.record_answer()
        await self._record_failure("refuses", error, f"uploads fail until its configuration is mended: {error.message}")

    async def record_success(self) -> None:
        """It has stored something."""
        self.breaker.record_answer()
        self.state, self.error, self.since = "ok", None, None
        if self._alerted:
            self._alerted = False
            await self._send_alert("provider-recovered", f"{self.name} stores objects again")

    async def _record_failure(self, state: Literal["down", "refuses"], error: MillraceError, message: str) -> None:
        known, self.error = self.state == state, error
        if known:
            return
        self.state, self.since, self._alerted = state, self._now(), True
        await self._send_alert("provider-down" if state == "down" else "provider-refuses", message)

    async def _send_alert(self, kind: AlertKind, message: str) -> None:
        await self._alerts.send(self.app_key, kind, self.name, message)


class ProviderSlot(Protocol):
    """A provider that is active for an app, opened only when it is asked."""

    health: ProviderHealth

    def open(self) -> AbstractAsyncContextManager[Provider]:
        """The provider, open at least while the block runs. Raises what opening it raises."""
        ...


async def store_with_failover(
    slots: Sequence[ProviderSlot], store: Callable[[Provider], Awaitable[T]]
) -> tuple[T, bool]:
    """
    Store with the first provider that is not in trouble; and whether one with precedence was passed over.

    Raises:
        UnavailableError: There is no provider, or every one is in trouble; says what the first one said.
        MillraceError: What a provider said that no other should hide.
    """
    first: MillraceError | None = None
    for slot in slots:
        health = slot.health
        if not health.breaker.allow_request():
            first = first or _skipped(health)
            continue
        try:
            async with slot.open() as provider:
                outcome = await store(provider)
        except (CredentialsError, DeniedError) as error:
            await health.record_refusal(error)
            raise
        except (InvalidError, NotFoundError) as error:
            # A bucket that is not there, or is elsewhere: the connector is wrong, and not what was uploaded.
            await health.record_refusal(error)
            raise CredentialsError(error.message) from error
        except MillraceError as error:
            if not is_outage(error):
                raise
            await health.record_outage(error)
            first = first or error
            continue
        await health.record_success()
        return outcome, first is not None
    raise first or UnavailableError("no provider is active for this app: activate a connector")


def _skipped(health: ProviderHealth) -> MillraceError:
    reason = health.error.message if health.error is not None else "it was in trouble"
    return UnavailableError(f"{health.name} is not asked at present: {reason}", retry_after_s=health.breaker.wait_s)
