"""Dispatch of an event: its hooks, their records, the profile and the queues."""

import asyncio
from typing import NamedTuple, Protocol

import structlog

from hooks.backlog.backlog import Backlog
from hooks.backlog.routing import ReaderRouting
from hooks.dead_letters.writer import DeadLetterWriter
from hooks.delivery.ack_window import PendingMessage
from hooks.delivery.counters import DeliveryCounters, HookCounters
from hooks.delivery.model import Record, partition_key, size_of
from hooks.delivery.target_queue import TargetQueue
from hooks.delivery.targets import Targets
from hooks.matching.rendering import render, strip
from hooks.matching.routed_event import RoutedEvent
from hooks.matching.rule import Rule, Target
from shared.contracts.messages import ProfileAttributes
from shared.errors import MillraceError
from shared.profiles.store import Profile
from shared.runtime.retry import Backoff
from shared.runtime.telemetry import Metrics

log = structlog.get_logger()


class ProfileStore(Protocol):
    """The part of `shared.profiles.cache.ProfileCache` that is needed here."""

    async def get(self, app_key: str, ext_id: str) -> Profile | None: ...


class _Route(NamedTuple):
    """The queue of a hook in one configuration, and the limit of its records. Without a queue they go nowhere."""

    counters: HookCounters
    queue: TargetQueue | None
    max_bytes: int


class Dispatcher:
    """The dispatcher of one partition. Its reader and those of its backlogs queue all records by it."""

    def __init__(
        self,
        partition: int,
        routing: ReaderRouting,
        *,
        targets: Targets,
        dead_letters: DeadLetterWriter,
        delivery_counters: DeliveryCounters,
        profiles: ProfileStore | None,
        metrics: Metrics,
    ) -> None:
        self._partition = partition
        self._routing = routing
        self._targets = targets
        self._dead_letters = dead_letters
        self._delivery_counters = delivery_counters
        self._profiles = profiles
        self._metrics = metrics
        self._index = targets.index
        self._routes: dict[Rule, _Route] = {}
        self.lost = False
        """Set when the lease is lost: from then on nothing is queued."""

    async def dispatch(
        self, pending: PendingMessage, event: RoutedEvent, source: str, backlog: Backlog | None = None
    ) -> None:
        """Queue an event's records, with the attributes of its user's profile. `source` is its position in `EVENTS`."""
        profile = await self._profile(event) if event.ext_id and self._profiles else None
        if self.lost:
            return
        rules = self._targets.index.match(event)
        await self.put_oversize(self.put_matched(rules, pending, event, source, profile, backlog))

    def put_matched(
        self,
        rules: tuple[Rule, ...],
        pending: PendingMessage,
        event: RoutedEvent,
        source: str,
        profile: ProfileAttributes | None = None,
        backlog: Backlog | None = None,
    ) -> list[tuple[Target, Record]]:
        """
        Queue an event's records, and return those that are too large for that.

        Nothing is awaited in here, so one configuration matches and routes, and no hook is detached in between.
        """
        if self._index is not self._targets.index:
            self._index = self._targets.index
            self._routes.clear()
        pending.window.dispatched = source
        key = partition_key(event.user_id)
        oversize: list[tuple[Target, Record]] = []
        for rule in rules:
            if (backlog is not None or self._routing.by_hook) and not self._routing.accepts(rule, source, backlog):
                continue
            route = self._routes.get(rule) or self._find_route(rule)
            counters, queue, batch, most = route.counters, route.queue, rule.hook.batch, route.max_bytes
            counters.matched += 1
            if queue is None:
                counters.skipped_inactive += 1
                self._metrics.count("millrace_hooks_events_total", outcome="skipped_inactive")
                continue
            data = render(rule, event, source, profile)
            size = size_of(key, data, batch)
            if size > most and rule.hook.oversize == "strip":
                data = strip(data)
                size = size_of(key, data, batch)
                self._metrics.count("millrace_hooks_events_total", outcome="stripped")
            record = Record(
                key=key,
                data=data,
                size=size,
                hook_id=rule.hook_id,
                source=source,
                counters=counters,
                done=pending,
                batch=batch,
                max_bytes=most,
                at_ns=pending.message.at_ns,
                partition=self._partition,
            )
            pending.expect(record)
            if size > most:
                oversize.append((rule.target, record))
            else:
                queue.put(record)
        return oversize

    async def put_oversize(self, oversize: list[tuple[Target, Record]]) -> None:
        """Store the records that `put_matched` returned as dead letters."""
        for place, (target, record) in enumerate(oversize):
            message = f"expected at most {record.max_bytes} bytes with the key, got {record.size}"
            try:
                await self._dead_letters.put_record(target, record, "oversize", message)
            except asyncio.CancelledError:
                # The next owner of the partition matches them again.
                for _, unfinished in oversize[place:]:
                    unfinished.counters.matched -= 1
                raise
            record.done(record)

    def _find_route(self, rule: Rule) -> _Route:
        queue = self._targets.find(rule.target)
        most = min(rule.hook.max_record_bytes, queue.limits.record_bytes) if queue is not None else 0
        route = self._routes[rule] = _Route(self._delivery_counters.of(rule.app_key, rule.hook_id), queue, most)
        return route

    async def _profile(self, event: RoutedEvent) -> ProfileAttributes | None:
        assert event.ext_id is not None
        assert self._profiles is not None
        for delay_s in Backoff(first_s=0.1, max_s=5.0).delays():
            try:
                profile = await self._profiles.get(event.app_key, event.ext_id)
            except MillraceError as error:
                # A profile that cannot be decoded must not hold up the partition; an unreachable store does, like NATS.
                if not error.retryable:
                    log.warning("profile_decoding_failed", app_key=event.app_key, message=error.message)
                    return None
                await asyncio.sleep(delay_s)
            else:
                return profile.attributes if profile is not None else None
        return None
