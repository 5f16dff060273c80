"""The lake holds each event once: while it is written, merged, read, removed and erased, and after kills."""

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pytest
from msgspec import Raw
from msgspec.structs import replace

from exporter.config.settings import ExporterSettings
from exporter.exports.lanes.lane_store import LaneStore
from exporter.exports.progress_store import ProgressStore
from exporter.exports.retry_budget import Signals
from exporter.exports.run_store import Run, RunStore, total
from exporter.exports.runner import ExportRunner
from exporter.exports.window_writer import WriterDependencies
from exporter.formats import formats_with
from exporter.formats.parquet import ParquetWorkers
from exporter.lake.lake import Lake
from exporter.lake.lists import LakeLists
from exporter.lake.upkeep import LakeUpkeep
from exporter.pipeline.lane import WHOLE, Lane, Shards
from exporter.pipeline.ports import WindowLimits
from exporter.pipeline.source import EventSource
from shared.contracts import streams, subjects
from shared.contracts.keys import LAKE_EXPORT, export_progress_key
from shared.contracts.messages import Event, EventType, Identities, User, encode
from shared.contracts.subjects import PARTITIONS
from shared.errors import ConflictError, NotFoundError
from shared.messaging.bus import Bus
from shared.messaging.kv import KeyValueStore
from shared.objects.config import LocalStoreConfig, StoreConfig
from shared.objects.store import CreatedObject, ObjectStore
from shared.runtime.telemetry import Metrics
from support.outgoing import open_store
from support.servers.moto import MotoServer

ODD = [
    '{"a":123456789012345678,"b":123456789012345678901234567890,"c":1.10,"d":1e-7,"e":-0.0,"f":1e400}',
    '{"a":null,"b":"","c":"\\r\\n","d":"\\u0000","e":[1,"1",{"x":[]}],"revenue":"12.345"}',
    '{"a":"4","device":4,"platform":{"x":1.0},"revenue":9999999999999999.99}',
    '{"a":4,"device":"\\ud83d\\ude00","campaign_id":"","revenue":"twelve"}',
    "{}",
]


class KilledError(BaseException):
    """Stands for the end of the process."""


class World:
    """The lake on a stream, in a folder, with a clock of its own."""

    def __init__(self, bus: Bus, folder: Path, workers: ParquetWorkers) -> None:
        self.bus = bus
        self.folder = folder
        self.config: StoreConfig = LocalStoreConfig(root=str(folder))
        self.now = datetime.now(UTC)
        self.limits: WindowLimits | None = None
        self.shards: Shards = 1
        self.plans = KeyValueStore(bus, streams.PLANS)
        self.lists = LakeLists(KeyValueStore(bus, streams.LAKE))
        self.source = EventSource(bus)
        self.changes = 0
        self.lake = Lake(
            bus=bus,
            lists=self.lists,
            plans=self.plans,
            source=self.source,
            open_lake=self.open_lake,
            location="local",
            parquet=formats_with(workers)["parquet"],
            clock=lambda: self.now,
            owner="one",
            on_change=self._count_change,
        )
        self.upkeep = LakeUpkeep(self.lists, self.open_lake, lambda: self.now, keep=timedelta(days=35))

    def _count_change(self) -> None:
        self.changes += 1

    @asynccontextmanager
    async def open_lake(self) -> AsyncIterator[ObjectStore]:
        async with open_store(self.config, guarded=False) as store:
            yield store

    async def publish(self, *events: Event, partition: int = 0) -> None:
        await self.bus.publish(subjects.events("shop", partition), encode(list(events)))

    async def run(self, owner: str = "one") -> Run:
        """Run every lane of the lake's export once."""
        self.now += timedelta(seconds=1)
        job = self.lake.jobs()[("shop", LAKE_EXPORT)]
        lanes = LaneStore(self.plans, "shop", LAKE_EXPORT)
        dependencies = WriterDependencies(
            source=self.source,
            run_store=RunStore(KeyValueStore(self.bus, streams.RUNS)),
            clock=lambda: self.now,
            limits=self.limits,
        )
        runner = ExportRunner(dependencies, owner=owner, publish_alert=self.bus.alert, metrics=Metrics())
        runs = []
        for lane in await lanes.advance(self.shards):
            progress_store = lanes.progress_store(lane)
            assert await progress_store.load()
            in_lane = replace(job, lane=lane)
            runs.append(await runner.run(in_lane, progress_store, trigger="schedule", signals=Signals()))
        return total(runs)

    async def keys(self) -> list[str]:
        return sorted(file.key for day in await self.lists.of_app("shop") for file in day.files.files)

    def stored(self) -> list[str]:
        return sorted(str(path.relative_to(self.folder)) for path in self.folder.rglob("*.parquet"))

    def rows(self, keys: Sequence[str], columns: str = "sequence, id") -> list[tuple[Any, ...]]:
        if not keys:
            return []
        with duckdb.connect() as connection:
            files = [str(self.folder / key) for key in keys]
            found: list[tuple[Any, ...]] = connection.execute(
                f"SELECT {columns} FROM read_parquet(?) ORDER BY sequence, id", [files]
            ).fetchall()
            return found


