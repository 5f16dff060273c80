"""A blocked stream holds up no other. It gets all events when it answers again, each user's in order."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager

import msgspec
import pytest

from hooks import app
from hooks.app import SERVICE
from hooks.backlog.stall_detector import StallPolicy
from hooks.delivery.ack_window import Bounds
from shared.contracts import streams
from shared.messaging.bus import Bus
from shared.messaging.kv import KeyValueStore
from shared.runtime.settings import Settings
from shared.service import RunningService
from support.clients.hooks import HooksClient, by_user, events, first_successes, holds, open_client, wait_acknowledged
from support.run_service import RunService, running
from support.servers.kinesis import FaultyKinesis, Stored
from support.waiting import until

USERS = 300


@pytest.fixture(autouse=True)
def small_and_hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Set an ack window that a handful of events fills, and short times of the stall policy."""
    monkeypatch.setattr(app, "BOUNDS", Bounds(records=16, bytes=1 << 20, messages=32))
    stall_policy = StallPolicy(after_s=0.5, full_after_s=0.2, check_s=0.05, checkpoint_s=0.1)
    monkeypatch.setattr(app, "STALL_POLICY", stall_policy)


@pytest.fixture
def kinesis(kinesis: FaultyKinesis) -> FaultyKinesis:
    """A Kinesis with a stream that tests block, and one that stays good."""
    kinesis.create_stream("good", shards=4)
    kinesis.create_stream("blocked", shards=4)
    return kinesis


@asynccontextmanager
async def hooked(settings: Settings, shop: dict[str, str]) -> AsyncIterator[tuple[RunningService, HooksClient]]:
    """Run the service, with a client of the tenant `shop`."""
    async with running(SERVICE, settings) as service, open_client(service.url, shop) as client:
        yield service, client


async def prepare(client: HooksClient, kinesis: FaultyKinesis) -> None:
    """Save two hooks for every event, each with a stream of its own, of which one is denied."""
    kinesis.denied_streams = {"blocked"}
    await client.connect(kinesis)
    await client.hook("good", stream_name="good")
    await client.hook("blocked", stream_name="blocked")


async def post(client: HooksClient, posted: list[dict[str, object]]) -> None:
    """Post in small requests, so that there are many messages."""
    for place in range(0, len(posted), 50):
        await client.post(posted[place : place + 50])


async def entries(bus: Bus) -> int:
    """Count the backlogs in the bucket."""
    return len(await KeyValueStore(bus, streams.HOOKS).scan())


async def allow(client: HooksClient, kinesis: FaultyKinesis) -> None:
    """Let the stream accept records again, and save the hook, so that its target resumes."""
    kinesis.denied_streams = set()
    await client.hook("blocked", stream_name="blocked", name="mended")


def sent_twice(records: Iterable[Stored]) -> int:
    ids = [record.value["id"] for record in records]
    return len(ids) - len(set(ids))


async def test_a_denied_stream_holds_up_no_other_and_gets_everything_later(
    settings: Settings, shop: dict[str, str], kinesis: FaultyKinesis, bus: Bus
) -> None:
    posted = events(4000, USERS)
    async with hooked(settings, shop) as (service, client):
        await prepare(client, kinesis)
        await post(client, posted[:3000])
        records = await kinesis.wait_records("good", holds(3000))
        await wait_acknowledged(bus)
        status = await client.status("blocked")
        assert status["detached"]
        assert 3000 == status["lag"] + status["waiting"]
        assert not (await client.status("good"))["detached"]
        assert b"millrace_hooks_detached_targets 1.0" in service.mesh.metrics.render()
        assert [] == kinesis.records("blocked")

        await allow(client, kinesis)
        await post(client, posted[3000:])
        late = await kinesis.wait_records("blocked", holds(4000))
        await wait_acknowledged(bus)
        await until(lambda: nothing_left(bus))
        status = await client.status("blocked")
        records = await kinesis.wait_records("good", holds(4000))

    assert by_user(posted) == first_successes(records) == first_successes(late)
    assert (0, 0) == (sent_twice(records), sent_twice(late))
    assert (False, 0) == (status["detached"], status["lag"])
    assert (4000, 4000) == (status["matched"], status["sent"])


