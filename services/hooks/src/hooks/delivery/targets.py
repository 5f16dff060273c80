"""
All targets of all apps, and what a change of the configuration does to them: a target is opened, renewed or released.
Constructs target queues and nothing else; `hooks.sinks.catalog` makes sinks of connectors.
"""

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from types import TracebackType
from typing import NamedTuple, Self

from msgspec import Struct

from hooks.delivery.model import CallPolicy, DeadLetters, DeliveryObserver, Record, Sink
from hooks.delivery.target_queue import TargetQueue
from hooks.matching.rule import HookIndex, Target
from shared.errors import MillraceError
from shared.runtime.telemetry import Metrics


class ActiveConnector(Struct, frozen=True, kw_only=True):
    """
    An app's active connector at one revision; a webhook hook is a connector of its own. `open` returns the sink for a
    stream, without I/O.
    """

    revision: int
    open: Callable[[str], Sink]


class WaitingRecords(NamedTuple):
    """Waiting records of a hook, and the time at which the oldest one's event was stored, in ns since the epoch."""

    records: int
    oldest_ns: int


class Targets:
    """
    The queues in use, by target. An async context manager: calls run inside the block.

    `index` is the configuration in force. It and the queues change together, in one step of the event loop. So no
    record is matched by one configuration and routed by another.
    """

    def __init__(
        self, policy: CallPolicy, *, observer: DeliveryObserver, dead_letters: DeadLetters, metrics: Metrics
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
        """Called with a new configuration first, in the step of the event loop that applies it."""
        self.before_call: Callable[[], None] = lambda: None
        """Called before each call of a sink. It drops the partitions whose lease has ended."""

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
        """The queue of a target, made where there is none; None where its app has no active connector."""
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
            before_call=lambda: self.before_call(),
            observer=self._observer,
            dead_letters=self._dead_letters,
            metrics=self._metrics,
        )
        return queue

    def queue_of(self, target: Target) -> TargetQueue | None:
        """The queue of a target, if one was made."""
        return self._queues.get(target)

    def queues_of_app(self, app_key: str) -> Sequence[tuple[Target, TargetQueue]]:
        """Every target of an app that has a queue."""
        return [(target, queue) for target, queue in self._queues.items() if target.app_key == app_key]

    def target_of(self, app_key: str, hook_id: str) -> Target | None:
        """The target of a hook; None where it has no active connector."""
        rule = self.index.find(app_key, hook_id)
        return rule.target if rule is not None and self.serves(rule.target) else None

    @property
    def several(self) -> bool:
        """Return whether more than one target is served, so that one can hold up another."""
        return len(self._versions) > 1

    def serves(self, target: Target) -> bool:
        """Return whether the target's app has an active connector for it."""
        return target in self._connectors

    def error_of(self, target: Target) -> MillraceError | None:
        """The failure that stops a target; None while it answers, or nothing was sent yet."""
        queue = self._queues.get(target)
        return queue.error if queue is not None else None

    def waits_because(self, target: Target) -> str | None:
        """The reason for which records of a target wait; None where there is none."""
        queue = self._queues.get(target)
        return queue.waits_because if queue is not None else None

    def waiting(self, app_key: str | None = None) -> dict[tuple[str, str], WaitingRecords]:
        """
        Records that wait or are in flight, by hook: of one app, or of all. Replayed dead letters do not count, and
        hooks without records are left out.
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
        """Remove these from every queue without calling their `done`. They may have been sent."""
        for queue in self._queues.values():
            queue.release(lambda record: record in records)

    def apply(self, index: HookIndex, connectors: Mapping[Target, ActiveConnector]) -> None:
        """
        Apply a configuration; `connectors` opens each target. An app whose hooks are the same object as before has not
        changed, nor have its connectors, and is passed over.

        Records that wait for a stream which their hook has left follow the hook to its new stream. Records of a deleted
        or inactive hook or connector are finished, and counted as `skipped_inactive`.
        """
        changed = index.changed_since(self.index)
        for notify in self.before_change:
            notify(index, connectors)
        self.index, self._connectors = index, connectors
        versions: dict[Target, list[object]] = {}
        for app_key in changed:
            for rule in index.of_app(app_key).rules.values():
                if connector := connectors.get(rule.target):
                    versions.setdefault(rule.target, [connector.revision]).append((rule.hook_id, rule.revision))
        stray: list[tuple[Target, Record]] = []
        for target, queue in list(self._queues.items()):
            if target.app_key not in changed:
                continue
            if target not in versions:
                stray += [(target, record) for record in queue.release(lambda _: True)]
                del self._queues[target]
            elif versions[target] != self._versions.get(target):
                stray += [(target, record) for record in queue.release(self._is_elsewhere(target))]
                queue.renew(connectors[target].open(target.stream_name))
        kept = {target: version for target, version in self._versions.items() if target.app_key not in changed}
        self._versions = {**kept, **versions}
        for target, record in stray:
            self._send_after(target, record)

    def drop_partition(self, partition: int) -> None:
        """
        Remove the records of a partition without calling `done`. Its next owner reads and matches them again, so they
        are taken back from `matched`.
        """
        for queue in self._queues.values():
            for record in queue.release(lambda record: record.partition == partition):
                record.counters.matched -= 1

    async def drain(self) -> None:
        """Send the waiting records of every target that answers."""
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
