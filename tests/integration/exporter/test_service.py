"""The exporter as customers use it: HTTP, a real NATS server, and moto for their bucket."""

import asyncio
import csv
import gzip
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from io import BytesIO, StringIO
from pathlib import Path
from typing import Any

import aiohttp
import duckdb
import fastavro
import msgspec
import pytest
from aiohttp import ClientSession
from msgspec import structs

from exporter.app import SERVICE
from exporter.exports.run_store import Run, Runs
from exporter.handlers import ProbeExport
from exporter.layouts.affise import CLICK_COLUMNS, CONVERSION_COLUMNS
from exporter.pipeline.sample_files import MOST_CALLS
from millrace.nats_servers.config import ensure_seeds
from millrace.nats_servers.server import NatsServer
from shared.config.registry import Registry
from shared.config.tokens import TOKENS, Token, new_token, token_hash
from shared.contracts import streams, subjects
from shared.contracts.connection_report import ConnectionReport
from shared.contracts.messages import Alert, Event, EventType, decode, encode, make_attributes
from shared.contracts.subjects import partition_of
from shared.errors import NotFoundError
from shared.messaging.bus import Bus
from shared.messaging.connection import connect
from shared.messaging.kv import KeyValueStore
from shared.messaging.provisioning.making import provision_mesh
from shared.runtime.settings import Settings
from shared.runtime.telemetry import Metrics
from shared.service import RunningService
from support.run_service import running
from support.servers.moto import MotoServer
from support.stored_messages import messages
from support.waiting import until

BUCKET = "raw-data"
CONTENT_TYPES = {
    "gz": "application/gzip",
    "avro": "application/vnd.apache.avro",
    "parquet": "application/vnd.apache.parquet",
}


class Customer:
    """The tenant `shop`, with a token and a bucket."""

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

    def form(self, **changes: Any) -> dict[str, Any]:
        destination = {
            "type": "s3",
            "bucket": BUCKET,
            "region": self.moto.region,
            "access_key": "testing",
            "secret_key": "testing-secret",
            "directory": "clicks",
            "endpoint_url": self.moto.url,
        } | changes.pop("destination", {})
        return {"data": "clicks", "destination": destination} | changes

    async def publish(self, *ids: str, kind: EventType = "click", **attributes: Any) -> None:
        for one in ids:
            event = Event(
                id=one,
                app_key="shop",
                type=kind,
                code=kind,
                user_id=one,
                occurred_at=1_795_314_667_123,
                attributes=make_attributes(attributes),
            )
            await self.bus.publish(subjects.events("shop", partition_of(one)), encode([event]))

    async def objects(self) -> dict[str, bytes]:
        async with self.moto.client("s3") as s3:
            listed = await s3.list_objects_v2(Bucket=BUCKET)
            found = {}
            for entry in listed.get("Contents", []):
                answer = await s3.get_object(Bucket=BUCKET, Key=entry["Key"])
                assert CONTENT_TYPES[entry["Key"].rpartition(".")[2]] == answer["ContentType"]
                assert "ContentEncoding" not in answer
                found[entry["Key"]] = await answer["Body"].read()
            return found

    async def rows(self) -> list[dict[str, str]]:
        texts = [gzip.decompress(data).decode() for _, data in sorted((await self.objects()).items())]
        return [row for text in texts for row in csv.DictReader(StringIO(text, newline=""))]

    async def alerts(self) -> list[str]:
        return [alert.kind for alert in await alerts_of(self.bus)]


async def alerts_of(bus: Bus) -> list[Alert]:
    return [decode(message.data, Alert) for message in await messages(bus, streams.ALERTS, "alerts.exporter.*.*")]


@asynccontextmanager
async def customer_of(settings: Settings, token: dict[str, str], moto: MotoServer, bus: Bus) -> AsyncIterator[Customer]:
    async with running(SERVICE, settings) as service, ClientSession(headers=token) as http:
        yield Customer(service, http, moto, bus)


@pytest.fixture
async def bucket(moto: MotoServer) -> None:
    await moto.create_bucket(BUCKET)


@pytest.fixture
async def customer(
    settings: Settings, shop: dict[str, str], moto: MotoServer, bucket: None, bus: Bus
) -> AsyncIterator[Customer]:
    async with customer_of(settings, shop, moto, bus) as customer:
        yield customer