@pytest.fixture
async def world(export_bus: Bus, tmp_path: Path) -> AsyncIterator[World]:
    async with ParquetWorkers() as workers:
        yield World(export_bus, tmp_path / "lake", workers)


def event(id: str, attributes: str = "{}", kind: EventType = "event") -> Event:
    return Event(
        id=id,
        app_key="shop",
        type=kind,
        code="C",
        user_id="u",
        occurred_at=1_795_314_667_123,
        attributes=Raw(attributes.encode()),
        user=User(attributes=Raw(b'{"n":1.10}')),
        identities=Identities(msisdn="+90"),
    )


async def test_events_come_back_as_they_were_published(world: World) -> None:
    await world.publish(*(event(f"{number}", text) for number, text in enumerate(ODD)))
    await world.publish(event("click", kind="click"))
    await world.lake.apps.refresh()

    run = await world.run()

    assert ("completed", 6) == (run.state, run.rows_out)
    today = f"{world.now:%Y-%m-%d}"
    files = await world.keys()
    assert (
        [
            f"app=shop/type=click/date={today}/0000000001-0000000002.parquet",
            f"app=shop/type=event/date={today}/0000000001-0000000002.parquet",
        ]
        == files
        == world.stored()
    )
    columns = 'sequence, id, code, user_id, ext_id, occurred_at, "user", identities, attributes, revenue::VARCHAR'
    money = [None, "12.35", "9999999999999999.99", None, None]
    fields = ("C", "u", None, 1_795_314_667_123, '{"n":1.10}', '{"msisdn":"+90"}')
    assert world.rows(files[1:], columns) == [
        (1, f"{number}", *fields, text if text != "{}" else None, paid)
        for number, (text, paid) in enumerate(zip(ODD, money, strict=True))
    ]
    assert [("4", '{"x":1.0}')] == world.rows(files[1:], "device, platform")[2:3]


async def test_run_leaves_no_record(world: World) -> None:
    await world.publish(event("0"))
    await world.lake.apps.refresh()

    await world.run()

    assert [] == await KeyValueStore(world.bus, streams.RUNS).scan()


async def test_app_has_a_lake_from_its_first_event_on(world: World) -> None:
    await world.lake.apps.refresh()
    assert {} == world.lake.jobs()
    assert await world.lake.is_gone("shop")

    await world.publish(event("a"))
    await world.publish(event("b"))
    await world.lake.apps.refresh()
    await world.run()

    assert [("shop", LAKE_EXPORT)] == list(world.lake.jobs())
    assert 1 == world.changes
    assert not await world.lake.is_gone("shop")
    shown = await world.lake.files("shop")
    assert [("event", 2)] == [(day.type, day.rows) for day in shown.days]
    assert ["a", "b"] == [id for _, id in world.rows(await world.keys())]


