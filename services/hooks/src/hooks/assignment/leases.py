"""
This replica's leases on partitions, in the bucket `LEASES`. `hooks.assignment.plan` has the rules.

    claimed:   the lease is written on top of the revision that was seen -> the partition is opened
    renewed:   every `renew_s`, each lease by itself
    released:  the partition is drained and closed -> the lease is written without an owner, so others claim it at once
    lost:      no renewal confirmed for `stop_s`, or another owner's revision found -> the partition is dropped there
               and then, without an ack; a process that stood still finds it by `drop_ended`, before it sends

One file, because claims, renewals, losses and the membership entry share one table and one renewal time.
"""

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Iterable, Sequence
from datetime import datetime
from typing import Any, Protocol, TypeVar
from uuid import uuid4

import structlog

from hooks.assignment.plan import Lease, LeaseTable, LeaseTiming, Member
from hooks.assignment.replica_id import new_name
from shared.contracts import keys
from shared.contracts.messages import encode
from shared.contracts.streams import LEASES
from shared.errors import ConflictError, MillraceError, UnavailableError
from shared.messaging.bus import Bus
from shared.messaging.kv import KeyValue, KeyValueStore, is_deletion
from shared.messaging.message import Message
from shared.messaging.watch import watch_entries
from shared.runtime.retry import Backoff

log = structlog.get_logger()
T = TypeVar("T")

CLAIM_TRIES = 5
"""Writes of the member entry at start, while an earlier process of the same name renews it."""


class Partitions(Protocol):
    """The part of `hooks.partitions.pool.ConsumerPool` that is needed here."""

    def open(self, number: int) -> None: ...

    async def release(self, number: int, within_s: float) -> None: ...

    def drop(self, number: int) -> None: ...

    def close(self) -> None: ...

    async def join(self) -> None: ...


class HeldLease:
    """A lease that this replica holds."""

    def __init__(self, number: int, lease: Lease, revision: int) -> None:
        self.number = number
        self.lease = lease
        self.revision = revision
        self.leaving = False
        self.writing = asyncio.Lock()
        self.timer: asyncio.TimerHandle | None = None


