"""Owners of partitions, for any sequence of replicas that come, go, fall silent and come back."""

from collections import Counter
from datetime import UTC, datetime

from hypothesis import example, given, settings
from hypothesis import strategies as st

from hooks.assignment.plan import Lease, LeaseTable, LeaseTiming, Member
from shared.contracts.subjects import PARTITIONS

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
TIMING = LeaseTiming()
NAMES = ("a", "b", "c")


class Bucket:
    """Leases and members with revisions, and the clock that all replicas of a test share."""

    def __init__(self) -> None:
        self.now_s = 1000.0
        self.revision = 0
        self.leases: dict[int, tuple[Lease, int]] = {}
        self.members: dict[str, tuple[Member, int]] = {}

    def clock(self) -> float:
        return self.now_s

    def put_lease(self, number: int, owner: str, epoch: int, expected: int) -> int | None:
        """Return the new revision, or None where the present one is not the expected one."""
        if self.leases.get(number, (None, 0))[1] != expected:
            return None
        self.revision += 1
        self.leases[number] = Lease(owner=owner, epoch=epoch, since=NOW, renewed_at=NOW), self.revision
        return self.revision

    def put_member(self, name: str) -> None:
        self.revision += 1
        self.members[name] = Member(run="1", since=NOW, renewed_at=NOW), self.revision


class Replica:
    """A replica that follows the plan. It stops sending for a partition at `sends_until` unless it renews."""

    def __init__(self, name: str, bucket: Bucket) -> None:
        self.bucket = bucket
        self.table = LeaseTable(name, TIMING, bucket.clock)
        self.revisions: dict[int, int] = {}
        self.sends_until: dict[int, float] = {}
        self.look()

    def look(self) -> None:
        bucket = self.bucket
        for number, (lease, revision) in bucket.leases.items():
            self.table.observe_lease(number, lease, revision)
        for name in set(self.table.members) | set(bucket.members):
            member, revision = bucket.members.get(name, (None, 0))
            self.table.observe_member(name, member, revision)

    def owns(self, number: int) -> bool:
        return self.sends_until.get(number, 0.0) > self.bucket.now_s

    def held(self) -> list[int]:
        return [number for number in range(PARTITIONS) if self.owns(number)]

    def renew(self) -> None:
        for number in self.held():
            epoch = self.table.leases[number].epoch
            self._write(number, self.table.own_name, epoch, self.revisions[number])
        self.bucket.put_member(self.table.own_name)
        self.table.record_contact()

    def act(self) -> None:
        plan = self.table.plan(self.held())
        for number in plan.claim:
            seen = self.table.leases.get(number)
            self._write(number, self.table.own_name, (seen.epoch if seen else 0) + 1, self.table.revision(number))
        for number in plan.release:
            self._write(number, "", self.table.leases[number].epoch, self.revisions[number])
            self.sends_until.pop(number)

    def _write(self, number: int, owner: str, epoch: int, expected: int) -> None:
        revision = self.bucket.put_lease(number, owner, epoch, expected)
        if revision is None:
            self.sends_until.pop(number, None)
            return
        self.table.observe_lease(number, self.bucket.leases[number][0], revision)
        self.revisions[number] = revision
        self.sends_until[number] = self.bucket.now_s + TIMING.stop_s

    def leave(self) -> None:
        for number in self.held():
            self._write(number, "", self.table.leases[number].epoch, self.revisions[number])
        self.bucket.members.pop(self.table.own_name, None)