async def test_clicks_are_a_file_when_flushed(customer: Customer) -> None:
    change = await customer.ask("PUT", "/clicks", customer.form())
    await customer.publish("a", "b", country="DE", partner_id=4)
    await customer.publish("x", kind="conversion")

    run = await customer.ask("POST", "/clicks/flush")

    assert "created" == change["change"]
    assert ("completed", "manual", 2) == (run["state"], run["trigger"], run["rows_out"])
    [(key, data)] = (await customer.objects()).items()
    at = run["started_at"][:10]
    assert key.startswith(f"clicks/{at[:4]}/{at[5:7]}/{at[8:]}/{at} ")
    assert key.endswith(".csv.gz")
    assert [{"key": key, "size_bytes": len(data), "rows": 2}] == [
        {name: file[name] for name in ("key", "size_bytes", "rows")} for file in run["files"]
    ]
    rows = await customer.rows()
    assert list(CLICK_COLUMNS) == list(rows[0])
    assert [("a", "DE", "4"), ("b", "DE", "4")] == [(row["id"], row["country"], row["partner_id"]) for row in rows]
    assert "2026-11-22 02:31:07" == rows[0]["created_at"]


async def test_conversions_are_an_export_of_their_own(customer: Customer) -> None:
    await customer.ask("PUT", "/clicks", customer.form())
    form = customer.form(data="conversions", destination={"directory": "conversions"})
    await customer.ask("PUT", "/conversions", form)
    await customer.publish("click")
    await customer.publish("sale", kind="conversion", revenue=4, payouts=3.5)

    await customer.ask("POST", "/conversions/flush")

    [row] = await customer.rows()
    assert list(CONVERSION_COLUMNS) == list(row)
    assert ("sale", "0.5") == (row["id"], row["earnings"])


async def test_changed_conversion_is_a_newer_row_of_a_later_file(customer: Customer) -> None:
    form = customer.form(data="conversions", destination={"directory": "conversions"})
    await customer.ask("PUT", "/conversions", form)
    versions = [("pending", 4), ("pending", 5), ("confirmed", 5)]
    await customer.publish("sale", kind="conversion", status=versions[0][0], revenue=versions[0][1], payouts=1)
    first = await customer.ask("POST", "/conversions/flush")
    for status, revenue in versions[1:]:
        await customer.publish("sale", kind="conversion", status=status, revenue=revenue, payouts=1)

    later = await customer.ask("POST", "/conversions/flush")

    assert (1, 2) == (first["rows_out"], later["rows_out"])
    assert 2 == len(await customer.objects())
    assert [("sale", status, str(revenue), str(revenue - 1)) for status, revenue in versions] == [
        (row["id"], row["status"], row["revenue"], row["earnings"]) for row in await customer.rows()
    ]


async def test_names_are_plain_where_the_export_says_so(customer: Customer) -> None:
    await customer.ask("PUT", "/clicks", customer.form(plain_names=True))
    await customer.publish("a")

    run = await customer.ask("POST", "/clicks/flush")

    [key] = await customer.objects()
    assert [key] == [file["key"] for file in run["files"]]
    named = datetime.strptime(key.rpartition("/")[2], "%Y-%m-%d_%H-%M-%S.csv.gz")
    assert f"clicks/{named:%Y/%m/%d/%Y-%m-%d_%H-%M-%S}.csv.gz" == key


async def test_events_are_a_file_for_each_type_with_every_attribute_as_it_was_sent(customer: Customer) -> None:
    await customer.ask("PUT", "/events", customer.form(data="events", destination={"directory": ""}))
    await customer.publish("a", kind="event", price=1.5, cart=[{"sku": "s"}])
    await customer.publish("b", "c", kind="message_log")

    run = await customer.ask("POST", "/events/flush")

    saved = await customer.ask("GET", "/events")
    assert "currents" == saved["destination"]["directory"]
    assert ("completed", 3, 2) == (run["state"], run["rows_out"], len(run["files"]))
    connector = "dataexport.millrace.S3.integration.events"
    found = {}
    for key, data in (await customer.objects()).items():
        folder, name, kind, _, number, zone, file = key.split("/")
        assert ("currents", connector, "1", "millrace") == (folder, name, number, zone)
        assert file.startswith(f"{connector}+0+0000000")
        found[kind] = [record for record in fastavro.reader(BytesIO(data)) if isinstance(record, dict)]
    assert {"event_type=users.behaviors.CustomEvent", "event_type=millrace.message_log.message_log"} == set(found)
    [event] = found["event_type=users.behaviors.CustomEvent"]
    assert ("a", '{"price":1.5,"cart":[{"sku":"s"}]}', 1_795_314_667) == (
        event["id"],
        event["properties"],
        event["time"],
    )


async def test_parquet_has_the_columns_and_types_of_the_layout(customer: Customer, tmp_path: Path) -> None:
    form = customer.form(data="events", format="parquet", destination={"directory": "events"})
    await customer.ask("PUT", "/events", form)
    await customer.publish("a", kind="event", price=1.5)

    run = await customer.ask("POST", "/events/flush")

    [(key, data)] = (await customer.objects()).items()
    assert [key] == [file["key"] for file in run["files"]]
    path = tmp_path / "events.parquet"
    path.write_bytes(data)
    with duckdb.connect() as connection:
        rows = connection.execute("SELECT id, time, occurred_at, properties FROM read_parquet(?)", [str(path)])
        assert [("a", 1_795_314_667, 1_795_314_667_123, '{"price":1.5}')] == rows.fetchall()


