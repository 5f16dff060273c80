"""Profiles read from memory, which a watch of each app that is read keeps true."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial

import msgspec
import pytest

from shared.contracts.profile_keys import profile_key
from shared.contracts.streams import PROFILES
from shared.messaging import kv
from shared.messaging.bus import Bus
from shared.messaging.kv import KeyValue, KeyValueStore
from shared.messaging.provisioning.making import ensure
from shared.profiles.cache import ProfileCache
from shared.profiles.store import Profiles
from shared.runtime.settings import Settings
from support.waiting import until


class Reads:
    """Reads of the bucket: their count, and a step to run before an answer is returned."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        self.before_answer: Callable[[], Awaitable[None]] | None = None
        get = KeyValueStore.get

        async def counted(store: KeyValueStore, key: str) -> KeyValue | None:
            self.count += 1
            stored = await get(store, key)
            if self.before_answer is not None:
                await self.before_answer()
            return stored

        monkeypatch.setattr(kv.KeyValueStore, "get", counted)


@pytest.fixture
async def profiles(bus: Bus, settings: Settings) -> Profiles:
    await ensure(bus, PROFILES, settings)
    return Profiles(bus)


@pytest.fixture
async def cache(profiles: Profiles, bus: Bus) -> AsyncIterator[ProfileCache]:
    cache = ProfileCache(bus)
    async with asyncio.TaskGroup() as tasks:
        keeping = tasks.create_task(cache.run())
        yield cache
        keeping.cancel()


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Reads:
    return Reads(monkeypatch)


async def has(cache: ProfileCache, key: tuple[str, str], city: str | int | None) -> bool:
    """Return whether the cache has this city; None is no profile."""
    profile = await cache.get(*key)
    return (msgspec.json.decode(profile.attributes["city"]) if profile else None) == city


async def kept(cache: ProfileCache, reads: Reads, key: tuple[str, str]) -> bool:
    """Return whether a read is answered without the bucket."""
    before = reads.count
    await cache.get(*key)
    return reads.count == before


async def watched(bus: Bus) -> set[str | None]:
    return {info.config.filter_subject for info in await bus.js.consumers_info(PROFILES.stream)}


async def move(profiles: Profiles, key: tuple[str, str], city: str | int) -> None:
    await profiles.merge(*key, attributes={"city": city})


USER, NEIGHBOUR, STRANGER = ("shop", "1"), ("shop", "2"), ("rival", "1")


async def test_a_reader_sees_every_change(profiles: Profiles, cache: ProfileCache) -> None:
    for number in range(20):
        await move(profiles, USER, number)
        await until(partial(has, cache, USER, number))


async def test_a_profile_is_read_from_the_bucket_once(profiles: Profiles, cache: ProfileCache, reads: Reads) -> None:
    await move(profiles, USER, "Bursa")
    await until(partial(kept, cache, reads, USER))

    for _ in range(5):
        assert await has(cache, USER, "Bursa")
    assert await kept(cache, reads, USER)


async def test_that_there_is_none_is_kept_until_there_is_one(
    profiles: Profiles, cache: ProfileCache, reads: Reads
) -> None:
    await until(partial(kept, cache, reads, USER))
    assert await has(cache, USER, None)

    await move(profiles, USER, "Bursa")

    await until(partial(has, cache, USER, "Bursa"))
    assert await kept(cache, reads, USER)


async def test_a_deleted_profile_is_none(profiles: Profiles, cache: ProfileCache, bus: Bus, reads: Reads) -> None:
    await move(profiles, USER, "Bursa")
    await until(partial(kept, cache, reads, USER))

    await KeyValueStore(bus, PROFILES).delete(profile_key(*USER))

    await until(partial(has, cache, USER, None))


async def test_only_apps_that_are_read_are_watched_and_each_once(
    profiles: Profiles, cache: ProfileCache, bus: Bus, reads: Reads
) -> None:
    await move(profiles, STRANGER, "Ankara")
    for key in (USER, NEIGHBOUR):
        await until(partial(kept, cache, reads, key))

    assert {"$KV.PROFILES.shop.>"} == await watched(bus)
    assert 1 == len(await bus.js.consumers_info(PROFILES.stream))


async def test_each_app_has_its_own(profiles: Profiles, cache: ProfileCache, reads: Reads) -> None:
    for key in (USER, STRANGER):
        await until(partial(kept, cache, reads, key))

    await move(profiles, STRANGER, "Ankara")

    await until(partial(has, cache, STRANGER, "Ankara"))
    assert await has(cache, USER, None)


async def test_an_answer_that_a_change_has_overtaken_is_not_kept(
    profiles: Profiles, cache: ProfileCache, reads: Reads
) -> None:
    for key in (USER, NEIGHBOUR):
        await move(profiles, key, "Bursa")
    await until(partial(kept, cache, reads, NEIGHBOUR))

    async def overtake() -> None:
        """The watch reports changes in their order: once it reports the second, it has reported the first."""
        reads.before_answer = None
        for key in (USER, NEIGHBOUR):
            await move(profiles, key, "Ankara")
        await until(partial(has, cache, NEIGHBOUR, "Ankara"))

    reads.before_answer = overtake
    assert await has(cache, USER, "Bursa")

    assert await has(cache, USER, "Ankara")


async def test_what_was_read_before_the_watch_began_is_not_kept(profiles: Profiles, bus: Bus, reads: Reads) -> None:
    await move(profiles, USER, "Bursa")
    cache = ProfileCache(bus)
    async with asyncio.TaskGroup() as tasks:

        async def begin() -> None:
            reads.before_answer = None
            await move(profiles, USER, "Ankara")
            keeping.append(tasks.create_task(cache.run()))
            await until(partial(kept, cache, reads, NEIGHBOUR))

        keeping: list[asyncio.Task[None]] = []
        reads.before_answer = begin
        assert await has(cache, USER, "Bursa")

        assert await has(cache, USER, "Ankara")
        keeping[0].cancel()


async def test_a_change_that_is_no_profile_is_none_and_the_watch_goes_on(
    profiles: Profiles, cache: ProfileCache, bus: Bus
) -> None:
    for ext_id in ("spoiled", "other"):
        await profiles.merge("shop", ext_id, attributes={"city": "x"})
        await until(partial(has, cache, ("shop", ext_id), "x"))
    await KeyValueStore(bus, PROFILES).put(profile_key("shop", "spoiled"), b"garbage")
    await profiles.merge("shop", "other", attributes={"city": "y"})

    await until(partial(has, cache, ("shop", "other"), "y"))
    assert await cache.get("shop", "spoiled") is None
