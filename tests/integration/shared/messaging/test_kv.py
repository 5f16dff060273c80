"""A bucket on a real server."""

import asyncio
import itertools
import random
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as settings_of_hypothesis
from hypothesis import strategies as st

from shared.contracts import streams
from shared.errors import ConflictError
from shared.messaging.bus import Bus
from shared.messaging.consumers import open_scan
from shared.messaging.kv import BucketEntry, KeyValue, KeyValueStore, read_present
from shared.messaging.message import Message, OutgoingMessage
from shared.messaging.provisioning.making import ensure
from shared.messaging.pull import Pull
from shared.messaging.streams import subjects_in
from shared.runtime.settings import Settings

KEYS = 8
_numbers = itertools.count()


async def test_a_scan_ends_and_misses_nothing_when_entries_change_during_it(bus: Bus, settings: Settings) -> None:
    await ensure(bus, streams.PLANS, settings)
    store = KeyValueStore(bus, streams.PLANS)
    dice = random.Random(1)

    async def change(key: int) -> None:
        await asyncio.sleep(dice.random() * 0.006)
        await store.put(f"a.{key}", b"new")

    async with asyncio.timeout(30):
        for _ in range(300):
            for key in range(KEYS):
                await store.put(f"a.{key}", b"old")
            async with asyncio.TaskGroup() as tasks:
                scans = [tasks.create_task(store.scan(keys)) for keys in (">", "a.*")]
                for key in dice.sample(range(KEYS), dice.randint(1, KEYS)):
                    tasks.create_task(change(key))

            assert [KEYS, KEYS] == [len(scan.result()) for scan in scans]


async def test_keys_removed_without_a_marker_do_not_block_a_scan(bus: Bus, settings: Settings) -> None:
    await ensure(bus, streams.PLANS, settings)
    store = KeyValueStore(bus, streams.PLANS)
    for key in ("a", "b", "c"):
        await store.put(key, b"old")
    everything = f"$KV.{streams.PLANS.name}.>"

    async with (
        asyncio.timeout(30),
        open_scan(bus, streams.PLANS, subject=everything, last_per_subject=True, capacity=1) as scan,
        aclosing(read_present(bus, streams.PLANS, everything, scan)) as entries,
    ):
        found = [store.stored(await anext(entries)).key]
        await bus.js.purge_stream(streams.PLANS.stream, subject=f"$KV.{streams.PLANS.name}.c")
        found += [store.stored(message).key async for message in entries]

    assert ["a", "b"] == found


async def test_a_scan_of_nothing_ends(bus: Bus, settings: Settings) -> None:
    await ensure(bus, streams.PLANS, settings)
    store = KeyValueStore(bus, streams.PLANS)
    await store.put("a.1", b"old")

    assert [] == await store.scan("b.*")
    await store.delete("a.1")
    assert [] == await store.scan()


async def test_the_subjects_of_a_bucket_are_listed_completely(bus: Bus, settings: Settings) -> None:
    await ensure(bus, streams.PLANS, settings)
    prefix = f"$KV.{streams.PLANS.name}."
    keys = [f"a.{number}" for number in range(100_500)]
    for at in range(0, len(keys), 1000):
        await bus.publish_together([OutgoingMessage(prefix + key, b"") for key in keys[at : at + 1000]], timeout_s=30)

    assert {prefix + key for key in keys} == (await subjects_in(bus, streams.PLANS, f"{prefix}a.*")).keys()


@pytest.fixture
async def runs(bus: Bus, settings: Settings) -> KeyValueStore:
    await ensure(bus, streams.RUNS, settings)
    return KeyValueStore(bus, streams.RUNS)


writes = st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 12), st.integers(0, 300)), max_size=60)


@settings_of_hypothesis(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(written=writes, most=st.integers(1, 9), first=st.integers(1, 5))
async def test_pages_hold_every_entry_once_with_the_newest_first(
    runs: KeyValueStore, written: list[tuple[str, int, int]], most: int, first: int
) -> None:
    """Entries of another owner lie between, some are written anew, and the limits are small."""
    one, other = (f"{next(_numbers)}" for _ in range(2))
    expected: dict[str, tuple[int, bytes]] = {}
    for owner, number, size in written:
        key, data = f"{one if owner == 'a' else other}.{number}", b"x" * size
        revision = await runs.put(key, data)
        if owner == "a":
            expected[key] = revision, data

    found: list[KeyValue] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("shared.messaging.kv.FIRST_RANGE", first)
        patch.setattr("shared.messaging.kv.PAGE_BYTES", 500)
        before = None
        while page := await runs.newest(f"{one}.*", before=before, most=most):
            assert len(page) <= most
            assert sum(len(entry.data) for entry in page[:-1]) < 500
            found += page
            before = page[-1].revision

    newest_first = sorted(expected.items(), key=lambda item: item[1][0], reverse=True)
    assert [(key, data) for key, (_, data) in newest_first] == [(entry.key, entry.data) for entry in found]


async def test_entries_are_written_and_deleted_together_or_not_at_all(runs: KeyValueStore) -> None:
    old = await runs.put("old", b"1")

    with pytest.raises(ConflictError):
        await runs.put_many([BucketEntry("old", None, old), BucketEntry("new", b"2", 99)])
    assert ["old"] == [stored.key for stored in await runs.scan()]
    await runs.put_many([BucketEntry("old", None, old), BucketEntry("new", b"2", 0)])

    assert ["new"] == [stored.key for stored in await runs.scan()]
    assert None is await runs.get("old")


async def test_a_page_of_many_entries_costs_few_scans(runs: KeyValueStore, monkeypatch: pytest.MonkeyPatch) -> None:
    for start in range(0, 20_000, 1000):
        await runs.put_many(
            BucketEntry(f"{'rare' if number % 4000 == 0 else 'often'}.{number:05}", b"x", 0)
            for number in range(start, start + 1000)
        )
    scans, read = 0, 0
    opened = open_scan

    @asynccontextmanager
    async def counted(*args: Any, **options: Any) -> AsyncIterator[Pull]:
        nonlocal scans
        scans += 1
        async with opened(*args, **options) as scan:
            yield scan

    decoded = KeyValueStore.stored

    def stored(self: KeyValueStore, message: Message) -> KeyValue:
        nonlocal read
        read += 1
        return decoded(self, message)

    monkeypatch.setattr("shared.messaging.kv.open_scan", counted)
    monkeypatch.setattr(KeyValueStore, "stored", stored)
    often = await runs.newest("often.*", most=50)
    assert [f"often.{number:05}" for number in range(19_999, 19_949, -1)] == [entry.key for entry in often]
    assert scans == 1
    assert read < 600

    scans = read = 0
    rare = await runs.newest("rare.*", most=50)
    assert ["rare.16000", "rare.12000", "rare.08000", "rare.04000", "rare.00000"] == [entry.key for entry in rare]
    assert scans <= 8
    assert read == 5