async def ask_lake(customer: Customer, method: str, path: str = "", *, status: int = 200) -> Any:
    return await customer.ask(method, f"/../lake{path}", status=status)


async def test_lake_holds_every_event_without_any_configuration_until_it_is_erased(
    customer: Customer, settings: Settings
) -> None:
    await ask_lake(customer, "GET", status=404)
    await ask_lake(customer, "POST", "/flush", status=404)
    await customer.publish("a", "b", revenue=1.5)
    await customer.publish("c", kind="event")

    run = await ask_lake(customer, "POST", "/flush")

    assert ("completed", 3) == (run["state"], run["rows_out"])
    days = (await ask_lake(customer, "GET"))["days"]
    assert {("click", 2), ("event", 1)} == {(day["type"], day["rows"]) for day in days}
    folder = Path(settings.data_dir) / "lake"
    files = [str(folder / file["key"]) for day in days for file in day["files"]]
    with duckdb.connect() as connection:
        rows = connection.execute("SELECT id, revenue::VARCHAR FROM read_parquet(?) ORDER BY id", [files]).fetchall()
    assert [("a", "1.50"), ("b", "1.50"), ("c", None)] == rows

    await ask_lake(customer, "DELETE", status=204)
    await ask_lake(customer, "GET", status=404)
    assert [] == list(folder.rglob("*.parquet"))
    await customer.publish("d")
    await ask_lake(customer, "POST", "/flush")
    assert [1] == [day["rows"] for day in (await ask_lake(customer, "GET"))["days"]]


async def test_lake_can_be_off(
    settings: Settings, shop: dict[str, str], moto: MotoServer, bucket: None, bus: Bus
) -> None:
    without = structs.replace(settings, exporter_lake=False)
    async with customer_of(without, shop, moto, bus) as customer:
        await customer.publish("a")

        refused = await ask_lake(customer, "POST", "/flush", status=409)

        assert "MILLRACE_EXPORTER_LAKE" in refused["error"]["message"]


async def test_second_flush_writes_nothing(customer: Customer) -> None:
    await customer.ask("PUT", "/clicks", customer.form())
    await customer.publish("a")
    await customer.ask("POST", "/clicks/flush")

    run = await customer.ask("POST", "/clicks/flush")

    assert ("completed", 0) == (run["state"], run.get("rows_out", 0))
    assert 1 == len(await customer.objects())


async def test_run_without_anything_to_send_is_recorded_with_no_rows_and_no_file(customer: Customer) -> None:
    await customer.ask("PUT", "/clicks", customer.form(frequency_s=1))
    await customer.publish("x", kind="conversion")

    ended: list[Run] = []
    while not ended:
        runs = msgspec.convert(await customer.ask("GET", "/clicks/runs"), Runs).runs
        ended = [run for run in runs if run.state != "running"]

    run = ended[-1]
    assert ("completed", "schedule") == (run.state, run.trigger)
    assert (0, 0, 0, ()) == (run.rows_in, run.rows_out, run.rows_dropped, run.files)
    assert {} == await customer.objects()
    assert [] == await customer.alerts()


async def test_events_from_before_the_export_are_not_in_it(customer: Customer) -> None:
    await customer.publish("before")
    await customer.ask("PUT", "/clicks", customer.form())
    await customer.publish("after")

    await customer.ask("POST", "/clicks/flush")

    assert ["after"] == [row["id"] for row in await customer.rows()]


async def test_files_come_by_themselves_every_frequency(customer: Customer) -> None:
    await customer.ask("PUT", "/clicks", customer.form(frequency_s=1))

    await customer.publish("a")
    await wait_for_objects(customer, 1)
    await customer.publish("b")
    await wait_for_objects(customer, 2)

    assert ["a", "b"] == [row["id"] for row in await customer.rows()]
    runs = (await customer.ask("GET", "/clicks/runs"))["runs"]
    assert {"schedule"} == {run["trigger"] for run in runs}


async def wait_for_objects(customer: Customer, count: int) -> None:
    while len(await customer.objects()) < count:
        pass


async def test_only_the_chosen_affiliates_are_sent(customer: Customer) -> None:
    await customer.ask("PUT", "/clicks", customer.form(affiliates=[4]))
    await customer.publish("a", partner_id=4)
    await customer.publish("b", partner_id=5)

    run = await customer.ask("POST", "/clicks/flush")

    assert ["a"] == [row["id"] for row in await customer.rows()]
    assert (2, 1, 1) == (run["rows_in"], run["rows_out"], run["rows_filtered"])


