"""LeaseKeeper on a real bucket: a partition that another replica has just claimed stays with it."""

import asyncio
from datetime import UTC, datetime
from functools import partial

import pytest

from hooks.assignment.leases import LeaseKeeper
from hooks.assignment.plan import AssignmentPlan, Lease, LeaseTiming
from shared.contracts.keys import lease_key, member_key
from shared.contracts.messages import decode, encode
from shared.contracts.streams import LEASES
from shared.contracts.subjects import PARTITIONS
from shared.messaging.bus import Bus
from shared.messaging.kv import KeyValueStore
from shared.messaging.provisioning.making import ensure
from shared.runtime.settings import Settings


class OpenPartitions:
    """Set of the open partitions, by number."""

    def __init__(self) -> None:
        self.opened: set[int] = set()

    def open(self, number: int) -> None:
        self.opened.add(number)

    async def release(self, number: int, within_s: float) -> None:
        self.drop(number)

    def drop(self, number: int) -> None:
        self.opened.discard(number)

    def close(self) -> None:
        return

    async def join(self) -> None:
        return


def now() -> datetime:
    return datetime.now(UTC)


async def test_a_lease_that_arrives_after_the_plan_is_left_alone(
    bus: Bus, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    await ensure(bus, LEASES, settings)
    store, work = KeyValueStore(bus, LEASES), OpenPartitions()
    leases = LeaseKeeper("one", bus, work, timing=LeaseTiming(), now=now)
    plan, loop = leases.table.plan, asyncio.get_running_loop()
    theirs = Lease(owner="other", epoch=1, since=now(), renewed_at=now())
    scan = KeyValueStore.scan

    async def scan_before_theirs(self: KeyValueStore, keys: str = ">") -> object:
        found = await scan(self, keys)
        revision = await store.put(lease_key(0), encode(theirs))
        heard = partial(leases.table.observe_lease, 0, theirs, revision)
        monkeypatch.setattr(leases.table, "plan", lambda *given: _and_soon(plan(*given), heard))
        return found

    def _and_soon(made: AssignmentPlan, heard: partial[None]) -> AssignmentPlan:
        loop.call_soon(heard)
        return made

    monkeypatch.setattr(KeyValueStore, "scan", scan_before_theirs)

    await leases.start()

    stored = await store.get(lease_key(0))
    assert stored is not None
    assert theirs == decode(stored.data, Lease)
    assert set(range(1, PARTITIONS)) == work.opened
    leases.close()
    await leases.join()


async def test_leases_that_ended_while_the_process_stood_still_are_dropped_before_a_call(
    bus: Bus, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    await ensure(bus, LEASES, settings)
    work, timing = OpenPartitions(), LeaseTiming()
    leases = LeaseKeeper("one", bus, work, timing=timing, now=now)
    await leases.start()

    leases.drop_ended()
    assert len(work.opened) == PARTITIONS

    # No timer has run yet, as after a SIGCONT.
    clock = leases._clock
    monkeypatch.setattr(leases, "_clock", lambda: clock() + timing.stop_s)
    leases.drop_ended()
    assert not work.opened


async def test_a_later_process_of_a_name_keeps_it_while_the_earlier_one_renews(
    bus: Bus, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The earlier process renews between the read and the write of the later one."""
    await ensure(bus, LEASES, settings)
    earlier, later = (
        LeaseKeeper("one", bus, OpenPartitions(), timing=LeaseTiming(), now=now) for _ in ("earlier", "later")
    )
    await earlier.start()
    get, renewals = KeyValueStore.get, [earlier._renew_member]

    async def get_before_a_renewal(self: KeyValueStore, key: str) -> object:
        found = await get(self, key)
        if key == member_key("one") and renewals:
            await renewals.pop()()
        return found

    monkeypatch.setattr(KeyValueStore, "get", get_before_a_renewal)

    await later.start()
    await earlier._renew_member()

    assert "one" == later.name
    assert "one" != earlier.name


async def test_what_is_no_lease_stops_no_replica_and_is_written_over_by_the_holder(
    bus: Bus, settings: Settings
) -> None:
    """Anybody who may ask NATS can lead an answer to a key (docs/adr/0027)."""
    await ensure(bus, LEASES, settings)
    store, work = KeyValueStore(bus, LEASES), OpenPartitions()
    for key in (member_key("stranger"), "hooks.partition.none", lease_key(1)):
        await store.put(key, b'{"stream":"PUSH","seq":1}')
    leases = LeaseKeeper("one", bus, work, timing=LeaseTiming(), now=now)

    await leases.start()
    assert 1 not in work.opened
    spoiled = await store.put(lease_key(min(work.opened)), b"")
    for _ in range(2):
        await leases._renew_all()

    stored = await store.get(lease_key(min(work.opened)))
    assert stored is not None
    assert stored.revision > spoiled
    assert "one" == decode(stored.data, Lease).owner
