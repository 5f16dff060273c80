"""Replicas carry one export by its lanes: each event once, through changes of their number, kills and deletion."""

import asyncio
import gzip
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace

from exporter.config.export import Export, job_of
from exporter.destinations.platform import Platform
from exporter.destinations.s3 import S3Config
from exporter.exports.job import ExportJob
from exporter.exports.lanes.lane_store import LaneStore
from exporter.exports.progress import LEASE_S, ExportProgress
from exporter.exports.progress_store import UnreadableProgressError
from exporter.exports.run_store import RunStore
from exporter.exports.runner import ExportRunner
from exporter.exports.scheduler import ExportScheduler
from exporter.exports.window_writer import WriterDependencies
from exporter.exports.worker import Key
from exporter.formats import FORMATS
from exporter.pipeline.lane import WHOLE, Lane, Shards, lanes_of
from exporter.pipeline.ports import Destination, WindowLimits
from exporter.pipeline.source import EventSource
from shared.aws.clients import AwsClients
from shared.config.registry import ConfigEntry
from shared.contracts import streams, subjects
from shared.contracts.messages import Alert, Event, encode
from shared.contracts.subjects import partition_of
from shared.messaging.bus import Bus
from shared.messaging.kv import KeyValueStore
from shared.objects.app_reports import open_reports
from shared.runtime.settings import Settings
from shared.runtime.telemetry import Metrics
from support.outgoing import open_outgoing
from support.servers.moto import MotoServer

KEY: Key = ("shop", "all")
BUCKET = "events"
pytestmark = pytest.mark.timeout(180)


class Mesh:
    """One export in a bucket of moto, a stream, and replicas that all follow `shards`."""

    def __init__(self, bus: Bus, platform: Platform, moto: MotoServer) -> None:
        self.bus = bus
        self.platform = platform
        self.moto = moto
        self.plans = KeyValueStore(bus, streams.PLANS)
        self.lanes = LaneStore(self.plans, *KEY)
        self.run_store = RunStore(KeyValueStore(bus, streams.RUNS))
        self.shards: Shards = 4
        self.revision = 1
        self.is_configured = True
        self.ahead = timedelta()
        """The time by which the clock of all replicas is ahead: claims of killed ones end when it grows."""
        self.published: list[Event] = []
        self.puts: dict[str, int] = {}
        """Objects by the replica that put them."""
        self.replicas: list[ExportScheduler] = []

    def job(self, owner: str) -> ExportJob:
        destination = S3Config(
            bucket=BUCKET,
            region=self.moto.region,
            access_key=self.moto.credentials.access_key_id,
            secret_key=self.moto.credentials.secret_access_key,
            directory="raw",
            endpoint_url=self.moto.url,
        )
        export = Export(data="events", destination=destination, format="ndjson.gz", frequency_s=2.0, shards=self.shards)
        job = job_of(ConfigEntry(*KEY, export, self.revision), self.platform, FORMATS)

        @asynccontextmanager
        async def open_destination() -> AsyncIterator[Destination]:
            async with job.open_destination() as opened:
                yield Counted(opened, self.puts, owner)

        return replace(job, open_destination=open_destination)

    def scheduler(self, owner: str) -> ExportScheduler:
        async def ignore(alert: Alert) -> None:
            return

        async def is_deleted(key: Key) -> bool:
            return not self.is_configured

        dependencies = WriterDependencies(
            source=EventSource(self.bus),
            run_store=self.run_store,
            clock=lambda: datetime.now(UTC) + self.ahead,
            limits=WindowLimits(rows=25, rows_behind=25),
        )
        scheduler = ExportScheduler(
            runner=ExportRunner(dependencies, owner=owner, publish_alert=ignore, metrics=Metrics()),
            plans=self.plans,
            metrics=Metrics(),
            jobs=lambda: {KEY: self.job(owner)} if self.is_configured else {},
            is_deleted=is_deleted,
        )
        self.replicas.append(scheduler)
        return scheduler

    def change(self, shards: Shards) -> None:
        self.shards = shards
        self.revision += 1
        for scheduler in self.replicas:
            scheduler.changed()

    async def publish(self, count: int) -> None:
        for _ in range(count):
            number = len(self.published)
            user = f"u{number * 7 % 40}"
            event = Event(id=f"{number:06}", app_key="shop", code="c", user_id=user, occurred_at=number)
            self.published.append(event)
            await self.bus.publish(subjects.events("shop", partition_of(user)), encode([event]))

    async def until_delivered(self, shards: Shards) -> None:
        last = (await self.bus.stream_state(streams.EVENTS)).last_sequence
        async with asyncio.timeout(90):
            while True:
                lanes = await self.lanes.load()
                if len(lanes) == shards and all(one.cursor >= last and not one.claim for one in lanes.values()):
                    return
                await asyncio.sleep(0.2)

    async def files(self) -> list[tuple[int, int, list[dict[str, str]]]]:
        """The files, in the order of their sequences: the shard and the sequence of each, and its rows."""
        found = []
        async with self.moto.client("s3") as s3:
            async for page in s3.get_paginator("list_objects_v2").paginate(Bucket=BUCKET):
                for entry in page.get("Contents", []):
                    answer = await s3.get_object(Bucket=BUCKET, Key=entry["Key"])
                    text = gzip.decompress(await answer["Body"].read())
                    _, shard, sequence = entry["Key"].removesuffix(".ndjson.gz").rsplit("+", 2)
                    found.append((int(shard), int(sequence), [msgspec.json.decode(row) for row in text.splitlines()]))
        return sorted(found, key=lambda file: file[1])

    async def check(self) -> None:
        """Every event is there once, and those of a user are in their order."""
        rows = [row for _, _, rows in await self.files() for row in rows]
        assert sorted(row["id"] for row in rows) == [event.id for event in self.published]
        for user in {event.user_id for event in self.published}:
            ids = [row["id"] for row in rows if row["user_id"] == user]
            assert ids == sorted(ids)


