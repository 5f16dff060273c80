"""Processes of the exporter are killed while events flow: every object is as planned, and every event in one, once."""

import asyncio
import csv
import gzip
import hashlib
import random
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from io import BytesIO, StringIO
from pathlib import Path
from typing import Any

import aiohttp
import duckdb
import fastavro
import pytest

from exporter.app import SERVICE
from exporter.exports.progress import LEASE_S, ExportProgress
from exporter.exports.progress_store import ProgressStore
from exporter.exports.worker import LOOK_S
from shared.contracts import streams, subjects
from shared.contracts.keys import LAKE_EXPORT, export_progress_key
from shared.contracts.messages import Event, EventType, encode, make_attributes
from shared.messaging.bus import Bus
from shared.messaging.kv import KeyValueStore
from shared.runtime.settings import Settings
from support.run_service import provision_for
from support.servers.exporter_process import exporter_process
from support.servers.moto import MotoServer
from support.waiting import until

pytestmark = pytest.mark.timeout(240)

BUCKET = "kills"
KILLS = 10
TAKE_OVER_S = 20.0
KINDS: tuple[EventType, ...] = ("click", "click", "event", "conversion")


class World:
    """Exports of the tenant `shop` as csv.gz and as Avro into a bucket, and its lake in a folder."""

    def __init__(self, bus: Bus, settings: Settings, token: dict[str, str], moto: MotoServer, folder: Path) -> None:
        self.bus = bus
        self.published: dict[str, EventType] = {}
        self._settings = settings
        self._token = token
        self._moto = moto
        self._folder = folder

    @asynccontextmanager
    async def replica(self, name: str) -> AsyncIterator[tuple[asyncio.subprocess.Process, "Client"]]:
        async with (
            exporter_process(self._settings, self._folder / name) as (process, url),
            aiohttp.ClientSession(headers=self._token) as http,
        ):
            yield process, Client(f"{url}/v1/apps/shop", http)

    async def publish(self, kind: EventType, events: int) -> None:
        ids = [f"{kind}-{len(self.published) + number}" for number in range(events)]
        batch = [
            Event(
                id=one,
                app_key="shop",
                type=kind,
                code=kind,
                user_id="u",
                occurred_at=1_795_314_667_123,
                attributes=make_attributes({"sub1": one, "ua": "a, b"}),
            )
            for one in ids
        ]
        # In the list first: an event that is stored, and whose acknowledgement is lost, counts as well.
        self.published |= dict.fromkeys(ids, kind)
        await self.bus.publish(subjects.events("shop", len(self.published) % subjects.PARTITIONS), encode(batch))

    async def flow(self, dice: random.Random) -> None:
        """Publish until cancelled."""
        while True:
            await asyncio.shield(self.publish(dice.choice(KINDS), dice.randrange(1, 30)))
            await asyncio.sleep(0.03)

    def form(self, **changes: Any) -> dict[str, Any]:
        destination = {
            "type": "s3",
            "bucket": BUCKET,
            "region": self._moto.region,
            "access_key": "testing",
            "secret_key": "testing-secret",
            "directory": changes["data"],
            "endpoint_url": self._moto.url,
        }
        return {"destination": destination, "frequency": 1440} | changes

    async def progress(self, export_id: str) -> ExportProgress:
        store = ProgressStore(KeyValueStore(self.bus, streams.PLANS), export_progress_key("shop", export_id))
        assert await store.load()
        return store.progress

    async def plan_writes(self) -> int:
        return (await self.bus.stream_state(streams.PLANS)).last_sequence

    async def objects(self, directory: str) -> dict[str, bytes]:
        async with self._moto.client("s3") as s3:
            listed = await s3.list_objects_v2(Bucket=BUCKET, Prefix=f"{directory}/")
            assert not listed["IsTruncated"]
            return {
                entry["Key"]: await (await s3.get_object(Bucket=BUCKET, Key=entry["Key"]))["Body"].read()
                for entry in listed.get("Contents", [])
            }

    def lake_ids(self, listed: dict[str, Any]) -> Counter[str]:
        root = Path(self._settings.data_dir) / "lake"
        files = [str(root / file["key"]) for day in listed["days"] for file in day["files"]]
        with duckdb.connect() as connection:
            rows = connection.execute("SELECT id FROM read_parquet(?)", [files]).fetchall()
        return Counter(id for (id,) in rows)


class Client:
    """The API of one replica."""

    def __init__(self, url: str, http: aiohttp.ClientSession) -> None:
        self._url = url
        self._http = http

    async def ask(self, method: str, path: str, body: Any = None) -> Any:
        async with self._http.request(method, self._url + path, json=body) as answer:
            text = await answer.text()
            assert 200 <= answer.status < 300, text
            return await answer.json() if text else None

    async def flush(self, path: str) -> Any:
        """Flush until a run has delivered all; one of a killed process has its claim for a moment."""
        async with asyncio.timeout(60):
            while True:
                with suppress(AssertionError):
                    run = await self.ask("POST", f"{path}/flush")
                    if run.get("state") == "completed":
                        return run
                await asyncio.sleep(0.1)


