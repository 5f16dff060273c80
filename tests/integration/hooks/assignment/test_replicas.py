"""Replicas of hooks share the partitions: they come, go and are killed under load, and each user's order is kept."""

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest

from hooks import app
from hooks.assignment.plan import LeaseTiming
from hooks.assignment.status import AssignmentOverview
from hooks.backlog.stall_detector import StallPolicy
from hooks.delivery.ack_window import Bounds
from millrace.nats_servers.server import NatsServer
from shared.contracts import streams
from shared.lifecycle import serve
from shared.messaging.bus import Bus
from shared.messaging.kv import KeyValueStore
from shared.runtime.settings import Settings
from shared.service import RunningService
from support.clients.hooks import HooksClient, by_user, events, first_successes, holds, open_client, wait_acknowledged
from support.run_service import provision_for, running
from support.servers.hooks_process import hooks_process
from support.servers.kinesis import FaultyKinesis
from support.waiting import until

QUICK = LeaseTiming(renew_s=0.2, stop_s=0.8, expire_s=1.6, drain_s=1.0)
UNHURRIED = LeaseTiming(renew_s=1.0, stop_s=60, expire_s=100, drain_s=0.5)


@pytest.fixture
def quick(patient: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leases that are over soon."""
    monkeypatch.setattr(app, "TIMING", QUICK)


@pytest.fixture
def kinesis(kinesis: FaultyKinesis) -> FaultyKinesis:
    """A Kinesis that is slow, and fails now and then."""
    kinesis.delay_s = 0.02
    kinesis.record_failure_rate = 0.02
    return kinesis


@pytest.fixture
def unhurried(quick: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leases that are handed over soon, and that a busy machine does not lose."""
    monkeypatch.setattr(app, "TIMING", UNHURRIED)


class Replicas:
    """Services in this process, each with a folder of its own, by name."""

    def __init__(self, settings: Settings, stack: AsyncExitStack) -> None:
        self._settings = settings
        self._stack = stack
        self._stacks: dict[str, AsyncExitStack] = {}
        self._killed: dict[str, asyncio.Task[int]] = {}
        self.running: dict[str, RunningService] = {}

    def settings(self, name: str) -> Settings:
        return msgspec.structs.replace(self._settings, data_dir=f"{self._settings.data_dir}/{name}")

    async def start(self, name: str) -> RunningService:
        stack = self._stacks[name] = await self._stack.enter_async_context(AsyncExitStack())
        self.running[name] = await stack.enter_async_context(running(app.SERVICE, self.settings(name)))
        return self.running[name]

    async def stop(self, name: str) -> None:
        """Stop the replica as a signal does."""
        del self.running[name]
        await self._stacks.pop(name).aclose()

    async def start_to_kill(self, name: str) -> None:
        ready: asyncio.Future[RunningService] = asyncio.get_running_loop().create_future()
        await provision_for(app.SERVICE, self.settings(name))
        self._killed[name] = asyncio.create_task(serve(app.SERVICE, self.settings(name), asyncio.Event(), ready))
        self.running[name] = await ready

    async def kill(self, name: str) -> None:
        """Break the replica off where it is: nothing is drained, acknowledged or released."""
        del self.running[name]
        task = self._killed.pop(name)
        task.cancel()
        await asyncio.wait((task,))

    def owned(self) -> list[int]:
        return sorted(owned(running) for running in self.running.values())


@pytest.fixture
async def replicas(settings: Settings, quick: None) -> AsyncIterator[Replicas]:
    async with AsyncExitStack() as stack:
        yield Replicas(settings, stack)


def owned(running: RunningService) -> int:
    """Return the number of partitions that the replica owns, by its metric."""
    rendered = running.mesh.metrics.render().decode()
    return int(float(rendered.split("\nmillrace_hooks_partitions_owned ")[1].split("\n")[0]))


async def partitions_status(url: str, admin: dict[str, str]) -> AssignmentOverview:
    async with (
        aiohttp.ClientSession(headers=admin) as http,
        http.get(f"{url}/v1/partitions", raise_for_status=True) as answer,
    ):
        return msgspec.json.decode(await answer.read(), type=AssignmentOverview)


@asynccontextmanager
async def load(client: HooksClient, posted: list[dict[str, Any]]) -> AsyncIterator[None]:
    """Post events while the block runs, and the rest after it."""

    async def post() -> None:
        for place in range(0, len(posted), 50):
            while (await client.ask("POST", "/events", posted[place : place + 50]))[0] == 503:
                await asyncio.sleep(0.05)
            await asyncio.sleep(0.02)

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(post())
        yield


async def test_one_replica_has_all_partitions_once_it_is_ready(replicas: Replicas, admin: dict[str, str]) -> None:
    first = await replicas.start("first")

    told = await partitions_status(first.url, admin)

    assert list(range(16)) == [partition.partition for partition in told.partitions]
    assert {(told.told_by, 1)} == {(partition.owner, partition.epoch) for partition in told.partitions}
    assert [(told.told_by, 16)] == [(replica.name, replica.partitions) for replica in told.replicas]
    assert [16] == replicas.owned()


async def test_replicas_that_come_and_go_share_what_there_is(
    replicas: Replicas, unhurried: None, admin: dict[str, str]
) -> None:
    first = await replicas.start("first")
    second = await replicas.start("second")
    await until(lambda: replicas.owned() == [8, 8])
    await replicas.start("third")
    await until(lambda: replicas.owned() == [5, 5, 6])

    async def all_tell_the_same() -> bool:
        one, other = await partitions_status(first.url, admin), await partitions_status(second.url, admin)
        return one.partitions == other.partitions and [5, 5, 6] == sorted(r.partitions for r in one.replicas)

    await until(all_tell_the_same)
    began = asyncio.get_running_loop().time()
    await replicas.stop("second")
    await until(lambda: replicas.owned() == [8, 8])

    assert asyncio.get_running_loop().time() - began < UNHURRIED.stop_s, "what was given back is not waited for"


async def test_events_arrive_in_order_while_replicas_come_go_and_are_killed(
    replicas: Replicas, shop: dict[str, str], kinesis: FaultyKinesis, bus: Bus
) -> None:
    posted = events(6000, users=100)
    first = await replicas.start("first")
    async with open_client(first.url, shop) as client:
        await client.connect(kinesis)
        await client.hook("all")
        async with load(client, posted):
            await replicas.start("second")
            await until(lambda: replicas.owned() == [8, 8])
            await replicas.start_to_kill("third")
            await until(lambda: replicas.owned() == [5, 5, 6])
            await replicas.kill("third")
            await until(lambda: replicas.owned() == [8, 8])
            await replicas.stop("second")
            await until(lambda: replicas.owned() == [16])
            await replicas.start_to_kill("fourth")
            await until(lambda: replicas.owned() == [8, 8])
            await replicas.kill("fourth")
            await replicas.start("fourth")
            await until(lambda: replicas.owned() == [8, 8])
        records = await kinesis.wait_records("orders", holds(6000))
        await wait_acknowledged(bus)

    assert by_user(posted) == first_successes(records)


async def test_each_replica_counts_as_matched_what_it_sent_or_has(
    replicas: Replicas, unhurried: None, shop: dict[str, str], kinesis: FaultyKinesis, bus: Bus
) -> None:
    posted = events(2000, users=300)
    kinesis.delay_s = 0.2
    first = await replicas.start("first")
    async with open_client(first.url, shop) as client:
        await client.connect(kinesis)
        await client.hook("all")
        await client.post(posted)
        await kinesis.wait_records("orders", lambda records: len(records) > 300)
        second = await replicas.start("second")
        await until(lambda: replicas.owned() == [8, 8])
        async with open_client(second.url, shop) as other:
            await kinesis.wait_records("orders", holds(2000))
            await wait_acknowledged(bus)
            told = [await client.status("all"), await other.status("all")]

    assert all(status["sent"] for status in told)
    assert [0, 0] == [status["waiting"] for status in told]
    assert [status["sent"] for status in told] == [status["matched"] for status in told]


async def test_a_pause_that_every_replica_finds_is_told_once(
    replicas: Replicas, unhurried: None, shop: dict[str, str], kinesis: FaultyKinesis, bus: Bus
) -> None:
    kinesis.denied_streams = {"orders"}
    urls = [(await replicas.start(name)).url for name in ("first", "second")]
    await until(lambda: replicas.owned() == [8, 8])
    async with open_client(urls[0], shop) as client, open_client(urls[1], shop) as other:
        await client.connect(kinesis)
        await client.hook("all")
        await client.post(events(200, users=100))

        async def both_wait() -> bool:
            return None not in [(await one.status("all"))["waits_because"] for one in (client, other)]

        await until(both_wait)
        kinesis.denied_streams = set()
        await client.hook("all", name="mended")
        await kinesis.wait_records("orders", holds(200))
        await until(lambda: has_alerts(bus, "target-resumed", 1))

    assert 1 == await alerts(bus, "target-paused")


async def alerts(bus: Bus, kind: str) -> int:
    """Count the alerts of a kind."""
    info = await bus.js.stream_info("ALERTS", subjects_filter=f"alerts.hooks.shop.{kind}")
    return sum((info.state.subjects or {}).values())


async def has_alerts(bus: Bus, kind: str, number: int) -> bool:
    return await alerts(bus, kind) >= number


async def test_a_replica_that_was_killed_has_its_partitions_back_when_it_is_started_again(
    replicas: Replicas, admin: dict[str, str]
) -> None:
    await replicas.start_to_kill("first")
    await replicas.kill("first")

    again = await replicas.start("first")

    assert {(2, 16)} == {(p.epoch, owned(again)) for p in (await partitions_status(again.url, admin)).partitions}


async def test_a_target_that_does_not_answer_holds_no_partition_back(
    replicas: Replicas, shop: dict[str, str], kinesis: FaultyKinesis, bus: Bus
) -> None:
    posted = events(200, users=40)
    first = await replicas.start("first")
    kinesis.fails_record = lambda key, _: key in {"user-3", "user-7"}
    async with open_client(first.url, shop) as client:
        await client.connect(kinesis)
        await client.hook("all")
        await client.post(posted)
        await kinesis.wait_records("orders", holds(190))
        await replicas.start("second")
        await until(lambda: replicas.owned() == [8, 8])
        kinesis.fails_record = None
        records = await kinesis.wait_records("orders", holds(200))
        await wait_acknowledged(bus)

    assert by_user(posted) == first_successes(records)


async def test_a_blocked_target_catches_up_at_the_new_owner_of_its_partitions(
    replicas: Replicas, shop: dict[str, str], kinesis: FaultyKinesis, bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    stall_policy = StallPolicy(after_s=0.5, full_after_s=0.2, check_s=0.05, checkpoint_s=0.1)
    monkeypatch.setattr(app, "STALL_POLICY", stall_policy)
    monkeypatch.setattr(app, "BOUNDS", Bounds(records=16, bytes=1 << 20, messages=32))
    posted = events(3000, users=100)
    kinesis.create_stream("good", shards=2)
    kinesis.denied_streams = {"orders"}
    await replicas.start_to_kill("killed")
    second = await replicas.start("second")
    await until(lambda: replicas.owned() == [8, 8])
    async with open_client(second.url, shop) as client:
        await client.connect(kinesis)
        await client.hook("good", stream_name="good")
        await client.hook("all")
        await client.post(posted[:1500])
        await kinesis.wait_records("good", holds(1500))
        await replicas.start("third")
        await until(lambda: replicas.owned() == [5, 5, 6])
        await client.post(posted[1500:])
        await replicas.kill("killed")
        good = await kinesis.wait_records("good", holds(3000))
        assert [] == kinesis.records("orders")
        kinesis.denied_streams = set()
        await client.hook("all", name="mended")
        late = await kinesis.wait_records("orders", lambda records: len(records) > 1000)
        await replicas.start("fourth")
        late = await kinesis.wait_records("orders", holds(3000))
        await wait_acknowledged(bus)
        store = KeyValueStore(bus, streams.HOOKS)

        async def nothing_left() -> bool:
            return not await store.scan()

        await until(nothing_left)

    assert by_user(posted) == first_successes(good) == first_successes(late)


async def test_a_replica_that_freezes_loses_its_partitions_and_disturbs_no_other_when_it_wakes(
    settings: Settings,
    shop: dict[str, str],
    admin: dict[str, str],
    kinesis: FaultyKinesis,
    bus: Bus,
    tmp_path: Path,
) -> None:
    posted = events(4000, users=100)
    async with (
        hooks_process(settings, tmp_path / "one", module="support.servers.quick_hooks") as (frozen, one_url),
        hooks_process(settings, tmp_path / "two", module="support.servers.quick_hooks") as (_, url),
        open_client(url, shop) as client,
    ):

        async def shares() -> list[int]:
            return sorted(replica.partitions for replica in (await partitions_status(url, admin)).replicas)

        async def is_shared() -> bool:
            return await shares() == [8, 8]

        async def is_alone() -> bool:
            return await shares() == [16]

        await client.connect(kinesis)
        await client.hook("all")
        await until(is_shared)
        async with load(client, posted):
            await kinesis.wait_records("orders", lambda records: len(records) > 500)
            frozen.send_signal(signal.SIGSTOP)
            await until(is_alone)
            frozen.send_signal(signal.SIGCONT)
            await until(is_shared)
        records = await kinesis.wait_records("orders", holds(4000))
        await wait_acknowledged(bus)
        assert 2 == len((await partitions_status(one_url, admin)).replicas)

    assert by_user(posted) == first_successes(records)


async def test_an_outage_of_nats_ends_all_leases_and_they_are_back_after_it(
    replicas: Replicas, shop: dict[str, str], kinesis: FaultyKinesis, bus: Bus, nats_server: NatsServer
) -> None:
    posted = events(2000, users=50)
    first = await replicas.start("first")
    await replicas.start("second")
    await until(lambda: replicas.owned() == [8, 8])
    async with open_client(first.url, shop) as client:
        await client.connect(kinesis)
        await client.hook("all")
        async with load(client, posted):
            await kinesis.wait_records("orders", lambda records: len(records) > 300)
            await nats_server.kill()
            await until(lambda: replicas.owned() == [0, 0])
            await nats_server.restart()
            await until(lambda: replicas.owned() == [8, 8])
        records = await kinesis.wait_records("orders", holds(2000))
        await wait_acknowledged(bus)

    assert by_user(posted) == first_successes(records)


async def test_of_two_with_a_copied_folder_one_takes_another_name(replicas: Replicas, admin: dict[str, str]) -> None:
    first = await replicas.start("first")
    name = (await partitions_status(first.url, admin)).told_by
    copied = Path(replicas.settings("copy").data_dir) / "hooks"
    copied.mkdir(parents=True)
    (copied / "replica").write_text(name)

    second = await replicas.start("copy")
    await until(lambda: replicas.owned() == [8, 8])

    told = await partitions_status(second.url, admin)
    assert name == told.told_by
    assert 2 == len(told.replicas)