async def test_wrong_keys_fail_the_run_alert_once_and_lose_nothing_when_corrected(customer: Customer) -> None:
    keys = await customer.moto.create_user("exporter", actions=("s3:PutObject", "s3:GetObject", "s3:DeleteObject"))
    good = {"access_key": keys.access_key_id, "secret_key": keys.secret_access_key.reveal()}
    await customer.moto.demand_real_keys()
    bad = customer.form(destination=good | {"secret_key": "not-the-secret-key"})
    refused = await customer.ask("PUT", "/clicks", bad, status=422)
    await customer.ask("PUT", "/clicks?force=true", bad)
    await customer.publish("a")

    failed = [await customer.ask("POST", "/clicks/flush") for _ in range(2)]
    await customer.publish("b")
    change = await customer.ask("PUT", "/clicks", customer.form(destination=good))
    run = await customer.ask("POST", "/clicks/flush")
    await customer.moto.demand_real_keys(False)

    assert ("destination", "failed") == (refused["error"]["field"], refused["error"]["report"]["status"])
    assert [("failed", "credentials")] * 2 == [(one["state"], one["error"]["code"]) for one in failed]
    assert ["destination"] == change["fields"]
    assert "completed" == run["state"]
    assert ["a", "b"] == sorted(row["id"] for row in await customer.rows())
    assert ["export-failed", "export-recovered"] == await customer.alerts()


async def test_failed_run_is_retried_and_a_completed_one_is_neither_retried_nor_cancelled(customer: Customer) -> None:
    await customer.ask("PUT", "/clicks", customer.form())
    async with customer.moto.client("s3") as s3:
        await s3.delete_bucket(Bucket=BUCKET)
    await customer.publish("a")
    failed = await customer.ask("POST", "/clicks/flush")
    async with customer.moto.client("s3") as s3:
        await s3.create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": customer.moto.region})

    retried = await customer.ask("POST", f"/clicks/runs/{failed['id']}/retry")

    assert ("failed", "completed", 1) == (failed["state"], retried["state"], retried["rows_out"])
    [file] = retried["files"]
    async with customer.moto.client("s3") as s3:
        assert file["etag"] == (await s3.head_object(Bucket=BUCKET, Key=file["key"]))["ETag"].strip('"')
    for action in ("retry", "cancel"):
        refused = await customer.ask("POST", f"/clicks/runs/{retried['id']}/{action}", status=409)
        assert "the run is completed" in refused["error"]["message"]
    first = await customer.ask("GET", "/clicks/runs?limit=1")
    second = await customer.ask("GET", f"/clicks/runs?limit=1&before={first['next']}")
    assert [retried, failed] == [*first["runs"], *second["runs"]]
    assert "before" == (await customer.ask("GET", "/clicks/runs?before=NONE", status=400))["error"]["field"]


async def test_no_secret_is_published_or_logged(customer: Customer, capfd: pytest.CaptureFixture[str]) -> None:
    await customer.moto.demand_real_keys()
    refused = await customer.ask("PUT", "/clicks", customer.form(), status=422)
    await customer.ask("PUT", "/clicks?force=true", customer.form())
    await customer.publish("a")
    await customer.ask("POST", "/clicks/flush")
    shown = [
        str(refused),
        str(await customer.ask("GET", "/clicks")),
        str(await customer.ask("GET", "/clicks/runs")),
        str(await customer.ask("POST", "/clicks/test")),
        str(await alerts_of(customer.bus)),
        customer.service.mesh.metrics.render().decode(),
        "".join(capfd.readouterr()),
    ]
    for bucket in (streams.PLANS, streams.CONFIG):
        kept = await messages(customer.bus, bucket, f"$KV.{bucket.name}.>")
        assert kept
        shown += [message.data.decode() for message in kept]
    await customer.moto.demand_real_keys(False)

    assert [] == [text for text in shown if "testing-secret" in text]
    assert "***" in shown[1]


async def test_export_continues_at_its_cursor_after_a_restart(
    settings: Settings, shop: dict[str, str], moto: MotoServer, bucket: None, bus: Bus
) -> None:
    async with customer_of(settings, shop, moto, bus) as customer:
        await customer.ask("PUT", "/clicks", customer.form())
        await customer.publish("a")
        await customer.ask("POST", "/clicks/flush")
        await customer.publish("b")
    await customer.publish("c")

    async with customer_of(settings, shop, moto, bus) as customer:
        run = await customer.ask("POST", "/clicks/flush")

    assert 2 == run["rows_out"]
    assert ["a", "b", "c"] == [row["id"] for row in await customer.rows()]


