"""
Processes are killed in the middle of their work and started again: nothing is lost, and what may be repeated is said.

hooks may send a record again that was in flight (the receiver drops it by its id); ftp-gateway, exporter and storage
repeat nothing.
"""

import asyncio
import csv
import gzip
import json
from collections import Counter
from io import BytesIO, StringIO
from typing import Any

import aiohttp
import asyncssh
import pytest
from PIL import Image

from shared.contracts.messages import PushBatch, PushRow, decode
from shared.contracts.services import SERVICE_NAMES
from shared.contracts.streams import EVENTS, PUSH, Stream
from shared.errors import UnavailableError
from shared.messaging.consumers import open_scan
from shared.messaging.pull import Pull
from support.servers.mesh import RunningMesh
from support.waiting import until

APP = "/v1/apps/shop"
PASSWORD = "correct-horse-battery"


async def read_all(scan: Pull) -> list[bytes]:
    found: list[bytes] = []
    waiting = scan.pending_at_open > 0
    while waiting:
        for message in await scan.next(1024):
            found.append(message.data)
            waiting = message.pending > 0
    return found


async def messages(mesh: RunningMesh, stream: Stream) -> int:
    async with mesh.bus("push-engine") as bus:
        state = await bus.stream_state(stream)
    return state.messages


async def connect_kinesis(mesh: RunningMesh, shards: int = 2, *, call_records: int = 500) -> None:
    await mesh.moto.create_stream("shop-events", shards=shards)
    connector = {
        "region": mesh.moto.region,
        "api_key": "AKIATESTINGTESTING00",
        "secret_key": "testing-secret",
        "endpoint_url": mesh.moto.url,
    }
    await mesh.call("PUT", "hooks", f"{APP}/connectors/kinesis", json=connector)
    hook: dict[str, Any] = {"name": "all", "stream_name": "shop-events", "trigger_type": "EVENT", "event_code": "*"}
    await mesh.call("PUT", "hooks", f"{APP}/hooks/all", json=hook | {"batch": {"max_records": call_records}})


async def send_events(mesh: RunningMesh, first: int, last: int, users: int = 40) -> None:
    """Events numbered from `first` to `last`; the number of each user only grows."""
    events = [
        {"id": f"e{n}", "code": "view", "user_id": f"user-{n % users}", "attributes": {"n": n}}
        for n in range(first, last + 1)
    ]
    for begin in range(0, len(events), 500):
        answer = await mesh.call("POST", "hooks", f"{APP}/events", json=events[begin : begin + 500])
        assert answer["rejected"] == 0


async def kinesis_records(mesh: RunningMesh) -> list[dict[str, Any]]:
    """Every record of every shard, in the order of its shard."""
    found: list[dict[str, Any]] = []
    async with mesh.moto.client("kinesis") as kinesis:
        for shard in (await kinesis.list_shards(StreamName="shop-events"))["Shards"]:
            where = {"StreamName": "shop-events", "ShardId": shard["ShardId"], "ShardIteratorType": "TRIM_HORIZON"}
            iterator = (await kinesis.get_shard_iterator(**where))["ShardIterator"]
            while True:
                answer = await kinesis.get_records(ShardIterator=iterator, Limit=10_000)
                found += [json.loads(record["Data"]) for record in answer["Records"]]
                if not answer["Records"] or answer["MillisBehindLatest"] == 0:
                    break
                iterator = answer["NextShardIterator"]
    return found


async def all_arrived(mesh: RunningMesh, last: int) -> list[dict[str, Any]]:
    async with asyncio.timeout(40):
        while True:
            records = await kinesis_records(mesh)
            if len({record["event"]["attributes"]["n"] for record in records}) == last:
                return records
            await asyncio.sleep(0.1)


def check_order(records: list[dict[str, Any]]) -> None:
    """First arrivals of each user are in order; a repetition is dropped by its id."""
    seen: set[str] = set()
    by_user: dict[str, list[int]] = {}
    for record in records:
        if record["id"] not in seen:
            seen.add(record["id"])
            by_user.setdefault(record["user"]["userId"], []).append(record["event"]["attributes"]["n"])
    assert all(numbers == sorted(numbers) for numbers in by_user.values())


async def test_hooks_killed_while_sending_loses_nothing_and_keeps_the_order(mesh: RunningMesh) -> None:
    # Small calls, so that there is a middle to be killed in.
    await connect_kinesis(mesh, call_records=2)
    await send_events(mesh, 1, 1500)
    async with asyncio.timeout(30):
        while not await kinesis_records(mesh):
            await asyncio.sleep(0)

    await mesh.kill("hooks")
    sent_before = len(await kinesis_records(mesh))
    await mesh.start("hooks")
    await send_events(mesh, 1501, 1700)
    records = await all_arrived(mesh, 1700)

    assert 0 < sent_before < 1500, "the kill was not in the middle"
    check_order(records)


async def test_events_accepted_just_before_a_kill_are_delivered(mesh: RunningMesh) -> None:
    await connect_kinesis(mesh)
    await send_events(mesh, 1, 500)
    await mesh.kill("hooks")

    await mesh.start("hooks")

    check_order(await all_arrived(mesh, 500))


