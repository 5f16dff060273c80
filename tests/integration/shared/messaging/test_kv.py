"""A bucket on a real server."""

import asyncio
import random
from contextlib import aclosing

from shared.contracts import streams
from shared.messaging.bus import Bus
from shared.messaging.consumers import open_scan
from shared.messaging.kv import KeyValueStore, read_present
from shared.messaging.message import OutgoingMessage
from shared.messaging.provisioning.making import ensure
from shared.messaging.streams import subjects_in
from shared.runtime.settings import Settings

KEYS = 8


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
