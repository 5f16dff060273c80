"""Alerts of delivery: their order, their bound and their repetition."""

import asyncio

from hooks.delivery.alerts import WAITING, Alerts
from shared.contracts.messages import Alert
from shared.errors import CredentialsError
from support.fakes.sink import NOW, TARGET


async def test_a_pause_and_its_end_are_reported_in_order() -> None:
    heard: list[Alert] = []

    async def publish(alert: Alert) -> None:
        await asyncio.sleep(0)
        heard.append(alert)

    alerts = Alerts(publish, lambda: NOW)
    alerts.paused(TARGET, CredentialsError("the key is revoked"))
    alerts.resumed(TARGET)
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(alerts.run())
        while len(heard) < 2:
            await asyncio.sleep(0)
        running.cancel()

    assert ["target-paused", "target-resumed"] == [alert.kind for alert in heard]
    assert ("hooks", "shop", "orders", NOW) == (heard[0].service, heard[0].app_key, heard[0].subject, heard[0].at)
    assert heard[0].message.endswith("the key is revoked")


async def test_unpublished_alerts_are_bounded() -> None:
    async def publish(alert: Alert) -> None:
        raise AssertionError

    alerts = Alerts(publish, lambda: NOW)

    for _ in range(WAITING + 10):
        alerts.resumed(TARGET)

    assert WAITING == alerts.waiting


async def test_a_target_that_is_far_behind_is_reported_once_until_it_has_caught_up() -> None:
    async def publish(alert: Alert) -> None:
        raise AssertionError

    alerts = Alerts(publish, lambda: NOW)
    for _ in range(16):
        alerts.far_behind(TARGET, NOW)
    assert 1 == alerts.waiting

    alerts.caught_up(TARGET)
    alerts.far_behind(TARGET, NOW)
    alerts.lost(TARGET, 7)
    assert 3 == alerts.waiting
