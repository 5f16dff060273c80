"""A bucket on a real server."""

import asyncio
import random

from shared import subjects
from shared.buckets import BucketStore
from shared.bus import Bus
from shared.settings import Settings
from shared.streams import ensure

KEYS = 8


async def test_a_scan_ends_and_misses_nothing_when_entries_change_during_it(bus: Bus, settings: Settings) -> None:
    await ensure(bus, subjects.PLANS, settings)
    store = BucketStore(bus, subjects.PLANS)
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
