"""Replays as customers use them: HTTP, a real NATS server, and moto for their bucket."""

import asyncio
import csv
import gzip
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from io import StringIO
from typing import Any

import pytest
from aiohttp import ClientSession

from exporter.app import SERVICE
from exporter.replays.ranges import stored_at
from exporter.replays.replay import REPLAYS, AppReplays, Replay
from shared.contracts import streams, subjects
from shared.contracts.keys import replay_export
from shared.contracts.messages import Event, encode
from shared.contracts.subjects import partition_of
from shared.messaging.bus import Bus
from shared.runtime.settings import Settings
from shared.service import RunningService
from support.run_service import running
from support.servers.moto import MotoServer
from support.stored_messages import messages
from support.waiting import until

BUCKET = "raw-data"


class ReplayingCustomer:
    """The tenant `shop` with an export of clicks."""

    def __init__(self, service: RunningService, http: ClientSession, moto: MotoServer, bus: Bus) -> None:
        self.service = service
        self.moto = moto
        self.bus = bus
        self._http = http

    async def ask(self, method: str, path: str, body: Any = None, *, status: int = 200) -> Any:
        url = f"{self.service.url}/v1/apps/shop/exports{path}"
        async with self._http.request(method, url, json=body) as answer:
            text = await answer.text()
            assert status == answer.status, text
            return await answer.json() if text else None

    async def put_export(self, export_id: str = "clicks", directory: str = "clicks", **changes: Any) -> None:
        destination = {
            "type": "s3",
            "bucket": BUCKET,
            "region": self.moto.region,
            "access_key": "testing",
            "secret_key": "testing-secret",
            "directory": directory,
            "endpoint_url": self.moto.url,
        }
        await self.ask("PUT", f"/{export_id}", {"data": "clicks", "destination": destination} | changes)

    async def publish(self, *ids: str) -> None:
        for one in ids:
            event = Event(id=one, app_key="shop", type="click", code="click", user_id=one, occurred_at=1)
            await self.bus.publish(subjects.events("shop", partition_of(one)), encode([event]))

    async def replay(self, start: int | str = 1, folder: str = "again", *, status: int = 201, **form: Any) -> Any:
        return await self.ask("POST", "/clicks/replays", {"from": start, "folder": folder} | form, status=status)

    async def completed(self, replay_id: str) -> Any:
        async def is_completed() -> bool:
            shown = await self.ask("GET", f"/clicks/replays/{replay_id}")
            return bool(shown["state"] == "completed")

        await until(is_completed)
        return await self.ask("GET", f"/clicks/replays/{replay_id}")

    async def ids_in(self, folder: str) -> list[str]:
        found = []
        async with self.moto.client("s3") as s3:
            listed = await s3.list_objects_v2(Bucket=BUCKET, Prefix=f"{folder}/")
            for entry in listed.get("Contents", []):
                if entry["Key"].endswith(".csv.gz"):
                    data = await (await s3.get_object(Bucket=BUCKET, Key=entry["Key"]))["Body"].read()
                    found += [row["id"] for row in csv.DictReader(StringIO(gzip.decompress(data).decode()))]
        return sorted(found)

    async def put_stuck_replay(self) -> str:
        """Store a replay that cannot end: its export writes into another bucket by now."""
        replay = Replay(
            id="stuck",
            export_id="clicks",
            first_sequence=1,
            last_sequence=1,
            place="another bucket",
            folder="stuck",
            created_at=datetime(2026, 11, 22, tzinfo=UTC),
        )
        await self.service.mesh.registry.put(REPLAYS, "shop", "", AppReplays(replays=(replay,)))
        return replay.id


@asynccontextmanager
async def customer_of(
    settings: Settings, token: dict[str, str], moto: MotoServer, bus: Bus
) -> AsyncIterator[ReplayingCustomer]:
    async with running(SERVICE, settings) as service, ClientSession(headers=token) as http:
        yield ReplayingCustomer(service, http, moto, bus)


@pytest.fixture
async def customer(
    settings: Settings, shop: dict[str, str], moto: MotoServer, bus: Bus
) -> AsyncIterator[ReplayingCustomer]:
    await moto.create_bucket(BUCKET)
    async with customer_of(settings, shop, moto, bus) as customer:
        await customer.put_export()
        yield customer


async def test_delivered_events_are_written_once_more_into_a_folder_of_their_own(customer: ReplayingCustomer) -> None:
    await customer.publish("a", "b", "c")
    await customer.ask("POST", "/clicks/flush")
    await customer.publish("later")

    started = await customer.replay()
    shown = await customer.completed(started["id"])

    assert ("waiting", 1, 3, 0) == tuple(
        started[name] for name in ("state", "first_sequence", "last_sequence", "delivered_to")
    )
    assert ["a", "b", "c"] == await customer.ids_in("again") == await customer.ids_in("clicks")
    assert (3, "completed", 3) == (shown["delivered_to"], shown["run"]["state"], shown["run"]["rows_out"])
    assert [shown] == (await customer.ask("GET", "/clicks/replays"))["replays"]
    runs = await customer.ask("GET", f"/clicks/replays/{started['id']}/runs")
    assert [shown["run"]["id"]] == [run["id"] for run in runs["runs"]]
    assert [replay_export("clicks", started["id"])] == [run["export_id"] for run in runs["runs"]]
    run = await customer.ask("POST", "/clicks/flush")
    assert 1 == run["rows_out"]
    assert ["a", "b", "c"] == await customer.ids_in("again")


