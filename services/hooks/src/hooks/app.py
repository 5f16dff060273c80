"""
Construction of the hooks service: its parts, in the order of their dependencies. It holds no rules; nothing is
constructed elsewhere.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from hooks import SERVICE_NAME
from hooks.assignment.leases import LeaseKeeper
from hooks.assignment.plan import LeaseTiming
from hooks.assignment.replica_id import lock_name
from hooks.assignment.status import AssignmentStatus
from hooks.backlog.checkpoints import Checkpoints
from hooks.backlog.reader import BacklogReaders
from hooks.backlog.stall_detector import StallPolicy
from hooks.config import CONNECTORS, HOOKS
from hooks.dead_letters.replay import Replays
from hooks.dead_letters.store import DeadLetterStore
from hooks.dead_letters.writer import DeadLetterWriter
from hooks.delivery.ack_window import Bounds
from hooks.delivery.advice import TargetAdvice
from hooks.delivery.alerts import Alerts
from hooks.delivery.counters import DeliveryCounters
from hooks.delivery.model import CallPolicy
from hooks.delivery.targets import Targets
from hooks.events.publisher import EventPublisher
from hooks.handlers import ENDPOINTS
from hooks.partitions.consumer import PartitionConsumer
from hooks.partitions.metrics import read_hooks
from hooks.partitions.pool import ConsumerPool
from hooks.partitions.previews import Previews
from hooks.routes import ROUTES
from hooks.sinks import SINKS
from hooks.sinks.catalog import SinkCatalog
from hooks.sinks.follower import ConfigurationFollower
from hooks.state import State
from shared.config.registry import secrets_of
from shared.contracts import streams, subjects
from shared.contracts.consumers import HOOKS_CONSUMERS
from shared.messaging.bus import Bus, StreamState
from shared.messaging.consumers import open_pull, open_scan
from shared.messaging.fill import describe_full
from shared.messaging.pull import Pull
from shared.profiles.cache import ProfileCache
from shared.runtime.telemetry import Metrics
from shared.service import Mesh, Service

BOUNDS = Bounds()
STALL_POLICY = StallPolicy()
TIMING = LeaseTiming()
PULL_MESSAGES = 512
PULL_BYTES = 1 << 20
"""Limits on messages that a partition has fetched and not yet put into its ack window, which `BOUNDS` limits."""
SCAN_MESSAGES = 256

LAG_EVERY_S = 2.0


def now() -> datetime:
    """The clock of the service."""
    return datetime.now(UTC)


class StoredEvents:
    """Satisfies `hooks.backlog.reader.EventStream`."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    def scan(self, app_key: str, partition: int, start: int) -> AbstractAsyncContextManager[Pull]:
        return open_scan(
            self._bus,
            streams.EVENTS,
            subject=subjects.events(app_key, partition),
            start_sequence=start,
            capacity=SCAN_MESSAGES,
            capacity_bytes=PULL_BYTES,
        )

    async def state(self) -> StreamState:
        return await self._bus.stream_state(streams.EVENTS)