@pytest.fixture
async def world(settings: Settings, shop: dict[str, str], moto: MotoServer, bus: Bus, tmp_path: Path) -> World:
    await moto.create_bucket(BUCKET)
    await provision_for(SERVICE, settings)
    return World(bus, settings, shop, moto, tmp_path)


async def test_exporter_killed_ten_times_while_events_flow_repeats_and_loses_nothing(world: World) -> None:
    dice = random.Random(13)
    exports = ("/exports/clicks", "/exports/events", "/lake")
    async with world.replica("one") as (_, client):
        await client.ask("PUT", "/exports/clicks", world.form(data="clicks"))
        await client.ask("PUT", "/exports/events", world.form(data="events"))
        await world.publish("event", 1)
        await client.flush("/lake")
    flowing = asyncio.create_task(world.flow(dice))
    in_the_middle = 0
    for _ in range(KILLS):
        async with world.replica("one") as (process, client):
            # Every step of a run is a write: its claim, its plan, its cursor, its end.
            step = await world.plan_writes() + dice.randrange(1, 13)
            requests = [asyncio.create_task(client.flush(path)) for path in exports]

            async def has_come(step: int = step, requests: list[asyncio.Task[Any]] = requests) -> bool:
                return await world.plan_writes() >= step or all(request.done() for request in requests)

            await until(has_come, within_s=60)
            await asyncio.sleep(dice.random() / 50)
            process.kill()
            await process.wait()
            for request in requests:
                request.cancel()
            await asyncio.gather(*requests, return_exceptions=True)
        claims = [(await world.progress(export)).claim for export in ("clicks", "events", LAKE_EXPORT)]
        in_the_middle += any(claims)
    flowing.cancel()
    await asyncio.gather(flowing, return_exceptions=True)
    async with world.replica("one") as (_, client):
        for path in exports:
            await client.flush(path)
        recorded = {
            export: {
                file["key"]: file["sha256"]
                for run in (await client.ask("GET", f"/exports/{export}/runs?limit=100"))["runs"]
                for file in run.get("files", ())
            }
            for export in ("clicks", "events")
        }
        lake = world.lake_ids(await client.ask("GET", "/lake"))

    assert in_the_middle, "no kill was in the middle of a run"
    clicks, events = await world.objects("clicks"), await world.objects("events")
    for export, objects in (("clicks", clicks), ("events", events)):
        assert recorded[export] == {key: hashlib.sha256(data).hexdigest() for key, data in objects.items()}
    rows = [row["id"] for data in clicks.values() for row in csv.DictReader(StringIO(gzip.decompress(data).decode()))]
    records = [record["id"] for data in events.values() for record in fastavro.reader(BytesIO(data))]  # type: ignore[index, call-overload]
    assert Counter(id for id, kind in world.published.items() if kind == "click") == Counter(rows)
    assert Counter(world.published.keys()) == Counter(records)
    assert Counter(world.published.keys()) == lake


async def test_exports_of_a_killed_replica_go_on_elsewhere(world: World) -> None:
    # The leases of these processes are a tenth; the others' pause between looks is what it is in a mesh.
    assert LEASE_S + LOOK_S <= TAKE_OVER_S
    async with world.replica("two") as (_, second):
        killed_in_the_middle = False
        while not killed_in_the_middle:
            async with world.replica("one") as (process, first):
                if not world.published:
                    await first.ask("PUT", "/exports/clicks", world.form(data="clicks"))
                await world.publish("click", 5000)
                begun = await world.plan_writes()
                request = asyncio.create_task(first.flush("/exports/clicks"))

                async def has_begun(begun: int = begun) -> bool:
                    return await world.plan_writes() > begun

                await until(has_begun, within_s=60)
                process.kill()
                await process.wait()
                request.cancel()
                await asyncio.gather(request, return_exceptions=True)
            killed_in_the_middle = (await world.progress("clicks")).claim is not None
        # Nobody asks the second one, and its next period is hours away.
        await until(lambda: _is_delivered(world), within_s=60)
        [run, *_] = (await second.ask("GET", "/exports/clicks/runs"))["runs"]

    assert "completed" == run["state"]
    found = await world.objects("clicks")
    rows = [row["id"] for data in found.values() for row in csv.DictReader(StringIO(gzip.decompress(data).decode()))]
    assert Counter(world.published.keys()) == Counter(rows)


async def _is_delivered(world: World) -> bool:
    return (await world.progress("clicks")).claim is None