async def test_another_replica_of_hooks_continues_at_the_position_of_a_killed_one(mesh: RunningMesh) -> None:
    # Small calls, so that there is a middle to be killed in.
    await connect_kinesis(mesh, call_records=10)
    async with mesh.replica("hooks") as url:

        async def owned() -> list[int]:
            async with mesh.http.get(f"{url}/v1/partitions", raise_for_status=True) as answer:
                return sorted(replica["partitions"] for replica in (await answer.json())["replicas"])

        async def is_shared() -> bool:
            return await owned() == [8, 8]

        async def has_all() -> bool:
            return await owned() == [16]

        await until(is_shared)
        await send_events(mesh, 1, 4000)
        async with asyncio.timeout(30):
            while not await kinesis_records(mesh):
                await asyncio.sleep(0)
        await mesh.kill("hooks")
        records = await all_arrived(mesh, 4000)
        # All of the killed one's events may have arrived before the other one has its partitions.
        await until(has_all)

    check_order(records)


async def make_ftp_user(mesh: RunningMesh) -> None:
    await mesh.call("PUT", "ftp-gateway", APP, json={"settle_s": 0})
    await mesh.call("PUT", "ftp-gateway", f"{APP}/ftp-users/nightly", json={"password": PASSWORD})


def sftp(mesh: RunningMesh) -> asyncssh.misc._ACMWrapper[asyncssh.SSHClientConnection]:
    host, port = mesh.sftp
    return asyncssh.connect(host, port, username="shop.nightly", password=PASSWORD, known_hosts=None, config=None)


async def put(mesh: RunningMesh, path: str, content: bytes) -> None:
    """Under another name first, as good clients do."""
    async with sftp(mesh) as connection, connection.start_sftp_client() as client:
        async with client.open(f"{path}.part", "wb") as file:
            await file.write(content)
        await client.rename(f"{path}.part", path)


async def push_rows(mesh: RunningMesh) -> list[PushRow]:
    async with mesh.bus("ftp-gateway") as bus, open_scan(bus, PUSH, subject="push.send.*.*") as scan:
        return [row for data in await read_all(scan) for row in decode(data, PushBatch).rows]


async def listing(mesh: RunningMesh, folder: str) -> set[str]:
    async with sftp(mesh) as connection, connection.start_sftp_client() as client:
        return {str(name) for name in await client.listdir(folder)} - {".", ".."}


ROWS = 150_000


async def test_ftp_gateway_killed_while_publishing_repeats_no_row_and_loses_none(mesh: RunningMesh) -> None:
    await make_ftp_user(mesh)
    content = "".join(f"{n};Hello number {n};https://example.com/{n}\n" for n in range(1, ROWS + 1)).encode()
    await put(mesh, "/push.csv", content)
    async with mesh.bus("push-engine") as bus, asyncio.timeout(30):
        while (await bus.stream_state(PUSH)).messages == 0:
            await asyncio.sleep(0)

    await mesh.kill("ftp-gateway")
    published_before = await messages(mesh, PUSH)
    await mesh.start("ftp-gateway")
    async with asyncio.timeout(40):
        while "push.csv" in await listing(mesh, "/"):
            await asyncio.sleep(0.05)
    rows = await push_rows(mesh)

    assert 0 < published_before < ROWS // 500, "the kill was not in the middle"
    assert [row.line for row in rows] == list(range(1, ROWS + 1))
    assert "push.csv.result.json" in await listing(mesh, "/errors")


async def make_export(mesh: RunningMesh) -> None:
    await mesh.moto.create_bucket("lake")
    export = {
        "data": "clicks",
        "frequency": 1440,
        "destination": {
            "type": "s3",
            "bucket": "lake",
            "region": mesh.moto.region,
            "access_key": "AKIATESTINGTESTING00",
            "secret_key": "testing-secret",
            "directory": "raw/clicks",
            "endpoint_url": mesh.moto.url,
        },
    }
    await mesh.call("PUT", "exporter", f"{APP}/exports/clicks", json=export)


async def send_clicks(mesh: RunningMesh, first: int, last: int) -> None:
    for begin in range(first, last + 1, 500):
        clicks = [
            {
                "id": f"c{n}",
                "type": "click",
                "code": "click",
                "user_id": f"user-{n % 40}",
                "attributes": {"sub1": str(n)},
            }
            for n in range(begin, min(begin + 500, last + 1))
        ]
        await mesh.call("POST", "hooks", f"{APP}/events", json=clicks)


async def exported(mesh: RunningMesh) -> Counter[str]:
    """The number of rows of each click in the bucket."""
    rows: Counter[str] = Counter()
    async with mesh.moto.client("s3") as s3:
        for item in (await s3.list_objects_v2(Bucket="lake")).get("Contents", []):
            body = await (await s3.get_object(Bucket="lake", Key=item["Key"]))["Body"].read()
            for row in csv.DictReader(StringIO(gzip.decompress(body).decode())):
                rows[row["sub1"]] += 1
    return rows


