"""
Every target of every app, and how a change of the configuration reaches them: opened, renewed, or let go with what
waits there. Constructs lanes and nothing else; `hooks.sinks.catalog` makes a sink of a connector.
"""

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from types import TracebackType
from typing import NamedTuple, Self

from msgspec import Struct

from hooks.delivery.model import DeadLetters, DeliveryObserver, Policy, Record, Sink
from hooks.delivery.target_queue import TargetQueue
from hooks.matching.rule import HookIndex, Target
from shared.errors import MillraceError
from shared.runtime.telemetry import Metrics


class ActiveConnector(Struct, frozen=True, kw_only=True):
    """
    An app's active connector, or a webhook that is its own, at one revision: `open` gives the sink for a stream,
    without I/O.
    """

    revision: int
    open: Callable[[str], Sink]


class WaitingRecords(NamedTuple):
    """How many records of a hook wait, and when the mesh stored the oldest one's event, in ns since the epoch."""

    records: int
    oldest_ns: int


class Targets:
    """
    The lanes in use, by target. An async context manager: calls run inside the block.

    `index` is the configuration in force. It and the lanes change together, in one step of the event loop, so that no
    record is matched by one configuration and routed by another.
    """

    def __init__(
        self, policy: Policy, *, observer: DeliveryObserver, dead_letters: DeadLetters, metrics: Metrics
    ) -> None:
        self._policy = policy
        self._observer = observer
        self._dead_letters = dead_letters
        self._metrics = metrics
        self._connectors: Mapping[Target, ActiveConnector] = {}
        self._queues: dict[Target, TargetQueue] = {}
        self._versions: dict[Target, object] = {}
        self._tasks = asyncio.TaskGroup()
        self.index = HookIndex()
        self.before_change: list[Callable[[HookIndex, Mapping[Target, ActiveConnector]], None]] = []
        """Called with a configuration in the step in which it is taken over, before anything else is."""

    async def __aenter__(self) -> Self:
        await self._tasks.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for queue in self._queues.values():
            queue.close()
        await self._tasks.__aexit__(kind, error, trace)

    def find(self, target: Target) -> TargetQueue | None:
        """The lanes of a target, or None where its app has no active connector."""
        queue = self._queues.get(target)
        if queue is not None:
            return queue
        connector = self._connectors.get(target)
        if connector is None:
            return None
        queue = self._queues[target] = TargetQueue(
            target,
            connector.open(target.stream_name),
            self._policy,
            spawn=self._tasks.create_task,
            observer=self._observer,
            dead_letters=self._dead_letters,
            metrics=self._metrics,
        )
        return queue

    def queue_of(self, target: Target) -> TargetQueue | None:
        """The lanes of a target where something was sent to it."""
        return self._queues.get(target)

    def queues_of_app(self, app_key: str) -> Sequence[tuple[Target, TargetQueue]]:
        """Every target of an app to which something was sent."""
        return [(target, queue) for target, queue in self._queues.items() if target.app_key == app_key]

    def target_of(self, app_key: str, hook_id: str) -> Target | None:
        """Where a hook's records go; None where they go nowhere."""
        rule = self.index.rules.get((app_key, hook_id))
        return rule.target if rule is not None and self.serves(rule.target) else None

    @property
    def several(self) -> bool:
        """Whether more than one target is served, so that one can hold up another."""
        return len(self._versions) > 1

    def serves(self, target: Target) -> bool:
        """Whether the target's app has an active connector for it."""
        return target in self._connectors

    def error_of(self, target: Target) -> MillraceError | None:
        """Why nothing goes to a target at present; None while it answers, or nothing was sent yet."""
        queue = self._queues.get(target)
        return queue.error if queue is not None else None

    def waiting(self, app_key: str | None = None) -> dict[tuple[str, str], WaitingRecords]:
        """
        What waits for a target or is in a call, but for dead letters that are sent again: of every hook of an app, or
        of all, that has something there.
        """
        found: dict[tuple[str, str], WaitingRecords] = {}
        for target, queue in self._queues.items():
            if app_key in (None, target.app_key):
                for record in queue.waiting():
                    if record.at_ns:
                        hook = target.app_key, record.hook_id
                        events, oldest_ns = found.get(hook, WaitingRecords(0, record.at_ns))
                        found[hook] = WaitingRecords(events + 1, min(oldest_ns, record.at_ns))
        return found

    def withdraw(self, records: Collection[Record]) -> None:
        """Let these go wherever they wait, without a word to whoever put them. They may have been sent."""
        for queue in self._queues.values():
            queue.release(lambda record: record in records)

    def apply(self, index: HookIndex, connectors: Mapping[Target, ActiveConnector]) -> None:
        """
        Take over a configuration; `connectors` hold what opens each target.

        What waits for a stream that its hook has left follows the hook to the new one; what waits for a hook or
        connector that is gone or inactive is let go, and counted as `skipped_inactive`.
        """
        for notify in self.before_change:
            notify(index, connectors)
        self.index, self._connectors = index, connectors
        versions: dict[Target, list[object]] = {}
        for rule in index.rules.values():
            if connector := connectors.get(rule.target):
                versions.setdefault(rule.target, [connector.revision]).append((rule.hook_id, rule.revision))
        stray: list[tuple[Target, Record]] = []
        for target, queue in list(self._queues.items()):
            if target not in versions:
                stray += [(target, record) for record in queue.release(lambda _: True)]
                del self._queues[target]
            elif versions[target] != self._versions.get(target):
                stray += [(target, record) for record in queue.release(self._is_elsewhere(target))]
                queue.renew(connectors[target].open(target.stream_name))
        self._versions = dict(versions)
        for target, record in stray:
            self._send_after(target, record)

    def drop_partition(self, partition: int) -> None:
        """Forget what waits of a partition, without a word: who owns it next reads it again."""
        for queue in self._queues.values():
            queue.release(lambda record: record.partition == partition)

    async def drain(self) -> None:
        """Send what waits where the target answers."""
        async with asyncio.TaskGroup() as draining:
            for queue in self._queues.values():
                draining.create_task(queue.drain())

    def _is_elsewhere(self, target: Target) -> Callable[[Record], bool]:
        return lambda record: self.target_of(target.app_key, record.hook_id) != target

    def _send_after(self, old: Target, record: Record) -> None:
        target = self.target_of(old.app_key, record.hook_id)
        queue = self.find(target) if target is not None else None
        if queue is None:
            record.counters.skipped_inactive += 1
            record.done(record)
        else:
            queue.put(record)
