"""Alerts of delivery: their order, their bound and their repetition."""

import asyncio
from datetime import datetime, timedelta

from hooks.delivery.alerts import WAITING, Alerts
from shared.contracts.messages import Alert
from shared.contracts.streams import ALERTS
from shared.errors import CredentialsError
from support.fakes.sink import NOW, TARGET


async def test_a_pause_and_its_end_are_reported_in_order() -> None:
    heard: list[Alert] = []

    async def publish(alert: Alert, message_id: str | None = None) -> None:
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
    async def publish(alert: Alert, message_id: str | None = None) -> None:
        raise AssertionError

    alerts = Alerts(publish, lambda: NOW)

    for _ in range(WAITING + 10):
        alerts.resumed(TARGET)

    assert WAITING == alerts.waiting


async def test_a_target_that_is_far_behind_is_reported_once_until_it_has_caught_up() -> None:
    async def publish(alert: Alert, message_id: str | None = None) -> None:
        raise AssertionError

    alerts = Alerts(publish, lambda: NOW)
    for _ in range(16):
        alerts.far_behind(TARGET, NOW)
    assert 1 == alerts.waiting

    alerts.caught_up(TARGET)
    alerts.far_behind(TARGET, NOW)
    alerts.lost(TARGET, 7)
    assert 3 == alerts.waiting


async def ids_of(alerts: Alerts, heard: list[str | None]) -> list[str | None]:
    """The message ids of the alerts that were made."""
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(alerts.run())
        while alerts.waiting:
            await asyncio.sleep(0)
        running.cancel()
    return heard


async def test_the_same_alert_has_the_same_id_on_every_replica_and_a_later_one_another() -> None:
    replicas: list[list[str | None]] = []
    clock = Clock(NOW)
    for _ in range(2):
        heard: list[str | None] = []

        async def publish(alert: Alert, message_id: str | None = None, *, told: list[str | None] = heard) -> None:
            told.append(message_id)

        alerts = Alerts(publish, clock)
        alerts.paused(TARGET, CredentialsError("the key is revoked"))
        alerts.resumed(TARGET)
        alerts.paused(TARGET, CredentialsError("the key is revoked"))
        alerts.lost(TARGET, 7)
        alerts.events_full("EVENTS takes no more")
        replicas.append(await ids_of(alerts, heard))
    clock.now += timedelta(seconds=ALERTS.duplicate_window_s + 1)
    alerts.paused(TARGET, CredentialsError("the key is revoked"))
    *_, later = await ids_of(alerts, heard)

    first, other = replicas
    assert first == other[:5]
    assert 3 == len({*first[:3]})
    assert first[0] == later, "the first one of its time"
    assert None is first[3], "each replica has lost others"
    assert "hooks:-:events-full:EVENTS:0" == first[4], "whichever app was refused first"


class Clock:
    """A clock that the test moves."""

    def __init__(self, now: datetime) -> None:
        self.now = now

    def __call__(self) -> datetime:
        return self.now
