"""Which providers an upload gets in which order, and when one that was replaced is closed."""

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
from storage.placement.failover import Headers, Provider, ProviderHealth
from storage.placement.selection import ConnectorSource, ProviderSelection


class Drawer(Struct, frozen=True, kw_only=True):
    """A connector."""

    place: str = "media"
    active: bool = True


class Place:
    """A provider that knows whether it is open."""

    prefix = ""

    def __init__(self, name: str, place: str) -> None:
        self.name = name
        self.place = place
        self.is_open = True

    async def put_if_absent(self, key: str, body: Body, headers: Headers) -> bool:
        raise AssertionError("not called here")

    async def delete(self, key: str) -> None:
        raise AssertionError("not called here")

    def url(self, key: str) -> str:
        return key


async def unheard(_: Alert) -> None:
    return None


class Shelf:
    """Connectors by kind and app, and every provider that was opened for one."""

    def __init__(self, *, local: bool = True, max_open: int = 256) -> None:
        self.local = Place("local", "local")
        self.opened: list[Place] = []
        self.entries: dict[str, dict[str, ConfigEntry[Drawer]]] = {"amazon": {}, "azure": {}}
        self.selection = ProviderSelection(
            sources={name: ConnectorSource(entries.get, self._opening(name)) for name, entries in self.entries.items()},
            local=self.local if local else None,
            make_health=lambda app_key, name: ProviderHealth(
                app_key, name, alert=unheard, now=lambda: datetime(2026, 11, 22, tzinfo=UTC), clock=lambda: 0.0
            ),
            max_open=max_open,
        )

    def save(self, revision: int, *, kind: str = "amazon", app: str = "shop", **changed: object) -> None:
        self.entries[kind][app] = ConfigEntry(app, "", Drawer(**changed), revision)  # type: ignore[arg-type]

    def names(self) -> list[str]:
        return [slot.health.name for slot in self.selection.slots("shop")]

    @asynccontextmanager
    async def first(self, app: str = "shop") -> AsyncIterator[Provider]:
        async with self.selection.slots(app)[0].open() as provider:
            yield provider

    def _opening(self, name: str) -> Callable[[Drawer], AbstractAsyncContextManager[Place]]:
        @asynccontextmanager
        async def opening(config: Drawer) -> AsyncIterator[Place]:
            if config.place == "broken":
                raise InvalidError("broken")
            await asyncio.sleep(0)
            place = Place(name, config.place)
            self.opened.append(place)
            try:
                yield place
            finally:
                place.is_open = False

        return opening


def test_active_connectors_come_in_their_order_and_the_local_directory_last() -> None:
    shelf = Shelf()
    assert ["local"] == shelf.names()
    shelf.save(1, kind="azure")
    assert ["azure", "local"] == shelf.names()
    shelf.save(2, kind="amazon")
    assert ["amazon", "azure", "local"] == shelf.names()
    shelf.save(3, kind="amazon", active=False)
    assert ["azure", "local"] == shelf.names()


def test_local_directory_may_be_ruled_out() -> None:
    assert [] == Shelf(local=False).names()


def test_app_has_its_own_connectors() -> None:
    shelf = Shelf()
    shelf.save(1, app="rival")

    assert ["local"] == shelf.names()


async def test_uploads_at_once_share_one_provider_that_stays_open_for_the_next() -> None:
    shelf = Shelf()
    shelf.save(1)

    async def use() -> int:
        async with shelf.first() as provider:
            return id(provider)

    used = await asyncio.gather(*(use() for _ in range(5)))

    assert 1 == len({*used, await use()}) == len(shelf.opened)
    assert shelf.opened[0].is_open


async def test_replaced_provider_closes_after_its_last_upload() -> None:
    shelf = Shelf()
    shelf.save(1, place="old")
    async with shelf.first() as old:
        shelf.save(2, place="new")
        async with shelf.first() as new:
            assert ("old", "new") == (old.place, new.place)
            assert shelf.opened[0].is_open

    assert [False, True] == [place.is_open for place in shelf.opened]


async def test_provider_closes_after_its_last_upload_when_its_connector_is_deleted() -> None:
    shelf = Shelf()
    shelf.save(1)
    async with shelf.first():
        del shelf.entries["amazon"]["shop"]
        assert shelf.opened[0].is_open

    assert not shelf.opened[0].is_open
    assert ["local"] == shelf.names()


async def test_provider_that_cannot_be_opened_fails_the_upload_and_not_the_next() -> None:
    shelf = Shelf()
    shelf.save(1, place="broken")
    with pytest.raises(InvalidError):
        async with shelf.first():
            pass

    shelf.save(2, place="good")

    async with shelf.first() as provider:
        assert "good" == provider.place


async def test_longest_unused_of_many_is_closed() -> None:
    shelf = Shelf(max_open=2)
    for app in ("a", "b", "a", "c"):
        shelf.save(1, app=app, place=app)
        async with shelf.first(app):
            pass

    assert {"a": True, "b": False, "c": True} == {place.place: place.is_open for place in shelf.opened}


async def test_leaving_closes_what_is_open() -> None:
    shelf = Shelf()
    shelf.save(1)
    async with shelf.selection, shelf.first():
        pass

    assert not shelf.opened[0].is_open


async def test_object_is_reached_where_it_lies_also_when_nothing_new_goes_there() -> None:
    shelf = Shelf()
    shelf.save(1, place="s3://old", active=False)
    shelf.save(2, kind="azure", place="azure://new")

    reached = []
    for place in ("s3://old", "azure://new", "local"):
        found = shelf.selection.provider_at("shop", place)
        assert found is not None
        async with found as provider:
            reached.append((provider.name, provider.place))

    assert [("amazon", "s3://old"), ("azure", "azure://new"), ("local", "local")] == reached
    assert shelf.selection.provider_at("shop", "s3://elsewhere") is None
    assert shelf.selection.provider_at("rival", "s3://old") is None


async def test_what_fails_is_shown_without_naming_apps_and_to_each_app_its_own() -> None:
    shelf = Shelf()
    for app in ("shop", "rival"):
        shelf.save(1, app=app)
        await shelf.selection.slots(app)[0].health.record_refusal(CredentialsError("the key is revoked"))

    assert {"amazon": "refuses for 2 apps"} == shelf.selection.degraded()
    amazon, local = shelf.selection.statuses("shop")
    assert ("amazon", "refuses", "the key is revoked") == (amazon.name, amazon.state, amazon.message)
    assert ("local", "ok") == (local.name, local.state)

    shelf.save(2, app="rival", active=False)
    assert {"amazon": "refuses for 1 app"} == shelf.selection.degraded()
    shelf.save(2, app="shop")
    shelf.selection.slots("shop")
    assert {} == shelf.selection.degraded()