class Counted:
    """A destination that counts what a replica puts. Satisfies `exporter.pipeline.ports.Destination`."""

    def __init__(self, opened: Destination, puts: dict[str, int], owner: str) -> None:
        self._opened = opened
        self._puts = puts
        self._owner = owner

    async def put(self, key: str, data: bytes, content_type: str) -> str:
        self._puts[self._owner] = self._puts.get(self._owner, 0) + 1
        return await self._opened.put(key, data, content_type)

    async def read(self, key: str, size_bytes: int) -> bytes | None:
        return await self._opened.read(key, size_bytes)


@pytest.fixture
async def mesh(export_bus: Bus, moto: MotoServer, tmp_path: Path) -> AsyncIterator[Mesh]:
    async def external_id(app_key: str) -> str:
        return f"{app_key}:of-a-test"

    await moto.create_bucket(BUCKET)
    async with open_outgoing() as outgoing, AwsClients(outgoing) as aws:
        reports = Settings(data_dir=str(tmp_path))
        platform = Platform(
            outgoing=outgoing,
            allow_private=True,
            open_reports=lambda limits: open_reports(reports, outgoing, limits),
            aws=aws,
            external_id=external_id,
        )
        yield Mesh(export_bus, platform, moto)


async def kill(running: asyncio.Task[None]) -> None:
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_two_replicas_carry_the_lanes_of_one_export(mesh: Mesh) -> None:
    async with asyncio.TaskGroup() as tasks:
        running = [tasks.create_task(mesh.scheduler(owner).run()) for owner in ("one", "two")]
        await mesh.until_delivered(4)
        for _ in range(20):
            await mesh.publish(40)
            await mesh.until_delivered(4)
            if len(mesh.puts) == 2:
                break
        for task in running:
            await kill(task)

    await mesh.check()
    assert {"one", "two"} == mesh.puts.keys()
    assert {0, 1, 2, 3} == {shard for shard, _, _ in await mesh.files()}


