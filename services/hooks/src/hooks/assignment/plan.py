"""
The plan of one replica: which partitions it should claim, and which it should release. Rules only, no I/O.

There is no leader. Each replica acts for itself, by the members and leases that it sees. A lease is written with a
check of its revision, so of two replicas that want the same one, one gets it.

Clocks of machines are never compared. A lease is free when its revision has not changed for `expire_s` on the
observer's own monotonic clock. Its owner has stopped before: `stop_s` after it began the last confirmed renewal.
"""

from collections import Counter
from collections.abc import Callable, Collection
from datetime import datetime

from msgspec import Struct

from shared.contracts.subjects import PARTITIONS


class LeaseTiming(Struct, frozen=True, kw_only=True):
    """
    The times of a lease. Between `stop_s` and `expire_s` the last calls of an owner that stops come to their end. The
    owner cancels them, so this may be shorter than a call may take.
    """

    renew_s: float = 2.0
    stop_s: float = 6.0
    expire_s: float = 10.0
    drain_s: float = 3.0
    """Time that the targets have for the queued records of a partition that is released."""


class Lease(Struct, frozen=True, kw_only=True):
    """
    The owner of a partition, as it is stored in the bucket. `owner` is empty after a release. `epoch` grows with every
    change of owner, so that an owner can distinguish its lease from a later one. Times are for people.
    """

    owner: str
    epoch: int
    since: datetime
    renewed_at: datetime


class Member(Struct, frozen=True, kw_only=True):
    """A live replica, as it is stored in the bucket. `run` distinguishes one process of a replica from the next."""

    run: str
    since: datetime
    renewed_at: datetime


class AssignmentPlan(Struct, frozen=True):
    """The partitions that a replica should claim and release now."""

    claim: tuple[int, ...] = ()
    release: tuple[int, ...] = ()


class _Observed(Struct):
    revision: int
    changed_at: float


class LeaseTable:
    """The members and leases as one replica, `own_name`, sees them. `clock` is monotonic, in seconds."""

    def __init__(self, own_name: str, timing: LeaseTiming, clock: Callable[[], float]) -> None:
        self.own_name = own_name
        self.leases: dict[int, Lease] = {}
        self.members: dict[str, Member] = {}
        self._timing = timing
        self._clock = clock
        self._observed: dict[str | int, _Observed] = {}
        self._contact_at = clock()

    def observe_lease(self, number: int, lease: Lease | None, revision: int) -> None:
        """Note the stored lease of a partition; None where there is none. An older revision is ignored."""
        if lease is None:
            self.leases.pop(number, None)
            self._observed.pop(number, None)
        elif self._is_newer(number, revision):
            self.leases[number] = lease

    def observe_member(self, name: str, member: Member | None, revision: int) -> None:
        """Note the stored member entry of a replica; None where there is none."""
        if member is None:
            self.members.pop(name, None)
            self._observed.pop(name, None)
        elif self._is_newer(name, revision):
            self.members[name] = member

    def record_contact(self) -> None:
        """
        Note an answer of NATS. After a long outage the other replicas may only seem silent, so their time starts again.
        """
        now = self._clock()
        if now - self._contact_at > self._timing.stop_s:
            for observed in self._observed.values():
                observed.changed_at = now
        self._contact_at = now

    def revision(self, number: int) -> int:
        """Revision of a partition's lease; 0 where there is none."""
        observed = self._observed.get(number)
        return observed.revision if observed is not None else 0

    def owner(self, number: int) -> str | None:
        """The replica that owns a partition, if one does."""
        lease = self.leases.get(number)
        return lease.owner if lease is not None and lease.owner and self._is_fresh(number) else None

    def alive(self) -> list[str]:
        """The replicas that share the partitions, this one among them."""
        owners = {owner for number in self.leases if (owner := self.owner(number)) is not None}
        return sorted({self.own_name} | owners | {name for name in self.members if self._is_fresh(name)})

    def plan(self, held: Collection[int], leaving: Collection[int] = ()) -> AssignmentPlan:
        """
        Plan what to claim and what to release.

        Args:
            held: Partitions that this process owns, with those that it is releasing.
            leaving: The partitions that it is releasing.
        """
        staying = sorted(set(held) - set(leaving))
        surplus = len(staying) - self._share(len(staying))
        if surplus > 0:
            return AssignmentPlan(release=tuple(staying[-surplus:]))
        free = [number for number in range(PARTITIONS) if number not in held and self._is_free(number)]
        # Each replica begins at another partition, so that those that start together do not all try the same ones.
        alive = self.alive()
        begin = alive.index(self.own_name) * PARTITIONS // len(alive)
        free.sort(key=lambda number: (number - begin) % PARTITIONS)
        return AssignmentPlan(claim=tuple(free[:-surplus]))

    def _share(self, mine: int) -> int:
        """Number of partitions for this replica. The remainder goes to those that own most, so that little moves."""
        alive = self.alive()
        owned = Counter(self.owner(number) for number in self.leases)
        owned[self.own_name] = mine
        order = sorted(alive, key=lambda name: (-owned[name], name))
        each, rest = divmod(PARTITIONS, len(alive))
        return each + (order.index(self.own_name) < rest)

    def _is_free(self, number: int) -> bool:
        lease = self.leases.get(number)
        # A lease of ours that is not held is of an earlier process of this replica, which has ended.
        return lease is None or lease.owner in ("", self.own_name) or not self._is_fresh(number)

    def _is_fresh(self, key: str | int) -> bool:
        return self._clock() - self._observed[key].changed_at < self._timing.expire_s

    def _is_newer(self, key: str | int, revision: int) -> bool:
        observed = self._observed.get(key)
        if observed is not None and revision <= observed.revision:
            return False
        self._observed[key] = _Observed(revision, self._clock())
        return True