async def nothing_left(bus: Bus) -> bool:
    return await entries(bus) == 0


@pytest.mark.parametrize("how", ["stopped", "cancelled"])
async def test_a_restart_goes_on_where_the_blocked_stream_was(
    settings: Settings, shop: dict[str, str], kinesis: FaultyKinesis, bus: Bus, how: str
) -> None:
    deadline_s = 5.0 if how == "stopped" else 0.1
    impatient = msgspec.structs.replace(settings, stop_deadline_s=deadline_s)
    posted = events(3000, USERS)
    async with hooked(impatient, shop) as (_, client):
        await prepare(client, kinesis)
        await post(client, posted[:1000])
        await kinesis.wait_records("good", holds(1000))
        await until(lambda: detached(client))
        await post(client, posted[1000:2000])
    async with hooked(settings, shop) as (_, client):
        await post(client, posted[2000:])
        await kinesis.wait_records("good", holds(3000))
        await wait_acknowledged(bus)
        assert (await client.status("blocked"))["detached"]
        await allow(client, kinesis)
        records = await kinesis.wait_records("blocked", holds(3000))
        await until(lambda: nothing_left(bus))
        await wait_acknowledged(bus)

    assert by_user(posted) == first_successes(records) == first_successes(kinesis.records("good"))


async def detached(client: HooksClient) -> bool:
    return bool((await client.status("blocked"))["detached"])


async def test_a_restart_in_the_middle_of_catching_up_loses_nothing(
    settings: Settings, shop: dict[str, str], kinesis: FaultyKinesis, bus: Bus
) -> None:
    posted = events(4000, USERS)
    impatient = msgspec.structs.replace(settings, stop_deadline_s=0.1)
    async with hooked(impatient, shop) as (_, client):
        await prepare(client, kinesis)
        await post(client, posted)
        await kinesis.wait_records("good", holds(4000))
        kinesis.delay_s = 0.2
        await allow(client, kinesis)
        await kinesis.wait_records("blocked", lambda records: len(records) > 500)
    before = len(kinesis.records("blocked"))
    kinesis.delay_s = 0.0
    async with hooked(settings, shop):
        records = await kinesis.wait_records("blocked", holds(4000))
        await until(lambda: nothing_left(bus))
        await wait_acknowledged(bus)

    assert before < 4000
    assert by_user(posted) == first_successes(records)


async def test_a_throttled_stream_slows_no_other_and_gets_everything(
    settings: Settings, shop: dict[str, str], kinesis: FaultyKinesis, bus: Bus
) -> None:
    posted = events(3000, USERS)
    kinesis.failing_streams = {"blocked": 0.9}
    async with hooked(settings, shop) as (service, client):
        await prepare(client, kinesis)
        kinesis.denied_streams = set()
        await post(client, posted)
        await kinesis.wait_records("good", holds(3000))
        await wait_acknowledged(bus)
        assert len(first_successes(kinesis.records("blocked"))) <= USERS
        kinesis.failing_streams = {}
        records = await kinesis.wait_records("blocked", holds(3000))
        await until(lambda: nothing_left(bus))

    assert by_user(posted) == first_successes(records)
    assert b"millrace_hooks_order_inversions_total 0.0" in service.mesh.metrics.render()


async def test_events_follow_a_hook_that_is_moved_while_it_is_detached(
    settings: Settings, shop: dict[str, str], kinesis: FaultyKinesis, bus: Bus
) -> None:
    posted = events(2000, USERS)
    kinesis.create_stream("right", shards=2)
    async with hooked(settings, shop) as (_, client):
        await prepare(client, kinesis)
        await client.hook("stays", stream_name="blocked")
        await post(client, posted[:1500])
        await kinesis.wait_records("good", holds(1500))
        await wait_acknowledged(bus)
        await client.hook("blocked", stream_name="right")
        await post(client, posted[1500:])
        moved = await kinesis.wait_records("right", holds(2000))
        assert (await client.status("stays"))["detached"]
        await until(lambda: attached(client, "blocked"))
        kinesis.denied_streams = set()
        await client.hook("stays", stream_name="blocked", name="mended")
        stayed = await kinesis.wait_records("blocked", holds(2000))
        await until(lambda: nothing_left(bus))

    assert by_user(posted) == first_successes(moved) == first_successes(stayed)
    assert {"blocked"} == {record.value["hookId"] for record in moved}
    assert {"stays"} == {record.value["hookId"] for record in stayed}