async def build(mesh: Mesh) -> State:
    """Open the parts in the order of their dependencies. They are closed in reverse."""
    alerts = Alerts(mesh.bus.alert, now)
    mesh.spawn("alerts", alerts.run())
    profiles = ProfileCache(mesh.bus)
    mesh.spawn("profiles", profiles.run())
    counters = DeliveryCounters(now)
    shared = {
        name: await mesh.enter(sink.open_shared(mesh.settings, mesh.outgoing, now)) for name, sink in SINKS.items()
    }
    allow_private = mesh.settings.allow_private_endpoints
    sinks = SinkCatalog(SINKS, shared, CONNECTORS, mesh.registry, allow_private=allow_private)
    dead_letter_writer = DeadLetterWriter(mesh.bus, mesh.metrics, now, _secrets_of(mesh))
    targets = await mesh.enter(
        Targets(CallPolicy(), observer=alerts, dead_letters=dead_letter_writer, metrics=mesh.metrics)
    )
    advice = TargetAdvice(alerts.advised)
    ConfigurationFollower(
        mesh.registry.view(HOOKS),
        [mesh.registry.view(kind) for kind in CONNECTORS.values()],
        sinks=sinks,
        targets=targets,
        counters=counters,
        advice=advice,
    ).follow()
    checkpoints = Checkpoints(mesh.bucket(streams.HOOKS))
    backlog_readers = BacklogReaders(
        StoredEvents(mesh.bus), checkpoints, observer=alerts, clock=now, stall_policy=STALL_POLICY
    )

    @asynccontextmanager
    async def open_partition(number: int) -> AsyncIterator[PartitionConsumer]:
        async with open_pull(
            mesh.bus, HOOKS_CONSUMERS[number], capacity=PULL_MESSAGES, capacity_bytes=PULL_BYTES
        ) as pull:
            yield PartitionConsumer(
                number,
                pull,
                targets=targets,
                dead_letters=dead_letter_writer,
                delivery_counters=counters,
                profiles=profiles,
                metrics=mesh.metrics,
                bounds=BOUNDS,
                backlog_readers=backlog_readers,
            )

    mesh.metrics.read(partial(read_hooks, counters, targets, backlog_readers, now))
    partitions = ConsumerPool(open_partition, targets, mesh.metrics, mesh.spawn)
    name = await mesh.enter(lock_name(Path(mesh.settings.data_dir) / "hooks"))
    leases = LeaseKeeper(name, mesh.bus, partitions, timing=TIMING, now=now)
    targets.before_call = leases.drop_ended
    await leases.start()
    mesh.spawn("leases", leases.run())
    mesh.ping("leases", leases.ping)
    mesh.intake("partitions", leases)
    await partitions.wait_opened()
    mesh.spawn("lag", _measure_lag(partitions, mesh.metrics))
    dead_letters = DeadLetterStore(mesh.bus)
    replays = Replays(dead_letters, targets, counters, mesh.metrics, now)
    mesh.intake("replays", replays)

    return State(
        publisher=EventPublisher(mesh.bus, partial(describe_full, mesh.bus, streams.EVENTS), alerts.events_full, now),
        targets=targets,
        assignment=AssignmentStatus(mesh.bus, leases.table),
        backlog_readers=backlog_readers,
        counters=counters,
        advice=advice,
        dead_letters=dead_letters,
        replays=replays,
        previews=Previews(mesh.bus, profiles, now),
        registry=mesh.registry,
        sinks=sinks,
        clock=now,
    )


def _secrets_of(mesh: Mesh) -> Callable[[str], Iterable[str]]:
    """The secrets in an app's configuration, by app."""
    views = [mesh.registry.view(kind) for kind in SERVICE.kinds]
    return lambda app_key: [
        secret.reveal() for view in views for entry in view.of_app(app_key) for secret in secrets_of(entry.value)
    ]


async def _measure_lag(partitions: ConsumerPool, metrics: Metrics) -> None:
    """
    Keep the gauges of waiting records of the service. A scrape reads those of each hook (`hooks.partitions.metrics`).
    """
    while True:
        ours = partitions.all()
        oldest_ns = min((stored for one in ours if (stored := one.oldest_ns) is not None), default=None)
        lag_s = now().timestamp() - oldest_ns / 1e9 if oldest_ns is not None else 0.0
        metrics.gauge("millrace_hooks_lag_seconds", max(0.0, lag_s))
        metrics.gauge("millrace_hooks_waiting_records", sum(one.waiting for one in ours))
        await asyncio.sleep(LAG_EVERY_S)


SERVICE = Service(
    name=SERVICE_NAME,
    build=build,
    routes=ROUTES,
    streams=(streams.EVENTS, streams.DLQ, streams.ALERTS),
    buckets=(streams.CONFIG, streams.PROFILES, streams.LEASES, streams.HOOKS),
    consumers=HOOKS_CONSUMERS,
    kinds=(HOOKS, *CONNECTORS.values()),
    endpoints=ENDPOINTS,
)