async def flush(mesh: RunningMesh) -> None:
    await mesh.call("POST", "exporter", f"{APP}/exports/clicks/flush")


async def test_exporter_killed_again_and_again_writes_every_row_once(mesh: RunningMesh) -> None:
    await make_export(mesh)
    last = 0
    for round_ in range(4):
        await send_clicks(mesh, last + 1, last + 3000)
        last += 3000
        flushing = asyncio.create_task(flush(mesh))
        # Another point each time: while reading, while writing, before and after the cursor moves.
        await asyncio.sleep(0.05 * round_)
        await mesh.kill("exporter")
        await asyncio.wait([flushing])
        await mesh.start("exporter")
    await flush(mesh)

    rows = await exported(mesh)

    assert rows == Counter(str(n) for n in range(1, last + 1))


def picture() -> bytes:
    buffer = BytesIO()
    Image.effect_noise((1600, 1200), 80).convert("RGB").save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


async def upload(mesh: RunningMesh, content: bytes) -> Any:
    form = aiohttp.FormData()
    form.add_field("file", BytesIO(content), filename="photo.jpg")
    return await mesh.call("POST", "storage", f"{APP}/media", data=form)


async def test_storage_killed_during_an_upload_leaves_one_object_and_one_url(mesh: RunningMesh) -> None:
    content = picture()
    uploading = asyncio.create_task(upload(mesh, content))
    objects = mesh.folder.data("storage")
    async with asyncio.timeout(20):
        while not any(path.is_file() for path in objects.rglob("*")) and not uploading.done():
            await asyncio.sleep(0)
    await mesh.kill("storage")
    await asyncio.wait([uploading])
    await mesh.start("storage")

    first = await upload(mesh, content)
    second = await upload(mesh, content)

    assert first["original"]["url"] == second["original"]["url"]
    listed = await mesh.call("GET", "storage", f"{APP}/objects")
    assert [first["id"]] == [found["id"] for found in listed["objects"]]
    stored = [path for path in (objects / "objects" / "shop").rglob("*") if path.is_file()]
    assert sorted(path.suffixes for path in stored) == [[".jpg"], [".jpg"]], "the original, its thumbnail, and no piece"
    async with mesh.http.get(first["original"]["url"]) as response:
        assert await response.read() == content


async def test_nats_killed_and_started_again_loses_nothing(mesh: RunningMesh) -> None:
    await connect_kinesis(mesh)
    await make_ftp_user(mesh)
    await send_events(mesh, 1, 2000)

    await mesh.local.nats.kill()
    for service in SERVICE_NAMES:
        async with mesh.http.get(mesh.url(service, "/readyz")) as response:
            assert response.status == 503, f"{service} says it is ready without NATS"
    await mesh.local.nats.restart()
    for service in SERVICE_NAMES:
        await mesh.until_ready(service)
    await send_events(mesh, 2001, 2500)

    check_order(await all_arrived(mesh, 2500))


async def test_an_entrance_without_nats_refuses_and_keeps_nothing_back(mesh: RunningMesh) -> None:
    await mesh.local.nats.kill()
    event = [{"id": "e1", "code": "view", "user_id": "u"}]

    async with mesh.http.post(mesh.url("hooks", f"{APP}/events"), json=event) as response:
        refused = await response.json()
    await mesh.local.nats.restart()
    await mesh.until_ready("hooks")
    await mesh.call("POST", "hooks", f"{APP}/events", json=event)

    assert (response.status, refused["error"]["code"]) == (503, UnavailableError.code)
    assert await messages(mesh, EVENTS) == 1


@pytest.mark.parametrize("service", SERVICE_NAMES)
async def test_sigterm_under_load_finishes_what_is_in_flight_and_exits_0(mesh: RunningMesh, service: str) -> None:
    await connect_kinesis(mesh)
    await make_ftp_user(mesh)
    await make_export(mesh)
    content = picture()
    uploads = [asyncio.create_task(upload(mesh, content + bytes([n]))) for n in range(8)]
    await send_events(mesh, 1, 2000)
    await send_clicks(mesh, 1, 2000)
    flushing = asyncio.create_task(flush(mesh))
    await put(mesh, "/push.csv", b"".join(b"%d;Hi;https://example.com/\n" % n for n in range(1, 20_001)))

    code = await mesh.terminate(service)
    await mesh.start(service)

    assert code == 0
    done = await asyncio.gather(*uploads)
    assert len({answer["id"] for answer in done}) == 8
    await asyncio.wait([flushing])
    if flushing.exception() is not None:
        assert service == "exporter", flushing.exception()
    await flush(mesh)
    check_order(await all_arrived(mesh, 2000))
    assert await exported(mesh) == Counter(str(n) for n in range(1, 2001))
    async with asyncio.timeout(40):
        while "push.csv" in await listing(mesh, "/"):
            await asyncio.sleep(0.05)
    assert [row.line for row in await push_rows(mesh)] == list(range(1, 20_001))