async def test_range_by_time_begins_with_it_and_ends_before_it(customer: ReplayingCustomer) -> None:
    await customer.publish("a", "b", "c", "d")
    await customer.ask("POST", "/clicks/flush")
    stored = await messages(customer.bus, streams.EVENTS, "events.shop.*")

    started = await customer.replay(stored_at(stored[1]).isoformat(), to=stored_at(stored[3]).isoformat())
    await customer.completed(started["id"])

    assert ["b", "c"] == await customer.ids_in("again")


async def test_events_from_before_the_export_can_be_had_by_a_replay(customer: ReplayingCustomer) -> None:
    await customer.publish("a")
    await customer.put_export("younger", "younger")

    started = await customer.ask("POST", "/younger/replays", {"from": 1, "folder": "filled"}, status=201)

    async def is_filled() -> bool:
        return await customer.ids_in("filled") == ["a"]

    await until(is_filled)
    assert 1 == started["last_sequence"]


async def test_replay_has_manifests_where_its_export_has_them(customer: ReplayingCustomer) -> None:
    await customer.put_export(manifest=True)
    await customer.publish("a")
    await customer.ask("POST", "/clicks/flush")

    started = await customer.replay()
    await customer.completed(started["id"])

    async with customer.moto.client("s3") as s3:
        listed = await s3.list_objects_v2(Bucket=BUCKET, Prefix="again/_manifest/")
    assert ["again/_manifest/0000000001-0000000001.json"] == [entry["Key"] for entry in listed["Contents"]]


@pytest.mark.parametrize(
    ("form", "field"),
    [
        ({"from": 9, "folder": "again"}, "from"),
        ({"from": 0, "folder": "again"}, "from"),
        ({"from": "2026-11-22T02:45:00", "folder": "again"}, "from"),
        ({"from": "2999-01-01T00:00:00Z", "folder": "again"}, "from"),
        ({"from": 1, "to": 9, "folder": "again"}, "to"),
        ({"from": 1, "to": "2020-01-01T00:00:00Z", "folder": "again"}, "to"),
        ({"from": 1, "folder": "../x"}, "folder"),
        ({"from": 1, "folder": "/"}, "folder"),
        ({"from": 1, "folder": ""}, "folder"),
        ({"from": 1}, "folder"),
        ({"folder": "again"}, "from"),
    ],
)
async def test_form_is_refused_with_the_field_that_is_wrong(
    customer: ReplayingCustomer, form: dict[str, Any], field: str
) -> None:
    await customer.publish("a", "b")
    await customer.ask("POST", "/clicks/flush")

    problem = await customer.ask("POST", "/clicks/replays", form, status=400)

    assert field in (problem["error"]["field"] or problem["error"]["message"])
    assert [] == (await customer.ask("GET", "/clicks/replays"))["replays"]


async def test_expired_range_is_refused_with_what_the_stream_holds(customer: ReplayingCustomer) -> None:
    await customer.publish("a", "b", "c")
    await customer.ask("POST", "/clicks/flush")
    await customer.bus.js.purge_stream(streams.EVENTS.name, seq=3)

    problem = await customer.replay(1, status=400)
    started = await customer.replay(3)
    await customer.completed(started["id"])

    assert "from sequence 3 or 2" in problem["error"]["message"]
    assert ["c"] == await customer.ids_in("again")


@pytest.mark.parametrize("folder", ["clicks", "/clicks/", "clicks/again", "orders/x"])
async def test_folder_that_is_not_its_own_is_refused(customer: ReplayingCustomer, folder: str) -> None:
    await customer.put_export("orders", "orders")
    await customer.publish("a")
    await customer.ask("POST", "/clicks/flush")

    problem = await customer.replay(folder=folder, status=409)

    assert "folder" == problem["error"]["field"]
    assert ("clicks" if "clicks" in folder else "orders") in problem["error"]["message"]


async def test_folder_of_a_replay_is_its_own_until_it_is_deleted(customer: ReplayingCustomer) -> None:
    await customer.publish("a")
    await customer.ask("POST", "/clicks/flush")
    started = await customer.replay()
    await customer.completed(started["id"])

    problem = await customer.replay(status=409)
    assert f"the replay {started['id']} of the export clicks" in problem["error"]["message"]
    await customer.ask("DELETE", f"/clicks/replays/{started['id']}", status=204)

    await customer.put_export("orders", "again/orders")
    await customer.ask("GET", f"/clicks/replays/{started['id']}", status=404)
    await customer.ask("DELETE", f"/clicks/replays/{started['id']}", status=404)