async def test_two_replicas_write_every_row_once(
    settings: Settings, shop: dict[str, str], moto: MotoServer, bucket: None, bus: Bus
) -> None:
    ids = [f"{number:03d}" for number in range(60)]
    async with (
        customer_of(settings, shop, moto, bus) as customer,
        customer_of(settings, shop, moto, bus) as other,
    ):
        await customer.ask("PUT", "/clicks", customer.form(frequency_s=1))
        for start in range(0, len(ids), 6):
            await customer.publish(*ids[start : start + 6])
            await (customer if start % 12 else other).ask("POST", "/clicks/flush")
        await other.ask("POST", "/clicks/flush")
        await customer.ask("POST", "/clicks/flush")

    assert ids == sorted(row["id"] for row in await customer.rows())


async def test_two_exports_may_not_share_a_directory(customer: Customer) -> None:
    await customer.ask("PUT", "/clicks", customer.form())

    form = customer.form(data="conversions", destination={"directory": "/clicks/"})
    refused = await customer.ask("PUT", "/conversions", form, status=409)

    assert ("conflict", "destination.directory") == (refused["error"]["code"], refused["error"]["field"])
    await customer.ask("PUT", "/clicks", customer.form(frequency=5))


async def test_form_is_refused_with_the_field_that_is_wrong(customer: Customer) -> None:
    refused = await customer.ask("PUT", "/clicks", customer.form(destination={"directory": "../x"}), status=400)

    assert ("invalid", "destination.directory") == (refused["error"]["code"], refused["error"]["field"])


async def test_connection_is_tested_with_the_form_before_it_is_saved(customer: Customer) -> None:
    report = await customer.ask("POST", "/new/test", customer.form())
    missing = await customer.ask("POST", "/new/test", customer.form(destination={"bucket": "nobodys"}))

    steps = ["open", "region", "object_lock", "list", "put", "get", "delete"]
    assert ("ok", steps) == (report["status"], [step["name"] for step in report["steps"]])
    assert ("failed", "NoSuchBucket") == (missing["status"], missing["steps"][1]["code"])
    assert {} == await customer.objects()
    await customer.ask("POST", "/new/test", status=404)


async def test_connection_is_tested_with_the_saved_secret_when_the_form_masks_it(customer: Customer) -> None:
    await customer.ask("PUT", "/clicks", customer.form())
    shown = await customer.ask("GET", "/clicks")

    assert "***" == shown["destination"]["secret_key"]
    assert "ok" == (await customer.ask("POST", "/clicks/test", shown))["status"]
    assert "ok" == (await customer.ask("POST", "/clicks/test"))["status"]


async def test_connection_is_tested_by_nats_request(customer: Customer) -> None:
    await customer.ask("PUT", "/clicks", customer.form())
    subject = subjects.connector_test("exporter")

    saved = await customer.bus.request(subject, ProbeExport(app_key="shop", id="clicks"), ConnectionReport)
    with pytest.raises(NotFoundError):
        await customer.bus.request(subject, ProbeExport(app_key="rival", id="clicks"), ConnectionReport)

    assert "ok" == saved.status


async def test_flushes_at_the_same_time_are_all_answered(customer: Customer) -> None:
    await customer.ask("PUT", "/clicks", customer.form())
    await customer.publish("a")

    runs = await asyncio.gather(*(customer.ask("POST", "/clicks/flush") for _ in range(5)))

    assert {"completed"} == {run["state"] for run in runs}
    assert 1 == len(await customer.objects())


async def test_deleted_export_is_erased_and_its_files_stay(customer: Customer) -> None:
    await customer.ask("PUT", "/clicks", customer.form())
    await customer.publish("a")
    await customer.ask("POST", "/clicks/flush")
    plans = customer.service.mesh.bucket(streams.PLANS)
    assert await plans.get("shop.clicks") is not None

    await customer.ask("DELETE", "/clicks", status=204)

    while await plans.get("shop.clicks") is not None:
        pass
    await customer.ask("POST", "/clicks/flush", status=404)
    assert 1 == len(await customer.objects())


async def test_inactive_export_sends_nothing_and_catches_up_when_it_is_active_again(customer: Customer) -> None:
    await customer.ask("PUT", "/clicks", customer.form())
    await customer.ask("PUT", "/clicks", customer.form(active=False))
    await customer.publish("a")
    await customer.ask("POST", "/clicks/flush", status=409)

    await customer.ask("PUT", "/clicks", customer.form(active=True))
    await customer.ask("POST", "/clicks/flush")

    assert ["a"] == [row["id"] for row in await customer.rows()]


async def test_export_continues_when_nats_is_available_again(customer: Customer, nats_server: NatsServer) -> None:
    await customer.ask("PUT", "/clicks", customer.form(frequency_s=1))
    await customer.publish("a")
    await wait_for_objects(customer, 1)

    await nats_server.restart()
    await until(lambda: customer.bus.connected)
    await customer.publish("b")
    await wait_for_objects(customer, 2)

    assert ["a", "b"] == [row["id"] for row in await customer.rows()]


