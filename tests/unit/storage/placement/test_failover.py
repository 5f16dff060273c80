"""The provider of an upload, failover to another one, and the alerts."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import pytest

from shared.contracts.messages import Alert
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
from storage.placement.failover import Provider, ProviderHealth, store_with_failover


class Clock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Row:
    """Providers in an order. Each stores, or raises the error that a test sets."""

    def __init__(self, *names: str) -> None:
        self.alerts: list[Alert] = []
        self.tried: list[str] = []
        self.clock = Clock()
        self.errors: dict[str, MillraceError] = {}
        self.slots = [RowSlot(self, name) for name in names]

    async def alert(self, alert: Alert) -> None:
        self.alerts.append(alert)

    async def store(self) -> tuple[str, bool]:
        async def store(provider: Provider) -> str:
            self.tried.append(provider.name)
            if error := self.errors.get(provider.name):
                raise error
            return provider.name

        return await store_with_failover(self.slots, store)

    def sent(self) -> list[tuple[str, str]]:
        return [(alert.kind, alert.subject) for alert in self.alerts]


class RowProvider:
    def __init__(self, name: str) -> None:
        self.name = name


class RowSlot:
    """Satisfies `storage.placement.failover.ProviderSlot`."""

    def __init__(self, row: Row, name: str) -> None:
        self._name = name
        self.health = ProviderHealth(
            "shop", name, alert=row.alert, now=lambda: datetime(2026, 11, 22, tzinfo=UTC), clock=row.clock
        )

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Provider]:
        yield RowProvider(self._name)  # type: ignore[misc]


async def test_first_provider_stores_the_object() -> None:
    row = Row("amazon", "azure")

    assert ("amazon", False) == await row.store()
    assert ["amazon"] == row.tried
    assert [] == row.alerts


async def test_next_provider_replaces_a_failing_one_and_the_reply_and_an_alert_report_it() -> None:
    row = Row("amazon", "azure", "local")
    row.errors["amazon"] = UnavailableError("it cannot be reached")

    assert [("azure", True)] * 2 == [await row.store(), await row.store()]

    assert [("provider-down", "amazon")] == row.sent()
    assert "it cannot be reached" in row.alerts[0].message
    assert ("down", "ok") == (row.slots[0].health.state, row.slots[1].health.state)


@pytest.mark.parametrize("error", [CredentialsError("the key is revoked"), DeniedError("AccessDenied")])
async def test_refusal_is_never_hidden_by_another_provider_and_alerts_once(error: MillraceError) -> None:
    row = Row("amazon", "azure")
    row.errors["amazon"] = error

    for _ in range(3):
        with pytest.raises(type(error)):
            await row.store()

    assert ["amazon"] * 3 == row.tried
    assert [("provider-refuses", "amazon")] == row.sent()


@pytest.mark.parametrize("error", [NotFoundError("NoSuchBucket"), InvalidError("the bucket is elsewhere")])
async def test_missing_or_misplaced_bucket_is_a_fault_of_the_connector(error: MillraceError) -> None:
    row = Row("amazon", "azure")
    row.errors["amazon"] = error

    with pytest.raises(CredentialsError, match=error.message):
        await row.store()

    assert [("provider-refuses", "amazon")] == row.sent()


@pytest.mark.parametrize("error", [TooLargeError("EntityTooLarge"), BusyError("two at once")])
async def test_other_errors_than_outages_are_raised_and_do_not_change_the_health(error: MillraceError) -> None:
    row = Row("amazon", "azure")
    row.errors["amazon"] = error

    with pytest.raises(type(error)):
        await row.store()

    assert [] == row.alerts
    assert "ok" == row.slots[0].health.state


async def test_provider_is_skipped_after_three_outages_and_tried_again_after_a_pause() -> None:
    row = Row("amazon", "azure")
    row.errors["amazon"] = UnavailableError("it cannot be reached")
    for _ in range(5):
        await row.store()
    assert 3 == row.tried.count("amazon")

    row.clock.now += 31
    del row.errors["amazon"]

    assert ("amazon", False) == await row.store()
    assert [("provider-down", "amazon"), ("provider-recovered", "amazon")] == row.sent()


async def test_failure_of_all_providers_raises_the_message_of_the_first() -> None:
    row = Row("amazon", "local")
    row.errors = {"amazon": UnavailableError("no bucket answers"), "local": UnavailableError("the disk is full")}

    for _ in range(4):
        with pytest.raises(UnavailableError, match="no bucket answers"):
            await row.store()


async def test_error_without_a_provider_names_the_remedy() -> None:
    with pytest.raises(UnavailableError, match="activate a connector"):
        await Row().store()


async def test_new_configuration_is_tried_at_once_and_alerts_when_it_still_fails() -> None:
    row = Row("amazon", "azure")
    health = row.slots[0].health
    health.reset_if_changed(1)
    row.errors["amazon"] = CredentialsError("the key is revoked")
    for revision in (1, 2):
        health.reset_if_changed(revision)
        with pytest.raises(CredentialsError):
            await row.store()

    health.reset_if_changed(3)
    assert "ok" == health.state
    del row.errors["amazon"]
    await row.store()

    assert ["provider-refuses", "provider-refuses", "provider-recovered"] == [kind for kind, _ in row.sent()]