async def test_changes_of_shards_under_load_and_kills_lose_and_repeat_nothing(mesh: Mesh) -> None:
    mesh.shards = 1
    async with asyncio.TaskGroup() as tasks:
        running = {owner: tasks.create_task(mesh.scheduler(owner).run()) for owner in ("one", "two")}
        await mesh.until_delivered(1)
        changes: list[Shards] = [4, 2, 1]
        for number, shards in enumerate(changes):
            await mesh.publish(60)
            mesh.change(shards)
            # So the kill comes somewhere in the change, or while the next one begins.
            await mesh.publish(30 * number)
            owner, killed = running.popitem()
            await kill(killed)
            mesh.ahead += timedelta(seconds=LEASE_S)
            running = {f"{number}": tasks.create_task(mesh.scheduler(f"{owner}-{number}").run()), **running}
            await mesh.publish(20)
        await mesh.until_delivered(1)
        for task in running.values():
            await kill(task)

    await mesh.check()
    assert [WHOLE] == list(await mesh.lanes.load())


async def test_flush_returns_the_sum_of_all_lanes_also_during_a_change(mesh: Mesh) -> None:
    scheduler = mesh.scheduler("one")
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(scheduler.run())
        await mesh.until_delivered(4)
        await mesh.publish(60)
        mesh.change(2)

        run = await scheduler.flush(KEY, mesh.revision, 60)

        delivered = [row["id"] for _, _, rows in await mesh.files() for row in rows]
        await kill(running)
    assert sorted(delivered) == [event.id for event in mesh.published]
    assert ("completed", WHOLE) == (run.state, run.lane)
    records = (await mesh.run_store.page(*KEY, limit=100)).runs
    assert 60 == sum(record.rows_out for record in records)
    assert set(lanes_of(2)) <= {record.lane for record in records}


async def test_deleted_export_leaves_no_lane(mesh: Mesh) -> None:
    async with asyncio.TaskGroup() as tasks:
        scheduler = mesh.scheduler("one")
        running = tasks.create_task(scheduler.run())
        await mesh.until_delivered(4)
        assert 5 == len(await mesh.plans.scan())

        mesh.is_configured = False
        scheduler.changed()

        async with asyncio.timeout(30):
            while await mesh.plans.scan():
                await asyncio.sleep(0.05)
        await kill(running)


async def test_lanes_that_are_begun_twice_at_once_are_begun_once(mesh: Mesh) -> None:
    first = ExportProgress(cursor=7, slot_at=datetime.now(UTC))
    wanted: list[Shards] = [1, 4, 16, 2]

    await asyncio.gather(*(LaneStore(mesh.plans, *KEY).begin(shards, first) for shards in wanted))

    lanes = await mesh.lanes.load()
    assert len(lanes) in wanted
    assert {7} == {progress.cursor for progress in lanes.values()}
    assert len(lanes) + (len(lanes) > 1) == len(await mesh.plans.scan())


async def test_steps_of_two_replicas_at_once_replace_lanes_once(mesh: Mesh) -> None:
    await mesh.lanes.begin(1, ExportProgress(cursor=7, slot_at=datetime.now(UTC)))
    wanted: list[Shards] = [4, 2, 4, 8]

    for _ in range(3):
        await asyncio.gather(*(LaneStore(mesh.plans, *KEY).advance(shards) for shards in wanted))

    lanes = await mesh.lanes.load()
    assert set(lanes) == set(lanes_of(len(lanes)))  # type: ignore[arg-type]
    assert {7} == {progress.cursor for progress in lanes.values()}
    assert len(lanes) + (len(lanes) > 1) == len(await mesh.plans.scan())


async def test_lane_that_cannot_be_read_stops_its_export_and_is_erased_with_it(mesh: Mesh) -> None:
    await mesh.lanes.begin(4, ExportProgress(cursor=7, slot_at=datetime.now(UTC)))
    await mesh.plans.put("shop.all.4-2", b"{")

    with pytest.raises(UnreadableProgressError):
        await mesh.lanes.load()
    with pytest.raises(UnreadableProgressError):
        await mesh.lanes.progress_store(Lane(shards=4, shard=2)).load()
    await mesh.lanes.erase()
    assert [] == await mesh.plans.scan()
