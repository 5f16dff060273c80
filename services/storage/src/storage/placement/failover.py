"""
Failover: an upload goes to the first active provider of its app, or to the next one during an outage.

Holds the `Provider` port and the health of each provider. A provider that refuses keys or permissions is never skipped,
because that would hide the refusal.
"""

from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from typing import Final, Literal, Protocol, TypeVar

from msgspec import Struct

from shared.contracts.alerts import AlertSender, PublishAlert
from shared.errors import CredentialsError, DeniedError, InvalidError, MillraceError, NotFoundError, UnavailableError
from shared.objects.errors import is_outage
from storage import SERVICE_NAME
from storage.content.body import Body
from storage.placement.circuit_breaker import CircuitBreaker

T = TypeVar("T")

CACHE_CONTROL: Final = "public, max-age=31536000, immutable"
"""A year, the longest that RFC 9111 caches agree on: the content of a key never changes."""

AlertKind = Literal["provider-down", "provider-refuses", "provider-recovered"]
ProviderState = Literal["ok", "down", "refuses"]


class ObjectHeaders(Struct, frozen=True, kw_only=True):
    """The HTTP headers that a provider serves an object with."""

    content_type: str
    content_disposition: str
    cache_control: str = CACHE_CONTROL


class Provider(Protocol):
    """
    A store of objects. Uploads call it concurrently, and retry for about two seconds while its error is retryable.

    `place` identifies the bucket, container or directory of the provider. It stays the same while objects are found
    there. Every key begins with `prefix`, which has no slash at its end and may be empty.

    `CredentialsError`, `DeniedError`, `NotFoundError` (no such bucket) and `InvalidError` (the bucket is in another
    region) fail the upload and raise an alert. On an outage (`shared.objects.errors.is_outage`) the next provider is
    used.
    """

    name: str
    place: str
    prefix: str

    async def put_if_absent(self, key: str, body: Body, headers: ObjectHeaders) -> bool:
        """
        Store a whole object. Each key stands for one content only.

        The object is durable on return. The time limit grows with the size alone. A cancelled call has stored all or
        nothing.

        Returns:
            True when the object is new.
        """
        ...

    async def delete(self, key: str) -> None:
        """Delete an object. An absent one counts as deleted."""
        ...

    def url(self, key: str) -> str:
        """The permanent URL of a key; it needs no credential."""
        ...


class ProviderHealth:
    """
    The health of one provider of one app.

    Alerts once when the provider begins to fail, once when it has recovered, and again when its configuration was
    changed and it still fails.
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
        self._alerts = AlertSender(SERVICE_NAME, alert, now)
        self._now = now
        self._alerted = False
        self._revision = 0

    def reset_if_changed(self, revision: int) -> None:
        """Forget the failure if the configuration has another revision: the change may have repaired it."""
        if revision != self._revision:
            self._revision = revision
            self.state, self.error, self.since = "ok", None, None
            self.breaker.record_answer()

    async def record_outage(self, error: MillraceError) -> None:
        """Record that the provider is not reached, does not answer, or fails by itself."""
        self.breaker.record_failure()
        await self._record_failure("down", error, f"{self.name} is passed over until it answers: {error.message}")

    async def record_refusal(self, error: MillraceError) -> None:
        """Record that the provider answers and refuses keys or permissions."""
        self.breaker.record_answer()
        await self._record_failure("refuses", error, f"uploads fail until its configuration is mended: {error.message}")

    async def record_success(self) -> None:
        """Record that the provider has stored an object."""
        self.breaker.record_answer()
        self.state, self.error, self.since = "ok", None, None
        if self._alerted:
            self._alerted = False
            await self._send_alert("provider-recovered", f"{self.name} stores objects again")

    async def _record_failure(self, state: Literal["down", "refuses"], error: MillraceError, message: str) -> None:
        unchanged, self.error = self.state == state, error
        if unchanged:
            return
        self.state, self.since, self._alerted = state, self._now(), True
        await self._send_alert("provider-down" if state == "down" else "provider-refuses", message)

    async def _send_alert(self, kind: AlertKind, message: str) -> None:
        await self._alerts.send(self.app_key, kind, self.name, message)


class ProviderSlot(Protocol):
    """An active provider of an app, opened on first use."""

    health: ProviderHealth

    def open(self) -> AbstractAsyncContextManager[Provider]:
        """The provider, open at least for the block. Raises the error of opening it."""
        ...


async def store_with_failover(
    slots: Sequence[ProviderSlot], store: Callable[[Provider], Awaitable[T]]
) -> tuple[T, bool]:
    """
    Store with the first provider that has no outage.

    Returns:
        The result of `store`, and whether a provider with precedence was skipped.

    Raises:
        UnavailableError: There is no provider, or every one has an outage; holds the message of the first.
        MillraceError: The refusal of a provider.
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
            # The bucket does not exist or is in another region: the connector is wrong, and not the upload.
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
    reason = health.error.message if health.error is not None else "it failed before"
    return UnavailableError(f"{health.name} is not used at present: {reason}", retry_after_s=health.breaker.wait_s)