async def test_exporter_works_with_the_permissions_of_its_own_user(
    settings: Settings, registry: Registry, moto: MotoServer, bucket: None, tmp_path: Path
) -> None:
    seeds = ensure_seeds(tmp_path / "keys")
    async with (
        NatsServer(tmp_path / "closed", users=seeds) as server,
        connect("operator", server.url, seed=seeds["operator"], metrics=Metrics()) as operator,
        connect("publisher", server.url, seed=seeds["publisher"], metrics=Metrics()) as publisher,
    ):
        closed = msgspec.structs.replace(settings, nats_url=server.url, nats_seed=seeds["exporter"])
        await provision_mesh(msgspec.structs.replace(closed, nats_seed=seeds["provision"]), wait_s=5)
        tokens = Registry(operator, registry.secrets, service="test", relist_s=30)
        token = new_token()
        await tokens.put(TOKENS, token_hash(token), "", Token(scopes=("app:shop",), created_at=datetime.now(UTC)))
        async with customer_of(closed, {"Authorization": f"Bearer {token}"}, moto, publisher) as customer:
            await customer.ask("PUT", "/clicks", customer.form())
            await customer.publish("a")
            run = await customer.ask("POST", "/clicks/flush")
            assert run in (await customer.ask("GET", "/clicks/runs"))["runs"]
            await customer.ask("DELETE", "/clicks", status=204)

        assert ["a"] == [row["id"] for row in await customer.rows()]


async def test_run_is_shown_by_its_id(customer: Customer) -> None:
    await customer.ask("PUT", "/clicks", customer.form())
    run = await customer.ask("POST", "/clicks/flush")

    assert run == await customer.ask("GET", f"/clicks/runs/{run['id']}")
    await customer.ask("GET", "/clicks/runs/none", status=404)
    await customer.ask("GET", "/clicks/runs?limit=0", status=400)


async def ask_as(headers: dict[str, str], customer: Customer, app_key: str, path: str, body: Any) -> tuple[int, Any]:
    url = f"{customer.service.url}/v1/apps/{app_key}/exports{path}"
    async with ClientSession(headers=headers) as http, http.put(url, json=body) as answer:
        return answer.status, await answer.json()


async def test_another_tenants_bogus_keys_do_not_take_a_directory_away(
    customer: Customer, rival: dict[str, str]
) -> None:
    keys = await customer.moto.create_user("owner", actions=("s3:PutObject", "s3:GetObject", "s3:DeleteObject"))
    own = {"access_key": keys.access_key_id, "secret_key": keys.secret_access_key.reveal()}
    await customer.moto.demand_real_keys()
    bogus = customer.form(destination={"secret_key": "bogusbogus"})

    refused, problem = await ask_as(rival, customer, "rival", "/x", bogus)
    forced, _ = await ask_as(rival, customer, "rival", "/x?force=true", bogus)
    created = await customer.ask("PUT", "/clicks", customer.form(destination=own))
    await customer.moto.demand_real_keys(False)

    assert (422, 200, "created") == (refused, forced, created["change"])
    assert "region" == next(step["name"] for step in problem["error"]["report"]["steps"] if step["status"] == "failed")
    assert "bogusbogus" not in str(problem)


@pytest.mark.parametrize("directory", ["clicks", "/clicks/", "clicks/raw", ""])
async def test_folder_of_another_tenant_is_refused_without_a_word_of_whose(
    customer: Customer, rival: dict[str, str], directory: str
) -> None:
    await customer.ask("PUT", "/orders", customer.form())

    status, problem = await ask_as(rival, customer, "rival", "/x", customer.form(destination={"directory": directory}))
    beside, _ = await ask_as(rival, customer, "rival", "/x", customer.form(destination={"directory": "clicks2"}))

    assert (409, "destination.directory") == (status, problem["error"]["field"])
    assert "shop" not in str(problem)
    assert "orders" not in str(problem)
    assert 200 == beside


