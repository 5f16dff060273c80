"""
The partitions that this process has open: each is opened, released and dropped while the service runs, and all are
closed when it stops. `hooks.assignment.leases` decides which; `hooks.partitions.consumer` reads one.
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
    """A partition that is open, or is being opened."""

    def __init__(self) -> None:
        self.opened = asyncio.Event()
        self.partition: PartitionConsumer | None = None
        self.task: asyncio.Task[None] | None = None
        self.lost = False


class ConsumerPool:
    """
    The partitions that this process has open. Satisfies `hooks.assignment.leases.Partitions`.

    Args:
        open_partition: Yields a partition that is read from its ack floor on; it is closed when the block is left.
        spawn: Starts a named task for the life of the service.
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
        """Start to read a partition."""
        opening = self._open[number] = _OpenPartition()
        opening.task = self._spawn(f"partition-{number:02d}", self._run(number, opening))
        self._update_gauge()

    def all(self) -> list[PartitionConsumer]:
        """The partitions that are read now."""
        return [opening.partition for opening in self._open.values() if opening.partition is not None]

    async def wait_opened(self) -> None:
        """Wait until every open partition is read."""
        for opening in list(self._open.values()):
            await opening.opened.wait()

    async def release(self, number: int, within_s: float) -> None:
        """Close a partition: pull no more of it, send what was pulled for up to `within_s`, and acknowledge it."""
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
        """Stop a partition whose lease is lost. Once this returns, nothing of it is sent or acknowledged."""
        opening = self._open.get(number)
        if opening is None:
            return
        opening.lost = True
        if opening.partition is not None:
            opening.partition.abort()
        self._targets.drop_partition(number)
        self._end(number, opening)

    def close(self) -> None:
        """Pull no more events."""
        self._closed = True
        for opening in self._open.values():
            if opening.partition is not None:
                opening.partition.close()

    async def join(self) -> None:
        """Send what was pulled, as far as the targets answer, and acknowledge it."""
        partitions = {number: opening.partition for number, opening in self._open.items() if opening.partition}
        try:
            for partition in partitions.values():
                await partition.wait_ended()
            await self._targets.drain()
        finally:
            async with asyncio.TaskGroup() as settling:
                for number, partition in partitions.items():
                    # Records in flight must not arrive when another replica reads the partition.
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