async def test_finished_day_becomes_one_file_while_readers_keep_theirs(world: World) -> None:
    await world.publish(event("0"))
    await world.lake.apps.refresh()
    for number in range(1, 4):
        await world.run()
        await world.publish(event(f"{number}"))
    await world.run()
    before = await world.keys()
    await world.upkeep.work()
    assert 4 == len(before)
    assert before == await world.keys(), "the day is not over"

    world.now += timedelta(days=1, hours=1)
    await world.upkeep.work()

    [merged] = await world.keys()
    assert world.rows(before) == world.rows([merged])
    assert [f"{number}" for number in range(4)] == [id for _, id in world.rows([merged])]
    assert sorted([*before, merged]) == world.stored()
    world.now += timedelta(minutes=59)
    await world.upkeep.work()
    assert sorted([*before, merged]) == world.stored()
    world.now += timedelta(minutes=1)
    await world.upkeep.work()
    assert [merged] == world.stored() == await world.keys()


async def test_window_that_comes_again_after_its_day_was_merged_is_not_added(world: World) -> None:
    await world.publish(event("0"))
    await world.lake.apps.refresh()
    await world.run()
    await world.publish(event("1"))
    progress_store = ProgressStore(world.plans, export_progress_key("shop", LAKE_EXPORT))
    await progress_store.load()
    planned: list[Any] = []
    add = world.lists.add

    async def add_and_remember(app_key: str, lane: Lane, plan: Any) -> None:
        planned.append(plan)
        await add(app_key, lane, plan)

    world.lists.add = add_and_remember  # type: ignore[method-assign]
    await world.run()
    world.now += timedelta(days=1, hours=1)
    await world.upkeep.work()
    [merged] = await world.keys()

    await add("shop", WHOLE, planned[0])

    assert [merged] == await world.keys()


async def test_old_days_are_removed_an_hour_after_readers_lost_them(world: World) -> None:
    await world.publish(event("0"))
    await world.lake.apps.refresh()
    await world.run()
    [key] = await world.keys()
    (world.folder / key).with_name("orphan.parquet").write_bytes(b"left by a crash")
    world.now += timedelta(days=37)

    await world.upkeep.work()
    assert [] == await world.keys()
    assert 2 == len(world.stored())
    world.now += timedelta(hours=1)
    await world.upkeep.work()
    await world.upkeep.work()

    assert [] == world.stored()
    assert [] == await world.lists.all()


async def test_entry_that_is_no_list_stops_nothing(world: World) -> None:
    await world.publish(event("0"))
    await world.lake.apps.refresh()
    await world.run()
    entries = KeyValueStore(world.bus, streams.LAKE)
    await entries.put("shop.event.2026-99-99", b"{}")
    await entries.put("shop.click.2026-01-01", b"{")
    world.now += timedelta(days=1, hours=1)

    await world.upkeep.work()

    assert [id for _, id in world.rows(await world.keys())] == ["0"]


async def test_erased_lake_begins_anew_with_later_events(world: World) -> None:
    await world.publish(event("0"))
    await world.lake.apps.refresh()
    await world.run()
    await world.publish(event("1"))

    await world.lake.erasure.erase("shop")

    assert [] == world.stored() == await world.keys()
    with pytest.raises(NotFoundError):
        await world.lake.files("shop")
    await world.run()
    assert [] == await world.keys()
    await world.publish(event("2"))
    await world.run()
    assert ["2"] == [id for _, id in world.rows(await world.keys())]


async def test_erasure_waits_for_the_run_of_another_replica(world: World) -> None:
    await world.publish(event("0"))
    await world.lake.apps.refresh()
    reached, go_on = asyncio.Event(), asyncio.Event()
    add = world.lists.add

    async def add_late(app_key: str, lane: Lane, plan: Any) -> None:
        reached.set()
        await go_on.wait()
        await add(app_key, lane, plan)

    world.lists.add = add_late  # type: ignore[method-assign]
    running = asyncio.create_task(world.run(owner="two"))
    await reached.wait()
    erasing = asyncio.create_task(world.lake.erasure.erase("shop"))
    await asyncio.sleep(0)
    go_on.set()
    await asyncio.gather(running, erasing)

    assert [] == world.stored() == await world.keys()


