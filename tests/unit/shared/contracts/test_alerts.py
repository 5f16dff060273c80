"""Alerts of a service."""

from datetime import UTC, datetime

from shared.contracts.alerts import AlertSender
from shared.contracts.messages import Alert

NOW = datetime(2026, 11, 30, 12, tzinfo=UTC)


async def test_an_alert_is_published_with_the_service_and_the_time() -> None:
    published: list[Alert] = []

    async def publish(alert: Alert) -> None:
        published.append(alert)

    await AlertSender("storage", publish, lambda: NOW).send("shop", "provider-down", "amazon", "it is silent")

    assert [
        Alert(service="storage", app_key="shop", kind="provider-down", subject="amazon", message="it is silent", at=NOW)
    ] == published


async def test_an_alert_may_be_made_now_and_published_later() -> None:
    published: list[Alert] = []

    async def publish(alert: Alert) -> None:
        published.append(alert)

    sender = AlertSender("hooks", publish, iter([NOW]).__next__)
    alert = sender.make("shop", "events-lost", "orders", "7 events")
    assert [] == published

    await sender.publish(alert)

    assert [NOW] == [alert.at for alert in published]
