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
        destinations: Targets,
        metrics: Metrics,
        spawn: Callable[[str, Coroutine[Any, Any, None]], asyncio.Task[None]],
    ) -> None:
        self._open_partition = open_partition
        self._destinations = destinations
        self._metrics = metrics
        self._spawn = spawn
        self._serving: dict[int, _OpenPartition] = {}
        self._closed = False

    def open(self, number: int) -> None:
        """Begin to read a partition."""
        serving = self._serving[number] = _OpenPartition()
        serving.task = self._spawn(f"partition-{number:02d}", self._serve(number, serving))
        self._show()

    def all(self) -> list[PartitionConsumer]:
        """Those that are read now."""
        return [serving.partition for serving in self._serving.values() if serving.partition is not None]

    async def wait_opened(self) -> None:
        """Until all that are ours are read."""
        for serving in list(self._serving.values()):
            await serving.opened.wait()

    async def give(self, number: int, within_s: float) -> None:
        """Take no more of a partition, send what was taken as far as that is quick, acknowledge it and close."""
        serving = self._serving.get(number)
        if serving is None:
            return
        await serving.opened.wait()
        if (partition := serving.partition) is not None:
            partition.close()
            try:
                async with asyncio.timeout(within_s):
                    await partition.wait_empty()
            except TimeoutError:
                log.info("partition_not_drained", partition=number)
            if not serving.lost:
                self._destinations.drop(number)
            await partition.settle()
        self._end(number, serving)

    def drop(self, number: int) -> None:
        """A partition is not ours any more. When this returns, nothing of it is sent or acknowledged."""
        serving = self._serving.get(number)
        if serving is None:
            return
        serving.lost = True
        if serving.partition is not None:
            serving.partition.lose()
        self._destinations.drop(number)
        self._end(number, serving)

    def close(self) -> None:
        """Take no more events."""
        self._closed = True
        for serving in self._serving.values():
            if serving.partition is not None:
                serving.partition.close()

    async def join(self) -> None:
        """Send what was taken, as far as the targets answer, and acknowledge it."""
        partitions = {number: serving.partition for number, serving in self._serving.items() if serving.partition}
        try:
            for partition in partitions.values():
                await partition.wait_ended()
            await self._destinations.drain()
        finally:
            async with asyncio.TaskGroup() as settling:
                for number, partition in partitions.items():
                    # What is on its way must not arrive when somebody else has it.
                    self._destinations.drop(number)
                    settling.create_task(partition.settle())

    async def _serve(self, number: int, serving: _OpenPartition) -> None:
        try:
            async with self._open_partition(number) as partition:
                if not serving.lost and not self._closed:
                    serving.partition = partition
                    serving.opened.set()
                    await partition.run()
        finally:
            serving.opened.set()

    def _end(self, number: int, serving: _OpenPartition) -> None:
        if self._serving.get(number) is serving:
            del self._serving[number]
            self._show()
        if serving.task is not None:
            serving.task.cancel()

    def _show(self) -> None:
        self._metrics.gauge("millrace_hooks_partitions_owned", len(self._serving))