class LeaseKeeper:
    """
    The intake of the service: it opens a partition when its lease is claimed, and closes it when that ends.

    `start` comes first, then `run` is a task for the life of the service. `table` holds the members and leases of all
    replicas, as this one sees them.
    """

    def __init__(
        self, name: str, bus: Bus, partitions: Partitions, *, timing: LeaseTiming, now: Callable[[], datetime]
    ) -> None:
        self._bus = bus
        self._store = KeyValueStore(bus, LEASES)
        self._partitions = partitions
        self._timing = timing
        self._now = now
        self._clock = asyncio.get_running_loop().time
        self._loop = asyncio.get_running_loop()
        self._run = uuid4().hex
        self._since = now()
        self._held: dict[int, HeldLease] = {}
        self._member_revision = 0
        self._renew_at = 0.0
        self._closing = False
        self._left = False
        self._wake = asyncio.Event()
        self._tasks = asyncio.TaskGroup()
        self._contact_at = self._clock()
        self.table = LeaseTable(name, timing, self._clock)

    @property
    def name(self) -> str:
        """Name of this replica."""
        return self.table.own_name

    async def start(self) -> None:
        """Read all leases, and claim the free ones of this replica's share. Raises `UnavailableError`."""
        for stored in await self._store.scan(keys.LEASES_OF_HOOKS):
            self._apply(stored.key, stored)
        await self._claim_name()
        await self._round()

    async def run(self) -> None:
        """Renew, claim and release leases, until cancelled."""
        async with self._tasks:
            self._tasks.create_task(self._watch())
            while True:
                self._wake.clear()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout_at(self._renew_at):
                        await self._wake.wait()
                await self._round()

    async def ping(self) -> None:
        """
        Check the renewals; readiness needs no partition. Raises `UnavailableError` when none succeeded for `expire_s`.
        """
        silent_s = self._clock() - self._contact_at
        if silent_s > self._timing.expire_s:
            raise UnavailableError(f"no lease was renewed for {silent_s:.0f} s")

    def close(self) -> None:
        """Claim no more partitions, and pull no more events of those that are held."""
        self._closing = True
        self._partitions.close()

    async def join(self) -> None:
        """Finish the records in flight and release every lease, so that other replicas continue at once."""
        try:
            await self._partitions.join()
        finally:
            self._left = True
            async with asyncio.TaskGroup() as leaving:
                for holding in list(self._held.values()):
                    leaving.create_task(self._release_lease(holding))
                leaving.create_task(self._delete_membership())

    async def _round(self) -> None:
        if self._clock() >= self._renew_at:
            self._renew_at = self._clock() + self._timing.renew_s
            await self._renew_all()
        if self._closing:
            return
        leaving = [number for number, holding in self._held.items() if holding.leaving]
        plan = self.table.plan(self._held, leaving)
        for number in plan.release:
            self._held[number].leaving = True
            self._tasks.create_task(self._release_partition(self._held[number]))
        # As the plan saw them: before a task begins, the watch may bring another replica's lease.
        claims = [(number, self.table.leases.get(number), self.table.revision(number)) for number in plan.claim]
        await _run_all(self._claim(*lease) for lease in claims)

    async def _renew_all(self) -> None:
        holdings = list(self._held.values())
        await _run_all((self._renew_member(), *(self._renew(holding) for holding in holdings)))

    async def _claim_name(self) -> None:
        """Write the member entry over one of the same name, which an earlier process may be renewing meanwhile."""
        for _ in range(CLAIM_TRIES):
            stored = await self._store.get(keys.member_key(self.name))
            self._member_revision = stored.revision if stored is not None else 0
            member = Member(run=self._run, since=self._since, renewed_at=self._now())
            with contextlib.suppress(ConflictError):
                self._member_revision = await self._write(keys.member_key(self.name), member, self._member_revision)
                return

    async def _renew_member(self) -> None:
        if self._left:
            return
        key = keys.member_key(self.name)
        member = Member(run=self._run, since=self._since, renewed_at=self._now())
        try:
            self._member_revision = await self._write(key, member, self._member_revision)
        except ConflictError:
            await self._check_membership()
        except MillraceError as error:
            log.warning("membership_renewal_failed", replica=self.name, message=error.message)
        else:
            self._record_contact()

    async def _check_membership(self) -> None:
        """Find why our member entry changed: an answer was lost, the entry expired, or another replica has our name."""
        try:
            stored = await self._store.get(keys.member_key(self.name))
        except MillraceError as error:
            log.warning("membership_read_failed", replica=self.name, message=error.message)
            return
        self._member_revision = stored.revision if stored is not None else 0
        self._renew_at = self._clock()
        member = self._decoded(stored, Member)
        if member is None or member.run == self._run:
            return
        # The directory was copied. The later process keeps the name and the leases; this one becomes a new replica.
        name = new_name()
        log.error("replica_name_replaced", replica=self.name, new_name=name)
        for holding in list(self._held.values()):
            self._drop_lost(holding, "another replica has our name")
        self.table.own_name = name
        self._member_revision = 0

    async def _claim(self, number: int, before: Lease | None, revision_before: int) -> None:
        now = self._now()
        lease = Lease(owner=self.name, epoch=(before.epoch if before else 0) + 1, since=now, renewed_at=now)
        at = self._clock()
        try:
            revision = await self._write(keys.lease_key(number), lease, revision_before)
        except ConflictError:
            await self._read_lease(number)
            return
        except MillraceError as error:
            log.warning("lease_claim_failed", partition=number, message=error.message)
            return
        self.table.observe_lease(number, lease, revision)
        holding = self._held[number] = HeldLease(number, lease, revision)
        self._confirmed(holding, at)
        log.info("partition_claimed", partition=number, epoch=lease.epoch, owner_before=before.owner if before else "")
        self._partitions.open(number)

    async def _renew(self, holding: HeldLease) -> None:
        async with holding.writing:
            if self._held.get(holding.number) is not holding:
                return
            at = self._clock()
            lease = Lease(owner=self.name, epoch=holding.lease.epoch, since=holding.lease.since, renewed_at=self._now())
            try:
                holding.revision = await self._write(keys.lease_key(holding.number), lease, holding.revision)
            except ConflictError:
                await self._reconcile(holding)
            except MillraceError as error:
                log.warning("lease_renewal_failed", partition=holding.number, message=error.message)
            else:
                self.table.observe_lease(holding.number, lease, holding.revision)
                self._confirmed(holding, at)

    async def _reconcile(self, holding: HeldLease) -> None:
        """Read a lease whose revision is unexpected: of a renewal whose answer was lost, or of another owner."""
        stored = await self._read_lease(holding.number)
        lease = self.table.leases.get(holding.number)
        if stored is None or lease is None:
            return
        if (lease.owner, lease.epoch) == (self.name, holding.lease.epoch):
            holding.revision = stored.revision
            self._renew_at = self._clock()
        else:
            self._drop_lost(holding, "another replica has claimed it")

    async def _release_partition(self, holding: HeldLease) -> None:
        log.info("partition_release_started", partition=holding.number, epoch=holding.lease.epoch)
        await self._partitions.release(holding.number, self._timing.drain_s)
        await self._release_lease(holding)

    async def _release_lease(self, holding: HeldLease) -> None:
        async with holding.writing:
            if self._held.get(holding.number) is not holding:
                return
            self._forget(holding)
            lease = Lease(owner="", epoch=holding.lease.epoch, since=self._now(), renewed_at=self._now())
            try:
                revision = await self._write(keys.lease_key(holding.number), lease, holding.revision)
            except MillraceError as error:
                # Others claim it when it has not changed for `expire_s`.
                log.warning("lease_release_failed", partition=holding.number, message=error.message)
            else:
                self.table.observe_lease(holding.number, lease, revision)

    async def _delete_membership(self) -> None:
        try:
            await self._store.delete(keys.member_key(self.name), expect_revision=self._member_revision)
        except MillraceError as error:
            log.warning("membership_deletion_failed", replica=self.name, message=error.message)

    def _confirmed(self, holding: HeldLease, at: float) -> None:
        """Note a lease written by a call that began at `at`. A timer ends the lease; a loop could be late."""
        self._record_contact()
        if self._held.get(holding.number) is not holding:
            return
        if holding.timer is not None:
            holding.timer.cancel()
        holding.timer = self._loop.call_at(
            at + self._timing.stop_s, self._drop_lost, holding, "it was not renewed in time"
        )

    def drop_ended(self) -> None:
        """
        Drop the partitions whose lease has ended. In a process that stood still, the timers of the leases come after
        what was ready to run.
        """
        now = self._clock()
        for holding in list(self._held.values()):
            if holding.timer is not None and holding.timer.when() <= now:
                self._drop_lost(holding, "it was not renewed in time")

    def _drop_lost(self, holding: HeldLease, reason: str) -> None:
        if self._held.get(holding.number) is holding:
            self._forget(holding)
            log.warning("partition_lost", partition=holding.number, epoch=holding.lease.epoch, reason=reason)
            self._partitions.drop(holding.number)

    def _forget(self, holding: HeldLease) -> None:
        if holding.timer is not None:
            holding.timer.cancel()
        del self._held[holding.number]

    def _record_contact(self) -> None:
        self._contact_at = self._clock()
        self.table.record_contact()

    async def _write(self, key: str, value: Lease | Member, revision: int) -> int:
        """
        Write a lease or member on top of a revision, and return the new one.

        Raises:
            ConflictError: The key has changed.
            UnavailableError: There was no answer within `renew_s`.
        """
        try:
            async with asyncio.timeout(self._timing.renew_s):
                return await self._store.put(key, encode(value), expect_revision=revision)
        except TimeoutError:
            raise UnavailableError("NATS did not confirm it in time") from None

    async def _read_lease(self, number: int) -> KeyValue | None:
        """Read one lease. Returns None when there is none, or NATS does not answer."""
        key = keys.lease_key(number)
        try:
            stored = await self._store.get(key)
        except MillraceError as error:
            log.warning("lease_read_failed", partition=number, message=error.message)
            return None
        self._apply(key, stored)
        return stored

    async def _watch(self) -> None:
        """Watch the leases and members of all replicas."""
        await watch_entries(
            self._bus, LEASES, keys.LEASES_OF_HOOKS, self._apply_messages, retry=Backoff(first_s=0.1, max_s=5.0)
        )

    async def _apply_messages(self, messages: Sequence[Message]) -> None:
        for message in messages:
            self._apply_message(message)

    def _apply_message(self, message: Message) -> None:
        stored = self._store.stored(message)
        self._apply(stored.key, None if is_deletion(message.headers) else stored)
        number = keys.partition_of_lease_key(stored.key)
        holder = self.table.leases.get(number) if number is not None else None
        if holder is None or not holder.owner:
            # A lease was released, or a replica came or went. Renewals of other replicas need no new plan.
            self._wake.set()

    def _apply(self, key: str, stored: KeyValue | None) -> None:
        revision = stored.revision if stored is not None else 0
        if (number := keys.partition_of_lease_key(key)) is not None:
            lease = self._decoded(stored, Lease)
            if stored is not None and lease is None:
                # Its owner writes over it at once. Until then it is held by whoever held it, and no one else claims it.
                held = Lease(owner="unknown", epoch=0, since=self._now(), renewed_at=self._now())
                lease = self.table.leases.get(number, held)
            self.table.observe_lease(number, lease, revision)
        elif (name := keys.replica_of_member_key(key)) is not None:
            self.table.observe_member(name, self._decoded(stored, Member), revision)

    def _decoded(self, stored: KeyValue | None, kind: type[T]) -> T | None:
        """The value; None for what is none, as an answer of NATS can be led to a key (docs/adr/0027)."""
        return self._store.decoded(stored.key, stored.data, kind) if stored is not None else None


async def _run_all(work: Iterable[Coroutine[Any, Any, None]]) -> None:
    async with asyncio.TaskGroup() as tasks:
        for one in work:
            tasks.create_task(one)
