"""Status of the assignment for operators: the owner and the progress of each partition, and the live replicas."""

import asyncio
from datetime import datetime

from msgspec import Struct

from hooks.assignment.plan import LeaseTable
from shared.contracts.streams import EVENTS
from shared.contracts.subjects import PARTITIONS, hooks_consumer
from shared.errors import NotFoundError
from shared.messaging.bus import Bus
from shared.messaging.consumer_state import ConsumerState, consumer_state


class PartitionStatus(Struct, frozen=True, kw_only=True):
    """
    One partition. `owner` is null while no replica has it; `epoch` grows with every change of owner. Everything up to
    `floor`, a sequence of `EVENTS`, is delivered; `lag` messages are above it.
    """

    partition: int
    owner: str | None
    epoch: int
    since: datetime | None
    lag: int
    floor: int


class ReplicaStatus(Struct, frozen=True, kw_only=True):
    """A replica that is alive. `since` is null where it is only known by its leases."""

    name: str
    since: datetime | None
    partitions: int


class AssignmentOverview(Struct, frozen=True, kw_only=True):
    """All replicas and partitions of the mesh, as the replica `told_by` sees them."""

    told_by: str
    replicas: tuple[ReplicaStatus, ...]
    partitions: tuple[PartitionStatus, ...]


class AssignmentStatus:
    """The status of the whole mesh, from the bucket as this replica sees it and from JetStream."""

    def __init__(self, bus: Bus, table: LeaseTable) -> None:
        self._bus = bus
        self._table = table

    async def read(self) -> AssignmentOverview:
        """Read the status. Raises `UnavailableError` when JetStream does not answer."""
        states = await asyncio.gather(*(self._state(number) for number in range(PARTITIONS)))
        partitions = tuple(self._partition(number, state) for number, state in enumerate(states))
        owners = [partition.owner for partition in partitions]
        members = self._table.members
        replicas = tuple(
            ReplicaStatus(
                name=name, since=members[name].since if name in members else None, partitions=owners.count(name)
            )
            for name in self._table.alive()
        )
        return AssignmentOverview(told_by=self._table.own_name, replicas=replicas, partitions=partitions)

    def _partition(self, number: int, state: ConsumerState) -> PartitionStatus:
        owner = self._table.owner(number)
        lease = self._table.leases.get(number)
        return PartitionStatus(
            partition=number,
            owner=owner,
            epoch=lease.epoch if lease is not None else 0,
            since=lease.since if lease is not None and owner is not None else None,
            lag=state.pending,
            floor=state.floor,
        )

    async def _state(self, number: int) -> ConsumerState:
        try:
            return await consumer_state(self._bus, EVENTS.name, hooks_consumer(number))
        except NotFoundError:
            return ConsumerState(floor=0, pending=0, delivered=0, acked=0)