async def attached(client: HooksClient, hook_id: str) -> bool:
    return not (await client.status(hook_id))["detached"]


@pytest.mark.parametrize("how", ["hook", "connector"])
async def test_what_waits_is_skipped_when_its_hook_is_deleted_or_its_connector_inactive(
    settings: Settings, shop: dict[str, str], kinesis: FaultyKinesis, bus: Bus, how: str
) -> None:
    posted = events(1000, USERS)
    async with hooked(settings, shop) as (_, client):
        await prepare(client, kinesis)
        await post(client, posted)
        await kinesis.wait_records("good", holds(1000))
        await wait_acknowledged(bus)
        if how == "hook":
            deleted, _ = await client.ask("DELETE", "/hooks/blocked")
            assert 204 == deleted
        else:
            await client.connect(kinesis, active=False)
        await until(lambda: nothing_left(bus))
        if how == "connector":
            status = await client.status("blocked")
            assert (1000, False) == (status["skipped_inactive"], status["detached"])
            await client.connect(kinesis)
        kinesis.denied_streams = set()
        await client.hook("blocked", stream_name="blocked")
        await client.post([{"id": "after", "code": "c", "user_id": "user-1"}])
        records = await kinesis.wait_records("blocked", holds(1))

    assert ["after"] == [record.value["id"] for record in records]


@pytest.mark.timeout(180)
async def test_of_a_thousand_hooks_those_of_blocked_streams_cost_the_others_nothing(
    run_service: RunService, admin: dict[str, str], kinesis: FaultyKinesis, bus: Bus
) -> None:
    apps = [f"app-{number}" for number in range(100)]
    kinesis.denied_streams = {"blocked"}
    kinesis.create_stream("throttled", shards=2)
    kinesis.failing_streams = {"throttled": 1.0}
    async with run_service(SERVICE) as service:
        for app_key in apps:
            async with open_client(service.url, admin, app_key) as client:
                await client.connect(kinesis)
                hooks = [client.hook(f"h{number}", stream_name="good", event_code=f"c{number}") for number in range(9)]
                await asyncio.gather(*hooks, client.hook("h9", stream_name=stream_of(app_key), event_code="c9"))
        for round_ in range(10):
            for app_key in apps:
                async with open_client(service.url, admin, app_key) as client:
                    await client.post(
                        [
                            {"id": f"{app_key}-{round_}-{code}-{user}", "code": f"c{code}", "user_id": f"u{user}"}
                            for code in (round_ % 9, 9)
                            for user in range(2)
                        ]
                    )
        good = await kinesis.wait_records("good", holds(100 * 20 + 97 * 20))
        await wait_acknowledged(bus)
        async with AsyncExitStack() as stack:
            clients = {
                app_key: await stack.enter_async_context(open_client(service.url, admin, app_key))
                for app_key in TROUBLE
            }
            statuses = {app_key: await client.status("h9") for app_key, client in clients.items()}
            kinesis.denied_streams, kinesis.failing_streams = set(), {}
            kinesis.create_stream("missing")
            for app_key, client in clients.items():
                await client.hook("h9", stream_name=TROUBLE[app_key], event_code="c9", name="mended")
            late = {app_key: await kinesis.wait_records(stream, holds(20)) for app_key, stream in TROUBLE.items()}

    assert {900 + 97} == {len({(record.value["appKey"], record.value["hookId"]) for record in good})}
    for app_key, status in statuses.items():
        assert status["detached"]
        # A stream that answers, if only that it is over its limit, is given more than one that does not.
        assert (status["lag"] > 10) == (app_key != "app-8")
        assert 20 == status["lag"] + status["matched"]
        assert 20 == len(late[app_key])


TROUBLE = {"app-7": "blocked", "app-8": "throttled", "app-9": "missing"}
"""Apps with a stream that accepts nothing: denied, over its limit, missing."""


def stream_of(app_key: str) -> str:
    return TROUBLE.get(app_key, "good")