async def test_of_eight_that_want_a_folder_at_once_one_gets_it(
    settings: Settings, shop: dict[str, str], rival: dict[str, str], moto: MotoServer, bucket: None, bus: Bus
) -> None:
    async with (
        customer_of(settings, shop, moto, bus) as customer,
        customer_of(settings, shop, moto, bus) as other,
    ):

        async def ask(number: int) -> int:
            at = (customer, other)[number // 4]
            form = at.form(destination={"directory": ("clicks", "clicks/a", "/clicks/", "clicks/a/b")[number % 4]})
            headers, app_key = (shop, "shop") if number % 2 else (rival, "rival")
            return (await ask_as(headers, at, app_key, f"/x{number}", form))[0]

        statuses = await asyncio.gather(*map(ask, range(8)))

    assert [200, *[409] * 7] == sorted(statuses)


async def test_export_of_the_release_before_has_its_folder_claimed_at_start(
    settings: Settings, shop: dict[str, str], rival: dict[str, str], moto: MotoServer, bucket: None, bus: Bus
) -> None:
    async with customer_of(settings, shop, moto, bus) as customer:
        await customer.ask("PUT", "/clicks", customer.form())
    claims = KeyValueStore(bus, streams.CLAIMS)
    [stored] = await claims.scan()
    await claims.delete(stored.key)

    async with customer_of(settings, shop, moto, bus) as customer:
        status, _ = await ask_as(rival, customer, "rival", "/x", customer.form())

    assert 409 == status


async def test_folder_is_free_when_its_export_is_deleted_or_moved(customer: Customer, rival: dict[str, str]) -> None:
    await customer.ask("PUT", "/clicks", customer.form())
    await customer.ask("PUT", "/orders", customer.form(destination={"directory": "orders"}))
    assert 409 == (await ask_as(rival, customer, "rival", "/x", customer.form()))[0]

    await customer.ask("DELETE", "/clicks", status=204)
    await customer.ask("PUT", "/orders", customer.form(destination={"directory": "other"}))

    assert 200 == (await ask_as(rival, customer, "rival", "/x", customer.form()))[0]
    assert 200 == (await ask_as(rival, customer, "rival", "/y", customer.form(destination={"directory": "orders"})))[0]
    assert 409 == (await ask_as(rival, customer, "rival", "/z", customer.form(destination={"directory": "other"})))[0]


async def test_dry_run_begins_nothing(customer: Customer) -> None:
    change = await customer.ask("PUT", "/clicks?dry_run=true", customer.form())

    assert ("created", True) == (change["change"], change["dry_run"])
    assert None is await customer.service.mesh.bucket(streams.PLANS).get("shop.clicks")


async def test_another_tenant_may_not_read_or_change_anything(customer: Customer, rival: dict[str, str]) -> None:
    await customer.ask("PUT", "/clicks", customer.form())

    async with aiohttp.ClientSession(headers=rival) as http:
        for method, path in (("GET", "/clicks"), ("POST", "/clicks/flush"), ("GET", "/clicks/runs")):
            async with http.request(method, f"{customer.service.url}/v1/apps/shop/exports{path}") as answer:
                assert 403 == answer.status


async def test_test_events_lie_in_a_folder_of_their_own_and_are_read_as_real_ones_are(customer: Customer) -> None:
    types = ["users.behaviors.Purchase", "millrace.click"]
    form = customer.form(data="events", types=types, hash=["product_id"], destination={"directory": ""})
    await customer.ask("PUT", "/events", form)

    sent = await customer.ask("POST", "/events/test-events")
    again = await customer.ask("POST", "/events/test-events")

    objects = await customer.objects()
    keys = {file["key"]: file for file in (*sent["files"], *again["files"])}
    assert keys.keys() == objects.keys()
    assert 4 == len(objects)
    for key, file in keys.items():
        root, mark, _, event_type, *_, name = key.split("/")
        assert ("currents", "test=true") == (root, mark)
        assert (f"event_type={file['type']}", True) == (event_type, name.startswith("test-"))
        [record] = fastavro.reader(BytesIO(objects[key]))
        assert isinstance(record, dict)
        assert (True, "test", "shop") == (record["id"].startswith("test-"), record["user_id"], record["app_id"])
        assert msgspec.json.decode(record["properties"])["test"] is True
        if "Purchase" in key:
            assert (1.5, 64) == (record["price"], len(record["product_id"]))
    assert 0 == (await customer.ask("POST", "/events/flush")).get("rows_out", 0)


@pytest.mark.parametrize("kind", ["s3", "gateway"])
async def test_test_events_of_clicks_pass_the_lists_and_take_no_name_of_a_real_file(
    customer: Customer, settings: Settings, kind: str
) -> None:
    form = customer.form(affiliates=[4], advertisers=["a" * 24])
    if kind == "gateway":
        form["destination"] = {"type": "gateway", "directory": "clicks"}
    await customer.ask("PUT", "/clicks", form)

    [file] = (await customer.ask("POST", "/clicks/test-events"))["files"]

    assert ("clicks", 1, "clicks/test=true/") == (file["type"], file["rows"], file["key"][:17])
    if kind == "s3":
        [row] = await customer.rows()
        assert ("4", "a" * 24, "test") == (row["partner_id"], row["supplier_id"], row["user_id"])
    else:
        sizes = await asyncio.to_thread(sizes_of, Path(settings.data_dir), "clicks_test-*.csv.gz")
        assert [file["size_bytes"]] == sizes


def sizes_of(folder: Path, pattern: str) -> list[int]:
    return [path.stat().st_size for path in folder.rglob(pattern)]


async def test_test_events_are_limited_for_each_app_and_need_a_saved_export(customer: Customer) -> None:
    await customer.ask("POST", "/clicks/test-events", status=404)
    await customer.ask("PUT", "/clicks", customer.form(active=False))
    for _ in range(MOST_CALLS):
        await customer.ask("POST", "/clicks/test-events")

    refused = await customer.ask("POST", "/clicks/test-events", status=429)

    assert "busy" == refused["error"]["code"]
    assert MOST_CALLS == len(await customer.objects())


async def test_lag_is_the_number_of_events_that_wait_and_the_age_of_the_oldest(customer: Customer) -> None:
    await customer.ask("PUT", "/clicks", customer.form(active=False))
    none = await customer.ask("GET", "/clicks/lag")
    await customer.publish("a", "b")
    await customer.publish("c", kind="event")
    waiting = await customer.ask("GET", "/clicks/lag")
    await customer.ask("PUT", "/clicks", customer.form())
    await customer.ask("POST", "/clicks/flush")
    after = await customer.ask("GET", "/clicks/lag")

    empty = {"messages": 0, "events": 0, "is_estimate": False, "seconds": 0.0, "oldest_at": None}
    assert [empty, empty] == [none, after]
    assert (3, 3, False) == (waiting["messages"], waiting["events"], waiting["is_estimate"])
    [first, *_] = await messages(customer.bus, streams.EVENTS, "events.shop.*")
    assert abs(datetime.fromisoformat(waiting["oldest_at"]) - first.at).total_seconds() < 0.001
    assert 0 < waiting["seconds"] <= (datetime.now(UTC) - first.at).total_seconds()
    await customer.ask("GET", "/none/lag", status=404)


async def test_events_are_exported_by_lanes_and_again_by_one(customer: Customer) -> None:
    form = customer.form(data="events", shards=4, format="ndjson.gz", destination={"directory": "lanes"})
    await customer.ask("PUT", "/all", form)
    await customer.publish(*(f"u{number}" for number in range(30)), kind="event")

    run = await customer.ask("POST", "/all/flush")

    assert ("completed", 30) == (run["state"], run["rows_out"])
    names = [file["key"].rpartition("/")[2] for file in run["files"]]
    assert {"0", "1", "2", "3"} == {name.split("+")[1] for name in names}
    await customer.ask("PUT", "/all", form | {"shards": 1})
    await customer.publish("late", kind="event")
    assert 1 == (await customer.ask("POST", "/all/flush"))["rows_out"]
    texts = [gzip.decompress(data) for data in (await customer.objects()).values()]
    ids = [msgspec.json.decode(line)["id"] for text in texts for line in text.splitlines()]
    assert sorted(["late", *(f"u{number}" for number in range(30))]) == sorted(ids)
    runs = (await customer.ask("GET", "/all/runs"))["runs"]
    assert {(4, shard) for shard in range(4)} <= {
        (run.get("lane", {}).get("shards", 1), run.get("lane", {}).get("shard", 0)) for run in runs
    }


async def test_status_tells_a_failure_and_a_test_that_passes_ends_it(customer: Customer) -> None:
    await customer.ask("PUT", "/clicks", customer.form())
    assert "active" == (await customer.ask("GET", "/clicks"))["status"]["state"]
    async with customer.moto.client("s3") as s3:
        await s3.delete_bucket(Bucket=BUCKET)
    await customer.publish("a")

    await customer.ask("POST", "/clicks/flush")

    shown = await customer.ask("GET", "/clicks")
    [listed] = (await customer.ask("GET", ""))["items"]
    status = shown["status"]
    assert ("blocked", "not_found", 1) == (status["state"], status["first_code"], status["failed_attempts"])
    assert status["oldest_undelivered"]["sequence"] == 1
    assert status["next_try_at"] > status["since"]
    assert status["state"] == listed["value"]["status"]["state"]
    assert 'millrace_exports{state="blocked"} 1.0' in customer.service.mesh.metrics.render().decode()
    assert "unchanged" == (await customer.ask("PUT", "/clicks", shown))["change"]
    assert "failed" == (await customer.ask("POST", "/clicks/test", shown))["status"]

    await customer.moto.create_bucket(BUCKET)
    assert "ok" == (await customer.ask("POST", "/clicks/test", shown))["status"]

    async def is_active() -> bool:
        return bool("active" == (await customer.ask("GET", "/clicks"))["status"]["state"])

    await until(is_active)
    assert ["a"] == [row["id"] for row in await customer.rows()]
    assert ["export-failed", "export-recovered"] == await customer.alerts()
