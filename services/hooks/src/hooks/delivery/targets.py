"""
Every target of every app, and how a change of the configuration reaches them: opened, renewed, or let go with what
waits there. Constructs lanes and nothing else; how a connector becomes a sink is told by `app.py`.
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
        self, policy: Policy, *, watcher: DeliveryObserver, dead_letters: DeadLetters, metrics: Metrics
    ) -> None:
        self._policy = policy
        self._watcher = watcher
        self._dead_letters = dead_letters
        self._metrics = metrics
        self._connectors: Mapping[str, ActiveConnector] = {}
        self._lanes: dict[Target, TargetQueue] = {}
        self._marks: dict[Target, object] = {}
        self._tasks = asyncio.TaskGroup()
        self.index = HookIndex()
        self.before_change: list[Callable[[HookIndex, Mapping[str, ActiveConnector]], None]] = []
        """Called with a configuration in the step in which it is taken over, before anything else is."""

    async def __aenter__(self) -> Self:
        await self._tasks.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for lanes in self._lanes.values():
            lanes.close()
        await self._tasks.__aexit__(kind, error, trace)

    def find(self, target: Target) -> TargetQueue | None:
        """The lanes of a target, or None where its app has no active connector."""
        lanes = self._lanes.get(target)
        if lanes is not None:
            return lanes
        connector = self._connectors.get(target.connector)
        if connector is None:
            return None
        lanes = self._lanes[target] = TargetQueue(
            target,
            connector.open(target.stream_name),
            self._policy,
            spawn=self._tasks.create_task,
            watcher=self._watcher,
            dead_letters=self._dead_letters,
            metrics=self._metrics,
        )
        return lanes

    def lanes_of(self, target: Target) -> TargetQueue | None:
        """The lanes of a target where something was sent to it."""
        return self._lanes.get(target)

    def lanes_of_app(self, app_key: str) -> Sequence[tuple[Target, TargetQueue]]:
        """Every target of an app to which something was sent."""
        return [(target, lanes) for target, lanes in self._lanes.items() if target.app_key == app_key]

    def target_of(self, app_key: str, hook_id: str) -> Target | None:
        """Where a hook's records go; None where they go nowhere."""
        rule = self.index.rules.get((app_key, hook_id))
        return rule.target if rule is not None and self.serves(rule.target) else None

    @property
    def several(self) -> bool:
        """Whether more than one target is served, so that one can hold up another."""
        return len(self._marks) > 1

    def serves(self, target: Target) -> bool:
        """Whether the target's app has an active connector for it."""
        return target.connector in self._connectors

    def error_of(self, target: Target) -> MillraceError | None:
        """Why nothing goes to a target at present; None while it answers, or nothing was sent yet."""
        lanes = self._lanes.get(target)
        return lanes.error if lanes is not None else None

    def waiting(self, app_key: str | None = None) -> dict[tuple[str, str], WaitingRecords]:
        """
        What waits for a target or is in a call, but for dead letters that are sent again: of every hook of an app, or
        of all, that has something there.
        """
        found: dict[tuple[str, str], WaitingRecords] = {}
        for target, lanes in self._lanes.items():
            if app_key in (None, target.app_key):
                for record in lanes.waiting():
                    if record.at_ns:
                        hook = target.app_key, record.hook_id
                        events, oldest_ns = found.get(hook, WaitingRecords(0, record.at_ns))
                        found[hook] = WaitingRecords(events + 1, min(oldest_ns, record.at_ns))
        return found

    def withdraw(self, records: Collection[Record]) -> None:
        """Let these go wherever they wait, without a word to whoever put them. They may have been sent."""
        for lanes in self._lanes.values():
            lanes.release(lambda record: record in records)

    def apply(self, index: HookIndex, connectors: Mapping[str, ActiveConnector]) -> None:
        """
        Take over a configuration; `connectors` are by `Target.connector`.

        What waits for a stream that its hook has left follows the hook to the new one; what waits for a hook or
        connector that is gone or inactive is let go, and counted as `skipped_inactive`.
        """
        for tell in self.before_change:
            tell(index, connectors)
        self.index, self._connectors = index, connectors
        marks: dict[Target, list[object]] = {}
        for rule in index.rules.values():
            if connector := connectors.get(rule.target.connector):
                marks.setdefault(rule.target, [connector.revision]).append((rule.hook_id, rule.revision))
        stray: list[tuple[Target, Record]] = []
        for target, lanes in list(self._lanes.items()):
            if target not in marks:
                stray += [(target, record) for record in lanes.release(lambda _: True)]
                del self._lanes[target]
            elif marks[target] != self._marks.get(target):
                stray += [(target, record) for record in lanes.release(self._has_left(target))]
                lanes.renew(connectors[target.connector].open(target.stream_name))
        self._marks = dict(marks)
        for target, record in stray:
            self._send_after(target, record)

    def drop(self, partition: int) -> None:
        """Forget what waits of a partition, without a word: who owns it next reads it again."""
        for lanes in self._lanes.values():
            lanes.release(lambda record: record.partition == partition)

    async def drain(self) -> None:
        """Send what waits where the target answers."""
        async with asyncio.TaskGroup() as draining:
            for lanes in self._lanes.values():
                draining.create_task(lanes.drain())

    def _has_left(self, target: Target) -> Callable[[Record], bool]:
        return lambda record: self.target_of(target.app_key, record.hook_id) != target

    def _send_after(self, old: Target, record: Record) -> None:
        target = self.target_of(old.app_key, record.hook_id)
        lanes = self.find(target) if target is not None else None
        if lanes is None:
            record.tally.skipped_inactive += 1
            record.done(record)
        else:
            lanes.put(record)
