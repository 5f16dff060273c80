"""Which provider an upload gets, and when one that was replaced is closed."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec
import pytest

from shared.errors import InvalidError
from shared.registry import Entry
from shared.secret_store import Secret
from storage.providers.amazon import AmazonStorageConfig
from storage.providers.selection import Selection
from storage.uploads import Headers

CONFIG = AmazonStorageConfig(access_key="A" * 16, secret_key=Secret("s"), bucket_name="media", region="eu-west-1")


class Place:
    """A provider that knows whether it is open."""

    name = "place"

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self.is_open = True

    async def put_if_absent(self, key: str, content: bytes, headers: Headers) -> bool:
        raise AssertionError("not called here")

    def url(self, key: str) -> str:
        return key


class Shelf:
    """Connectors by app, and every provider that was opened for one."""

    def __init__(self) -> None:
        self.local = Place("local")
        self.opened: list[Place] = []
        self.entries: dict[str, Entry[AmazonStorageConfig]] = {}
        self.selection = Selection(connector_of=self.entries.get, opening=self.opening, local=self.local)

    def save(self, revision: int, **changed: object) -> None:
        self.entries["shop"] = Entry("shop", "", msgspec.structs.replace(CONFIG, **changed), revision)

    @asynccontextmanager
    async def opening(self, config: AmazonStorageConfig) -> AsyncIterator[Place]:
        if config.prefix == "broken":
            raise InvalidError("broken")
        await asyncio.sleep(0)
        place = Place(config.prefix)
        self.opened.append(place)
        try:
            yield place
        finally:
            place.is_open = False


async def test_local_directory_is_used_without_an_active_connector() -> None:
    shelf = Shelf()
    async with shelf.selection.of("shop") as provider:
        assert shelf.local is provider
    shelf.save(1, active=False)
    async with shelf.selection.of("shop") as provider:
        assert shelf.local is provider


async def test_uploads_at_once_share_one_provider_that_stays_open_for_the_next() -> None:
    shelf = Shelf()
    shelf.save(1)

    async def use() -> int:
        async with shelf.selection.of("shop") as provider:
            return id(provider)

    used = await asyncio.gather(*(use() for _ in range(5)))

    assert 1 == len({*used, await use()}) == len(shelf.opened)
    assert shelf.opened[0].is_open


async def test_replaced_provider_closes_after_its_last_upload() -> None:
    shelf = Shelf()
    shelf.save(1, prefix="old")
    async with shelf.selection.of("shop") as old:
        shelf.save(2, prefix="new")
        async with shelf.selection.of("shop") as new:
            assert ("old", "new") == (old.prefix, new.prefix)
            assert shelf.opened[0].is_open

    assert [False, True] == [place.is_open for place in shelf.opened]


async def test_provider_closes_when_its_connector_is_deleted() -> None:
    shelf = Shelf()
    shelf.save(1)
    async with shelf.selection.of("shop"):
        pass
    del shelf.entries["shop"]

    async with shelf.selection.of("shop") as provider:
        assert shelf.local is provider

    assert not shelf.opened[0].is_open


async def test_provider_that_cannot_be_opened_fails_the_upload_and_not_the_next() -> None:
    shelf = Shelf()
    shelf.save(1, prefix="broken")
    with pytest.raises(InvalidError):
        async with shelf.selection.of("shop"):
            pass

    shelf.save(2, prefix="good")

    async with shelf.selection.of("shop") as provider:
        assert "good" == provider.prefix


async def test_leaving_closes_what_is_open() -> None:
    shelf = Shelf()
    shelf.save(1)
    async with shelf.selection, shelf.selection.of("shop"):
        pass

    assert not shelf.opened[0].is_open
