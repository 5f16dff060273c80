"""
The partitions that this process has open: how one is opened, given away and dropped while the service runs, and how all
are closed when it stops. Which ones are ours is `leases.py`'s business, what is done with one `partitions.py`'s.
"""

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import AbstractAsyncContextManager
from typing import Any

import structlog

from hooks.delivery.targets import Targets
from hooks.partitions.consumer import PartitionConsumer
from shared.runtime.telemetry import Metrics

log = structlog.get_logger()


class _OpenPartition:
    """A partition that is open, or about to be."""

    def __init__(self) -> None:
        self.opened = asyncio.Event()
        self.partition: PartitionConsumer | None = None
        self.task: asyncio.Task[None] | None = None
        self.lost = False


class ConsumerPool:
    """
    The partitions that this process has open. Satisfies `hooks.assignment.leases.Partitions`.

    Args:
        open_partition: Gives a partition that is read from its floor on; it is closed when the block is left.
        spawn: Runs something for the life of the service, by a name.
    """

    def __init__(
        self,
        open_partition: Callable[[int], AbstractAsyncContextManager[PartitionConsumer]],
        targets: Targets,
        metrics: Metrics,
        spawn: Callable[[str, Coroutine[Any, Any, None]], asyncio.Task[None]],
    ) -> None:
        self._open_partition = open_partition
        self._targets = targets
        self._metrics = metrics
        self._spawn = spawn
        self._open: dict[int, _OpenPartition] = {}
        self._closed = False

    def open(self, number: int) -> None:
        """Begin to read a partition."""
        opening = self._open[number] = _OpenPartition()
        opening.task = self._spawn(f"partition-{number:02d}", self._run(number, opening))
        self._update_gauge()

    def all(self) -> list[PartitionConsumer]:
        """Those that are read now."""
        return [opening.partition for opening in self._open.values() if opening.partition is not None]

    async def wait_opened(self) -> None:
        """Until all that are ours are read."""
        for opening in list(self._open.values()):
            await opening.opened.wait()

    async def release(self, number: int, within_s: float) -> None:
        """Take no more of a partition, send what was taken as far as that is quick, acknowledge it and close."""
        opening = self._open.get(number)
        if opening is None:
            return
        await opening.opened.wait()
        if (partition := opening.partition) is not None:
            partition.close()
            try:
                async with asyncio.timeout(within_s):
                    await partition.wait_empty()
            except TimeoutError:
                log.info("partition_drain_expired", partition=number)
            if not opening.lost:
                self._targets.drop_partition(number)
            await partition.settle()
        self._end(number, opening)

    def drop(self, number: int) -> None:
        """A partition is not ours any more. When this returns, nothing of it is sent or acknowledged."""
        opening = self._open.get(number)
        if opening is None:
            return
        opening.lost = True
        if opening.partition is not None:
            opening.partition.lose()
        self._targets.drop_partition(number)
        self._end(number, opening)

    def close(self) -> None:
        """Take no more events."""
        self._closed = True
        for opening in self._open.values():
            if opening.partition is not None:
                opening.partition.close()

    async def join(self) -> None:
        """Send what was taken, as far as the targets answer, and acknowledge it."""
        partitions = {number: opening.partition for number, opening in self._open.items() if opening.partition}
        try:
            for partition in partitions.values():
                await partition.wait_ended()
            await self._targets.drain()
        finally:
            async with asyncio.TaskGroup() as settling:
                for number, partition in partitions.items():
                    # What is on its way must not arrive when somebody else has it.
                    self._targets.drop_partition(number)
                    settling.create_task(partition.settle())

    async def _run(self, number: int, opening: _OpenPartition) -> None:
        try:
            async with self._open_partition(number) as partition:
                if not opening.lost and not self._closed:
                    opening.partition = partition
                    opening.opened.set()
                    await partition.run()
        finally:
            opening.opened.set()

    def _end(self, number: int, opening: _OpenPartition) -> None:
        if self._open.get(number) is opening:
            del self._open[number]
            self._update_gauge()
        if opening.task is not None:
            opening.task.cancel()

    def _update_gauge(self) -> None:
        self._metrics.gauge("millrace_hooks_partitions_owned", len(self._open))
