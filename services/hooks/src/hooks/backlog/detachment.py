"""
Detachment of blocked targets in one partition, and how their hooks are attached again.

    attached -> (blocked) -> requested -> (checkpoint is in the bucket) -> detached: the ack floor moves on without it
             -> (the backlog's reader has caught up with the partition's) -> attached -> (finished) -> entry deleted

One file, because every step changes the same three tables (requested, backlogs, readers) in one step of the event loop.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping

import structlog

from hooks.backlog.backlog import Backlog
from hooks.backlog.checkpoint_writer import CheckpointWriter
from hooks.backlog.checkpoints import StoredCheckpoint
from hooks.backlog.reader import BacklogReader, BacklogReaders
from hooks.backlog.routing import ReaderRouting
from hooks.backlog.stall_detector import StallDetector
from hooks.delivery.ack_window import AckWindow, PendingMessage
from hooks.delivery.counters import DeliveryCounters
from hooks.delivery.model import Record
from hooks.delivery.target_queue import Spawn
from hooks.delivery.targets import ActiveConnector, Targets
from hooks.matching.routed_event import RoutedEvent
from hooks.matching.rule import HookIndex, Rule, Target
from shared.contracts.keys import backlog_key
from shared.errors import MillraceError
from shared.runtime.retry import Backoff
from shared.runtime.telemetry import Metrics

log = structlog.get_logger()

RETRY = Backoff(first_s=0.1, max_s=5.0)


class TargetDetachment:
    """
    The backlogs of one partition. `load` comes before the partition is read; `watch` and `write_checkpoints` are tasks
    while it is read.

    Args:
        window: The ack window of the partition, which blocked targets must not fill.
        routing: The routing of both readers, which detachment changes.
        dispatch: Queues an event's records for a backlog's hooks.
    """

    def __init__(
        self,
        partition: int,
        window: AckWindow,
        routing: ReaderRouting,
        shared: BacklogReaders,
        *,
        targets: Targets,
        delivery_counters: DeliveryCounters,
        dispatch: Callable[[PendingMessage, RoutedEvent, str, Backlog | None], Awaitable[None]],
        metrics: Metrics,
    ) -> None:
        self._partition = partition
        self._window = window
        self._shared = shared
        self._targets = targets
        self._delivery_counters = delivery_counters
        self._dispatch = dispatch
        self._metrics = metrics
        self._writer = CheckpointWriter(shared.checkpoints, partition)
        loop = asyncio.get_running_loop()
        self._spawn: Spawn = loop.create_task
        self._requested: dict[Target, Backlog] = {}
        self._backlogs: list[Backlog] = []
        self._readers: dict[Backlog, tuple[BacklogReader, asyncio.Task[None]]] = {}
        self._by_hook = routing.by_hook
        self._foreign_keys: set[str] = set()
        self._stalls = StallDetector(window, targets, shared.stall_policy, loop.time)
        self._closed = False
        self._writing = asyncio.Lock()
        self._wake = asyncio.Event()

    async def load(self, spawn: Spawn) -> None:
        """Resume the backlogs of an earlier owner. Retries until the bucket can be read, or `close` is called."""
        self._spawn = spawn
        found: list[StoredCheckpoint] = []
        last = 0
        for delay_s in RETRY.delays():
            try:
                found = await self._writer.take_over()
                last = (await self._shared.events.state()).last_sequence if found else 0
                break
            except MillraceError as error:
                log.warning("checkpoint_read_failed", partition=self._partition, code=error.code, message=error.message)
            await asyncio.sleep(delay_s)
            if self._closed:
                return
        self._targets.before_change.append(self._reconfigure)
        for entry in found:
            self._restore(entry, last)
        self._wake.set()

    def _restore(self, entry: StoredCheckpoint, last: int) -> None:
        checkpoint = entry.checkpoint
        app_key = checkpoint.app_key
        groups: dict[Target | None, dict[str, int]] = {}
        for hook_id, events in checkpoint.hooks.items():
            # Of two entries for one hook the earlier one covers both.
            if (app_key, hook_id) not in self._by_hook:
                groups.setdefault(self._targets.target_of(app_key, hook_id), {})[hook_id] = events
        for hook_id, events in groups.pop(None, {}).items():
            self._skip(app_key, hook_id, events)
        key, revision = entry.key, entry.revision
        for target, behind in groups.items() or ((Target(app_key, checkpoint.stream_name), {}),):
            assert target is not None
            backlog = Backlog(
                key=key, target=target, behind=behind, start=checkpoint.start, missed=last, revision=revision
            )
            self._begin(backlog)
            # One entry becomes several where its hooks have moved apart.
            key, revision = self._free_key(target), 0

    async def watch(self) -> None:
        """Check for targets that hold up others, until cancelled."""
        while True:
            await asyncio.sleep(self._shared.stall_policy.check_s)
            for target in self._stalls.blocked():
                self._request(target)
            for backlog in self._backlogs:
                self._shared.check_age(backlog)

    def _request(self, target: Target) -> None:
        if target in self._requested or self._closed:
            return
        hooks = {
            rule.hook_id: 0
            for rule in self._targets.index.of_app(target.app_key).rules.values()
            if rule.target == target and not self._is_detached(rule)
        }
        oldest = self._window.oldest
        if hooks and oldest is not None:
            start = oldest.message.sequence
            key = self._free_key(target)
            self._requested[target] = Backlog(key=key, target=target, behind=hooks, start=start, missed=start)
            self._wake.set()

    def _is_detached(self, rule: Rule) -> bool:
        backlog = self._by_hook.get((rule.app_key, rule.hook_id))
        if backlog is None:
            return False
        newest = self._window.newest
        return backlog.until is None or newest is None or newest.message.sequence <= backlog.until

    def _free_key(self, target: Target) -> str:
        used = self._foreign_keys | {backlog.key for backlog in (*self._backlogs, *self._requested.values())}
        number = 0
        while (key := backlog_key(target.app_key, self._partition, target.stream_name, number)) in used:
            number += 1
        return key

    def _detach(self, backlog: Backlog) -> None:
        """Release everything that the target holds here, because its checkpoint is in the bucket."""
        target = backlog.target
        del self._requested[target]
        for hook_id in list(backlog.behind):
            if self._targets.target_of(target.app_key, hook_id) != target:
                del backlog.behind[hook_id]
        self._begin(backlog)
        released, in_calls = self._withdraw(target, self._window, backlog.behind)
        backlog.add_in_flight(in_calls)
        backlog.detach(released, self._window.dispatched)
        log.warning("target_detached", app_key=target.app_key, stream_name=target.stream_name, key=backlog.key)

    def _withdraw(
        self, target: Target, window: AckWindow, hooks: Mapping[str, int]
    ) -> tuple[list[Record], list[Record]]:
        """Withdraw the hooks' records of a window. Returns the waiting ones, and those that stay in flight."""
        queue = self._targets.queue_of(target)
        if queue is None:
            return [], []
        held = window.record_filter()
        released, in_calls = queue.withdraw_waiting(lambda record: record.hook_id in hooks and held(record))
        for record in released:
            # It is matched again when its backlog comes to it.
            record.counters.matched -= 1
            record.done(record)
        return released, in_calls

    def _begin(self, backlog: Backlog) -> None:
        self._backlogs.append(backlog)
        self._shared.backlogs.add(backlog)
        for hook_id in backlog.behind:
            self._by_hook[backlog.target.app_key, hook_id] = backlog
        self._update_gauge()
        if backlog.behind and not self._closed:
            reader = BacklogReader(backlog, self._partition, self._shared, self._targets, self._dispatch)
            self._readers[backlog] = (reader, self._spawn(self._read(backlog, reader)))

    async def _read(self, backlog: Backlog, reader: BacklogReader) -> None:
        await reader.run()
        if backlog.until is None:
            return
        log.info("target_attached", key=backlog.key, sequence=backlog.until)
        self._deregister(backlog)
        self._shared.observer.caught_up(backlog.target)
        self._wake.set()
        if lost := await self._shared.lost_of(backlog):
            self._metrics.count("millrace_hooks_events_total", lost, outcome="lost")
            self._shared.observer.lost(backlog.target, lost)

    def _deregister(self, backlog: Backlog) -> None:
        self._shared.backlogs.discard(backlog)
        self._update_gauge()

    def _update_gauge(self) -> None:
        self._metrics.gauge("millrace_hooks_detached_targets", self._shared.targets)

    def _reconfigure(self, index: HookIndex, connectors: Mapping[Target, ActiveConnector]) -> None:
        """Follow a configuration before it is applied: deleted hooks are skipped, moved hooks keep their events."""
        for backlog in list(self._backlogs):
            if backlog.until is not None:
                continue
            old = backlog.target
            app_key = old.app_key
            groups: dict[Target, list[str]] = {}
            for hook_id in list(backlog.behind):
                rule = index.find(app_key, hook_id)
                if rule is not None and rule.target in connectors:
                    groups.setdefault(rule.target, []).append(hook_id)
                else:
                    self._skip(app_key, hook_id, backlog.behind.pop(hook_id))
                    del self._by_hook[app_key, hook_id]
            if groups and old not in groups:
                # Queued records follow by themselves.
                backlog.target = next(iter(groups))
            for target, hooks in groups.items():
                if target != backlog.target:
                    moving = dict.fromkeys(hooks, 0)
                    released, in_calls = self._withdraw(old, backlog.window, moving)
                    moved = backlog.split(hooks, key=self._free_key(target), target=target, released=released)
                    moved.add_in_flight(in_calls)
                    self._begin(moved)
            if not backlog.behind and (running := self._readers.get(backlog)) is not None:
                running[0].close()
                self._deregister(backlog)
        self._wake.set()

    def _skip(self, app_key: str, hook_id: str, events: int) -> None:
        counters = self._delivery_counters.of(app_key, hook_id)
        # The events of a backlog count as matched when its reader comes to them, which it will not.
        counters.matched += events
        counters.skipped_inactive += events
        if events:
            self._metrics.count("millrace_hooks_events_total", events, outcome="skipped_inactive")

    async def write_checkpoints(self) -> None:
        """Write the checkpoints as records finish, until cancelled."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._shared.stall_policy.checkpoint_s):
                    await self._wake.wait()
            self._wake.clear()
            try:
                await self._write(final=False)
            except MillraceError as error:
                log.warning(
                    "checkpoint_write_failed", partition=self._partition, code=error.code, message=error.message
                )

    async def _write(self, *, final: bool) -> None:
        async with self._writing:
            for requested in list(self._requested.values()):
                if await self._writer.put(requested):
                    self._detach(requested)
                else:
                    # A frozen earlier owner has written it; the next owner of the partition continues it.
                    self._foreign_keys.add(requested.key)
                    del self._requested[requested.target]
            # The old entry covers the hooks of a new backlog until the new entry is stored.
            while new := [backlog for backlog in self._backlogs if not backlog.revision]:
                await self._update(new[0], final=final)
            for backlog in list(self._backlogs):
                if all(other.revision for other in self._backlogs):
                    await self._update(backlog, final=final)

    async def _update(self, backlog: Backlog, *, final: bool) -> None:
        if backlog.finished:
            await self._writer.delete(backlog)
            self._drop(backlog)
        elif not await (self._writer.put(backlog) if final else self._writer.put_if_moved(backlog)):
            self._drop(backlog)

    def _drop(self, backlog: Backlog) -> None:
        self._backlogs.remove(backlog)
        self._deregister(backlog)
        if (running := self._readers.pop(backlog, None)) is not None:
            running[0].close()

    def close(self) -> None:
        """Queue no more records."""
        self._closed = True
        for reader, _ in self._readers.values():
            reader.close()

    async def wait_readers_ended(self) -> None:
        """Wait until the readers have ended, so that no more records are queued."""
        if running := [task for _, task in self._readers.values()]:
            await asyncio.wait(running)

    async def wait_empty(self) -> None:
        """Wait until the records of targets that answer are finished. Nothing may be queued meanwhile."""
        for backlog in list(self._backlogs):
            if self._targets.error_of(backlog.target) is None:
                await backlog.window.wait_empty()

    async def settle(self) -> None:
        """Write the last checkpoints, from which the next owner continues."""
        try:
            await self._write(final=True)
        except MillraceError as error:
            log.warning("last_checkpoint_failed", partition=self._partition, message=error.message)

    def deregister_all(self) -> None:
        """Deregister every backlog, because this process stops reading the partition."""
        self._closed = True
        with contextlib.suppress(ValueError):
            self._targets.before_change.remove(self._reconfigure)
        for backlog in self._backlogs:
            self._deregister(backlog)