async def test_lake_in_a_bucket_is_written_merged_and_erased(world: World, moto: MotoServer) -> None:
    await moto.create_bucket("events")
    settings = ExporterSettings(
        exporter_lake_bucket="events",
        exporter_lake_region=moto.region,
        exporter_lake_endpoint_url=moto.url,
        exporter_lake_access_key_id="testing",
        exporter_lake_secret_access_key="testing-secret",
    )
    world.config = settings.lake_store
    await world.publish(event("0"))
    await world.lake.apps.refresh()
    await world.run()
    await world.publish(event("1"))
    await world.run()

    world.now += timedelta(days=1, hours=1)
    await world.upkeep.work()

    [merged] = await world.keys()
    async with world.open_lake() as store:
        path = world.folder.with_name("merged.parquet")
        path.write_bytes((await store.get(merged)).data)
        assert ["0", "1"] == [id for _, id in world.rows([str(path)])]
        assert 3 == len([info async for info in store.list()])
        await world.lake.erasure.erase("shop")
        assert [] == [info async for info in store.list()]


@pytest.mark.timeout(180)
@pytest.mark.parametrize("shards", [(1,), (1, 2, 4)], ids=repr)
async def test_kills_at_random_points_lose_and_repeat_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch, shards: Sequence[Shards]
) -> None:
    world.limits = WindowLimits(rows=3, rows_behind=3)
    choose = random.Random(7)
    ids: list[str] = []
    left = 0

    def step() -> None:
        nonlocal left
        left -= 1
        if left == 0:
            raise KilledError

    put, put_many, put_object = KeyValueStore.put, KeyValueStore.put_many, ObjectStore.put_if_absent

    async def put_or_die(self: KeyValueStore, *args: Any, **options: Any) -> int:
        step()
        revision = await put(self, *args, **options)
        step()
        return revision

    async def put_many_or_die(self: KeyValueStore, *args: Any, **options: Any) -> None:
        step()
        await put_many(self, *args, **options)
        step()

    async def put_object_or_die(self: ObjectStore, *args: Any, **options: Any) -> CreatedObject | None:
        step()
        stored = await put_object(self, *args, **options)
        step()
        return stored

    monkeypatch.setattr(KeyValueStore, "put", put_or_die)
    monkeypatch.setattr(KeyValueStore, "put_many", put_many_or_die)
    monkeypatch.setattr(ObjectStore, "put_if_absent", put_object_or_die)
    for turn in range(24 // len(shards)):
        for _ in range(choose.randrange(1, 5)):
            new = [f"{turn}-{len(ids) + more}" for more in range(choose.randrange(1, 4))]
            ids += new
            left = 0
            await world.publish(
                *(event(id, kind=choose.choice(["event", "click"])) for id in new),
                partition=choose.randrange(PARTITIONS),
            )
        world.shards = choose.choice(shards)
        await world.lake.apps.refresh()
        left = choose.randrange(1, 40)
        with suppress(KilledError):
            await world.run()
        left = 0
        if choose.random() < 0.3:
            world.now += timedelta(days=1, hours=2)
            taken = await world.keys()
            before = world.rows(taken)
            await world.upkeep.work()
            assert before == world.rows(taken), "a reader has an hour"
            assert before == world.rows(await world.keys())
        world.now += timedelta(seconds=30)
        found = [id for _, id in world.rows(await world.keys())]
        assert len(found) == len(set(found))
        assert set(found) <= set(ids)
    for _ in range(3):
        # Lanes that are being replaced end first, others are killed ones' runs.
        await world.run()

    assert sorted(ids) == sorted(id for _, id in world.rows(await world.keys()))


async def test_progress_that_cannot_be_read_ends_with_the_erasure_of_its_lake_and_stops_no_other(world: World) -> None:
    await world.publish(event("0"))
    await world.bus.publish(subjects.events("rival", 0), encode([replace(event("0"), app_key="rival")]))
    await world.plans.put(export_progress_key("shop", LAKE_EXPORT), b'{"type":"io.nats.jetstream.api.v1"}')

    await world.lake.apps.refresh()
    assert {"rival", "shop"} == world.lake.apps.keys
    with pytest.raises(ConflictError, match="erase the lake"):
        await world.run()

    await world.lake.erasure.erase("shop")
    await world.publish(event("1"))
    await world.run()
    assert ["1"] == [id for _, id in world.rows(await world.keys())]