class World:
    def __init__(self) -> None:
        self.bucket = Bucket()
        self.replicas: dict[str, Replica] = {}
        self.gone: list[Replica] = []
        self.silent: set[str] = set()

    def join(self, name: str) -> None:
        if name not in self.replicas:
            self.replicas[name] = Replica(name, self.bucket)
            self.turn(name)

    def leave(self, name: str) -> None:
        if name in self.replicas and name not in self.silent:
            self.replicas.pop(name).leave()

    def kill(self, name: str) -> None:
        """Remove the replica without a message. Its calls under way count as sending until its time is over."""
        if name in self.replicas:
            self.replicas.pop(name)
            self.silent.discard(name)

    def freeze(self, name: str) -> None:
        self.silent.add(name)

    def thaw(self, name: str) -> None:
        self.silent.discard(name)

    def turn(self, name: str) -> None:
        """Run one round of one replica."""
        if name in self.replicas and name not in self.silent:
            self.replicas[name].look()
            self.replicas[name].renew()
            self.replicas[name].act()

    def blind_turn(self, name: str) -> None:
        """Let the replica act by the state that it saw before."""
        if name in self.replicas and name not in self.silent:
            self.replicas[name].act()

    def wait(self, name: str) -> None:
        """Let time pass in which no replica does anything."""
        self.bucket.now_s += 1.0 + 2.5 * NAMES.index(name)

    def rounds(self, name: str) -> None:
        """Let time pass in which the replicas that can do their rounds."""
        self.rest(2 + 2 * NAMES.index(name))

    def check(self) -> None:
        for number in range(PARTITIONS):
            owners = [name for name, replica in self.replicas.items() if replica.owns(number)]
            assert len(owners) <= 1, (number, owners)

    def rest(self, seconds: int) -> None:
        """Let time pass in which all replicas do their rounds."""
        for _ in range(int(seconds / TIMING.renew_s)):
            self.bucket.now_s += TIMING.renew_s
            for name in self.replicas:
                self.turn(name)
                self.check()

    def counts(self) -> list[int]:
        return sorted(len(replica.held()) for replica in self.replicas.values())


STEPS = ("join", "join", "leave", "kill", "freeze", "thaw", "turn", "blind_turn", "wait", "rounds", "rounds")


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(STEPS), st.sampled_from(NAMES)), max_size=60))
@example([("join", "a"), ("join", "b"), ("rounds", "c"), ("freeze", "a"), *[("rounds", "b")] * 4, ("thaw", "a")])
def test_a_partition_never_has_two_owners_and_all_get_their_share(steps: list[tuple[str, str]]) -> None:
    world = World()
    for step, name in steps:
        getattr(world, step)(name)
        world.check()

    world.join("a")
    world.silent.clear()
    world.rest(60)

    counts = world.counts()
    assert PARTITIONS == sum(counts)
    assert counts[-1] - counts[0] <= 1


def test_one_replica_alone_claims_all_partitions_at_once() -> None:
    world = World()

    world.join("a")

    assert [PARTITIONS] == world.counts()


def test_a_second_one_gets_half_and_what_cannot_be_divided_stays() -> None:
    world = World()
    world.join("a")
    world.join("b")
    world.rest(6)
    assert [8, 8] == world.counts()
    before = {name: set(replica.held()) for name, replica in world.replicas.items()}

    world.join("c")
    world.rest(6)

    assert [5, 5, 6] == world.counts()
    for name, numbers in before.items():
        assert set(world.replicas[name].held()) < numbers, "who has enough takes nothing from others"


def test_a_killed_replica_is_waited_for_but_not_after_its_own_restart() -> None:
    world = World()
    world.join("a")
    world.kill("a")
    world.join("b")
    world.rest(4)
    assert [0] == world.counts()

    world.join("a")

    assert [0, PARTITIONS // 2] == world.counts()


def test_no_replica_counts_as_dead_when_none_could_renew() -> None:
    world = World()
    world.join("a")
    world.join("b")
    world.rest(6)
    world.bucket.now_s += 30
    a, b = world.replicas["a"], world.replicas["b"]
    a.renew()
    a.look()

    plan = a.table.plan(a.held())

    assert ["a", "b"] == a.table.alive()
    assert {number for number, (lease, _) in world.bucket.leases.items() if lease.owner == "a"} == set(plan.claim)
    assert [] == b.held()


def test_more_replicas_than_partitions_leave_some_without_work() -> None:
    world = World()
    for number in range(PARTITIONS + 2):
        world.join(f"r{number:02}")
    world.rest(30)

    assert Counter({1: PARTITIONS, 0: 2}) == Counter(world.counts())
