"""Which provider an upload goes to, when another takes its place, and what an operator hears."""

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
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Row:
    """Providers in a row, of which each answers or raises what a test says."""

    def __init__(self, *names: str) -> None:
        self.alerts: list[Alert] = []
        self.asked: list[str] = []
        self.clock = Clock()
        self.errors: dict[str, MillraceError] = {}
        self.slots = [RowSlot(self, name) for name in names]

    async def alert(self, alert: Alert) -> None:
        self.alerts.append(alert)

    async def store(self) -> tuple[str, bool]:
        async def store(provider: Provider) -> str:
            self.asked.append(provider.name)
            if error := self.errors.get(provider.name):
                raise error
            return provider.name

        return await store_with_failover(self.slots, store)

    def told(self) -> list[tuple[str, str]]:
        return [(alert.kind, alert.subject) for alert in self.alerts]


class RowProvider:
    def __init__(self, name: str) -> None:
        self.name = name


class RowSlot:
    """Satisfies `placement.Seat`."""

    def __init__(self, row: Row, name: str) -> None:
        self._name = name
        self.health = ProviderHealth(
            "shop", name, alert=row.alert, now=lambda: datetime(2026, 11, 22, tzinfo=UTC), clock=row.clock
        )

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Provider]:
        yield RowProvider(self._name)  # type: ignore[misc]


async def test_first_provider_takes_it() -> None:
    row = Row("amazon", "azure")

    assert ("amazon", False) == await row.store()
    assert ["amazon"] == row.asked
    assert [] == row.alerts


async def test_next_one_takes_the_place_of_one_in_trouble_and_both_the_answer_and_an_alert_say_so() -> None:
    row = Row("amazon", "azure", "local")
    row.errors["amazon"] = UnavailableError("it cannot be reached")

    assert [("azure", True)] * 2 == [await row.store(), await row.store()]

    assert [("provider-down", "amazon")] == row.told()
    assert "it cannot be reached" in row.alerts[0].message
    assert ("down", "ok") == (row.slots[0].health.state, row.slots[1].health.state)


@pytest.mark.parametrize("error", [CredentialsError("the key is revoked"), DeniedError("AccessDenied")])
async def test_refusal_is_never_hidden_by_another_provider_and_told_once(error: MillraceError) -> None:
    row = Row("amazon", "azure")
    row.errors["amazon"] = error

    for _ in range(3):
        with pytest.raises(type(error)):
            await row.store()

    assert ["amazon"] * 3 == row.asked
    assert [("provider-refuses", "amazon")] == row.told()


@pytest.mark.parametrize("error", [NotFoundError("NoSuchBucket"), InvalidError("the bucket is elsewhere")])
async def test_bucket_that_is_not_where_the_connector_says_is_no_fault_of_the_upload(error: MillraceError) -> None:
    row = Row("amazon", "azure")
    row.errors["amazon"] = error

    with pytest.raises(CredentialsError, match=error.message):
        await row.store()

    assert [("provider-refuses", "amazon")] == row.told()


@pytest.mark.parametrize("error", [TooLargeError("EntityTooLarge"), BusyError("two at once")])
async def test_what_is_no_outage_is_passed_on_and_says_nothing_of_the_provider(error: MillraceError) -> None:
    row = Row("amazon", "azure")
    row.errors["amazon"] = error

    with pytest.raises(type(error)):
        await row.store()

    assert [] == row.alerts
    assert "ok" == row.slots[0].health.state


async def test_provider_is_not_asked_any_more_after_three_outages_and_again_after_a_pause() -> None:
    row = Row("amazon", "azure")
    row.errors["amazon"] = UnavailableError("it cannot be reached")
    for _ in range(5):
        await row.store()
    assert 3 == row.asked.count("amazon")

    row.clock.now += 31
    del row.errors["amazon"]

    assert ("amazon", False) == await row.store()
    assert [("provider-down", "amazon"), ("provider-recovered", "amazon")] == row.told()


async def test_all_in_trouble_tells_what_the_first_said() -> None:
    row = Row("amazon", "local")
    row.errors = {"amazon": UnavailableError("no bucket answers"), "local": UnavailableError("the disk is full")}

    for _ in range(4):
        with pytest.raises(UnavailableError, match="no bucket answers"):
            await row.store()


async def test_no_provider_says_what_to_do() -> None:
    with pytest.raises(UnavailableError, match="activate a connector"):
        await Row().store()


async def test_new_configuration_is_asked_at_once_and_told_of_when_it_mends_nothing() -> None:
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

    assert ["provider-refuses", "provider-refuses", "provider-recovered"] == [kind for kind, _ in row.told()]