async def test_replay_that_cannot_end_is_failing_holds_up_no_other_export_and_can_be_cancelled(
    customer: ReplayingCustomer,
) -> None:
    await customer.publish("a")
    await customer.ask("POST", "/clicks/flush")
    stuck = await customer.put_stuck_replay()

    async def is_failing() -> bool:
        return bool((await customer.ask("GET", f"/clicks/replays/{stuck}"))["state"] == "failing")

    await until(is_failing)
    shown = await customer.ask("GET", f"/clicks/replays/{stuck}")
    refused = await customer.replay(status=409)
    await customer.publish("b")
    run = await customer.ask("POST", "/clicks/flush")
    await customer.ask("DELETE", f"/clicks/replays/{stuck}", status=204)

    assert "writes into another bucket now" in shown["run"]["error"]["message"]
    assert "the replay stuck of this export has not ended" in refused["error"]["message"]
    assert ("completed", 1) == (run["state"], run["rows_out"])
    await gone(customer, stuck)
    started = await customer.replay()
    await customer.completed(started["id"])


async def gone(customer: ReplayingCustomer, replay_id: str) -> None:
    plans = customer.service.mesh.bucket(streams.PLANS)

    async def is_gone() -> bool:
        return await plans.get(f"shop.{replay_export('clicks', replay_id)}") is None

    await until(is_gone)


async def test_deleted_export_takes_its_replays_and_their_folders_along(customer: ReplayingCustomer) -> None:
    await customer.publish("a")
    await customer.ask("POST", "/clicks/flush")
    started = await customer.replay()
    await customer.completed(started["id"])

    await customer.ask("DELETE", "/clicks", status=204)

    await gone(customer, started["id"])
    await customer.put_export("orders", "again")
    await customer.put_export()
    assert [] == (await customer.ask("GET", "/clicks/replays"))["replays"]
    assert ["a"] == await customer.ids_in("again")


async def test_replays_of_a_deleted_export_do_not_come_back_with_its_name(customer: ReplayingCustomer) -> None:
    await customer.ask("DELETE", "/clicks", status=204)
    await customer.put_stuck_replay()

    await customer.put_export()

    assert [] == (await customer.ask("GET", "/clicks/replays"))["replays"]


async def test_export_that_is_not_active_starts_no_replay(customer: ReplayingCustomer) -> None:
    await customer.publish("a")
    await customer.ask("POST", "/clicks/flush")
    await customer.put_export(active=False)

    await customer.replay(status=409)


async def test_wrong_keys_are_told_before_anything_is_stored(customer: ReplayingCustomer) -> None:
    await customer.publish("a")
    await customer.ask("POST", "/clicks/flush")
    await customer.moto.demand_real_keys()

    problem = await customer.replay(status=422)
    await customer.moto.demand_real_keys(False)

    assert "failed" == problem["error"]["report"]["status"]
    assert [] == (await customer.ask("GET", "/clicks/replays"))["replays"]


async def test_of_replays_at_once_one_is_started_and_written_once_by_two_replicas(
    settings: Settings, shop: dict[str, str], moto: MotoServer, bus: Bus
) -> None:
    await moto.create_bucket(BUCKET)
    async with (
        customer_of(settings, shop, moto, bus) as customer,
        customer_of(settings, shop, moto, bus) as other,
    ):
        await customer.put_export()
        await customer.publish(*map(str, range(40)))
        await customer.ask("POST", "/clicks/flush")

        async def start(number: int) -> int:
            at = (customer, other)[number % 2]
            url = f"{at.service.url}/v1/apps/shop/exports/clicks/replays"
            form = {"from": 1, "folder": f"again/{number}"}
            async with ClientSession(headers=shop) as http, http.post(url, json=form) as answer:
                return answer.status

        statuses = await asyncio.gather(*map(start, range(4)))
        [shown] = (await other.ask("GET", "/clicks/replays"))["replays"]
        await customer.completed(shown["id"])

    assert [201, 409, 409, 409] == sorted(statuses)
    assert sorted(map(str, range(40))) == await customer.ids_in("again")


async def test_replay_goes_on_with_another_process_and_is_not_begun_again(
    settings: Settings, shop: dict[str, str], moto: MotoServer, bus: Bus
) -> None:
    await moto.create_bucket(BUCKET)
    async with customer_of(settings, shop, moto, bus) as customer:
        await customer.put_export()
        await customer.publish("a", "b")
        await customer.ask("POST", "/clicks/flush")
        started = await customer.replay()

    async with customer_of(settings, shop, moto, bus) as customer:
        await customer.completed(started["id"])
    async with customer_of(settings, shop, moto, bus) as customer:
        shown = await customer.completed(started["id"])
        run = await customer.ask("POST", "/clicks/flush")

    assert ["a", "b"] == await customer.ids_in("again")
    assert 2 == shown["delivered_to"]
    assert "rows_out" not in run
