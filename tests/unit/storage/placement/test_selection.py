"""The order of an upload's providers, and the closing of a replaced one."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, datetime

import pytest
from msgspec import Struct

from shared.config.registry import ConfigEntry
from shared.contracts.messages import Alert
from shared.errors import CredentialsError, InvalidError
from storage.content.body import Body
from storage.placement.failover import ObjectHeaders, Provider, ProviderHealth
from storage.placement.selection import ConnectorSource, ProviderSelection


class FakeConnector(Struct, frozen=True, kw_only=True):
    """A connector."""

    place: str = "media"
    active: bool = True


class FakeProvider:
    """A provider that knows whether it is open."""

    prefix = ""

    def __init__(self, name: str, place: str) -> None:
        self.name = name
        self.place = place
        self.is_open = True

    async def put_if_absent(self, key: str, body: Body, headers: ObjectHeaders) -> bool:
        raise AssertionError("not called here")

    async def delete(self, key: str) -> None:
        raise AssertionError("not called here")

    def url(self, key: str) -> str:
        return key


async def ignore_alert(_: Alert) -> None:
    return None


class SelectionSetup:
    """Connectors by kind and app, and every provider that was opened for one."""

    def __init__(self, *, local: bool = True, max_open: int = 256) -> None:
        self.local = FakeProvider("local", "local")
        self.opened: list[FakeProvider] = []
        self.entries: dict[str, dict[str, ConfigEntry[FakeConnector]]] = {"amazon": {}, "azure": {}}
        self.selection = ProviderSelection(
            sources={name: ConnectorSource(entries.get, self._opening(name)) for name, entries in self.entries.items()},
            local=self.local if local else None,
            make_health=lambda app_key, name: ProviderHealth(
                app_key, name, alert=ignore_alert, now=lambda: datetime(2026, 11, 22, tzinfo=UTC), clock=lambda: 0.0
            ),
            max_open=max_open,
        )

    def save(self, revision: int, *, kind: str = "amazon", app: str = "shop", **changed: object) -> None:
        self.entries[kind][app] = ConfigEntry(app, "", FakeConnector(**changed), revision)  # type: ignore[arg-type]

    def names(self) -> list[str]:
        return [slot.health.name for slot in self.selection.slots("shop")]

    @asynccontextmanager
    async def first(self, app: str = "shop") -> AsyncIterator[Provider]:
        async with self.selection.slots(app)[0].open() as provider:
            yield provider

    def _opening(self, name: str) -> Callable[[FakeConnector], AbstractAsyncContextManager[FakeProvider]]:
        @asynccontextmanager
        async def opening(config: FakeConnector) -> AsyncIterator[FakeProvider]:
            if config.place == "broken":
                raise InvalidError("broken")
            await asyncio.sleep(0)
            place = FakeProvider(name, config.place)
            self.opened.append(place)
            try:
                yield place
            finally:
                place.is_open = False

        return opening


def test_active_connectors_come_in_their_order_and_the_local_directory_last() -> None:
    setup = SelectionSetup()
    assert ["local"] == setup.names()
    setup.save(1, kind="azure")
    assert ["azure", "local"] == setup.names()
    setup.save(2, kind="amazon")
    assert ["amazon", "azure", "local"] == setup.names()
    setup.save(3, kind="amazon", active=False)
    assert ["azure", "local"] == setup.names()


def test_local_directory_may_be_disabled() -> None:
    assert [] == SelectionSetup(local=False).names()


def test_app_has_its_own_connectors() -> None:
    setup = SelectionSetup()
    setup.save(1, app="rival")

    assert ["local"] == setup.names()


async def test_uploads_at_once_share_one_provider_that_stays_open_for_the_next() -> None:
    setup = SelectionSetup()
    setup.save(1)

    async def use() -> int:
        async with setup.first() as provider:
            return id(provider)

    used = await asyncio.gather(*(use() for _ in range(5)))

    assert 1 == len({*used, await use()}) == len(setup.opened)
    assert setup.opened[0].is_open


async def test_replaced_provider_closes_after_its_last_upload() -> None:
    setup = SelectionSetup()
    setup.save(1, place="old")
    async with setup.first() as old:
        setup.save(2, place="new")
        async with setup.first() as new:
            assert ("old", "new") == (old.place, new.place)
            assert setup.opened[0].is_open

    assert [False, True] == [place.is_open for place in setup.opened]


async def test_provider_closes_after_its_last_upload_when_its_connector_is_deleted() -> None:
    setup = SelectionSetup()
    setup.save(1)
    async with setup.first():
        del setup.entries["amazon"]["shop"]
        assert setup.opened[0].is_open

    assert not setup.opened[0].is_open
    assert ["local"] == setup.names()


async def test_provider_that_cannot_be_opened_fails_the_upload_and_not_the_next() -> None:
    setup = SelectionSetup()
    setup.save(1, place="broken")
    with pytest.raises(InvalidError):
        async with setup.first():
            pass

    setup.save(2, place="good")

    async with setup.first() as provider:
        assert "good" == provider.place


async def test_longest_unused_of_many_is_closed() -> None:
    setup = SelectionSetup(max_open=2)
    for app in ("a", "b", "a", "c"):
        setup.save(1, app=app, place=app)
        async with setup.first(app):
            pass

    assert {"a": True, "b": False, "c": True} == {place.place: place.is_open for place in setup.opened}


async def test_exit_closes_open_providers() -> None:
    setup = SelectionSetup()
    setup.save(1)
    async with setup.selection, setup.first():
        pass

    assert not setup.opened[0].is_open


async def test_object_is_reached_at_its_provider_also_when_it_is_inactive() -> None:
    setup = SelectionSetup()
    setup.save(1, place="s3://old", active=False)
    setup.save(2, kind="azure", place="azure://new")

    reached = []
    for place in ("s3://old", "azure://new", "local"):
        found = setup.selection.provider_at("shop", place)
        assert found is not None
        async with found as provider:
            reached.append((provider.name, provider.place))

    assert [("amazon", "s3://old"), ("azure", "azure://new"), ("local", "local")] == reached
    assert setup.selection.provider_at("shop", "s3://elsewhere") is None
    assert setup.selection.provider_at("rival", "s3://old") is None


async def test_failures_are_shown_without_naming_apps_and_to_each_app_its_own() -> None:
    setup = SelectionSetup()
    for app in ("shop", "rival"):
        setup.save(1, app=app)
        await setup.selection.slots(app)[0].health.record_refusal(CredentialsError("the key is revoked"))

    assert {"amazon": "refuses for 2 apps"} == setup.selection.degraded()
    amazon, local = setup.selection.statuses("shop")
    assert ("amazon", "refuses", "the key is revoked") == (amazon.name, amazon.state, amazon.message)
    assert ("local", "ok") == (local.name, local.state)

    setup.save(2, app="rival", active=False)
    assert {"amazon": "refuses for 1 app"} == setup.selection.degraded()
    setup.save(2, app="shop")
    setup.selection.slots("shop")
    assert {} == setup.selection.degraded()
