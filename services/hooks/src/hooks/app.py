"""The composition root of hooks: opens the parts and puts them together. The only constructor; no rules."""

from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime

from hooks.alerts import Alerts
from hooks.catch_up import CatchUps
from hooks.checkpoints import Checkpoints
from hooks.config import HOOKS, KINESIS
from hooks.dead_letters import DeadLetterBox
from hooks.delivery import Policy
from hooks.destinations import Connector, Destinations
from hooks.handlers import ENDPOINTS
from hooks.partitions import Partition, Partitions
from hooks.publishing import Publishing
from hooks.routes import ROUTES
from hooks.sinks import SinkConfig
from hooks.stalls import Patience
from hooks.state import State
from hooks.tallies import Tallies
from hooks.triggers import Index, Rule
from hooks.window import Bounds
from shared import subjects
from shared.aws import AwsClients
from shared.bus import Bus, StreamState
from shared.connection_test import ConnectionReport, run_checks
from shared.consumers import Pull, open_pull, open_scan
from shared.profiles import Profiles
from shared.service import Mesh, Service

BOUNDS = Bounds()
PATIENCE = Patience()
PULL_MESSAGES = 512
PULL_BYTES = 1 << 20
SCAN_MESSAGES = 256
"""What one partition may have fetched and not yet taken, beside what `BOUNDS` lets it hold."""


def now() -> datetime:
    """The clock of the service."""
    return datetime.now(UTC)


class StoredEvents:
    """Satisfies `hooks.catch_up.Events`."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    def scan(self, app_key: str, partition: int, start: int) -> AbstractAsyncContextManager[Pull]:
        return open_scan(
            self._bus,
            subjects.EVENTS,
            subject=subjects.events(app_key, partition),
            start_sequence=start,
            capacity=SCAN_MESSAGES,
            capacity_bytes=PULL_BYTES,
        )

    async def state(self) -> StreamState:
        return await self._bus.stream_state(subjects.EVENTS)


async def build(mesh: Mesh) -> State:
    """Open everything, in the order in which it is needed; it is closed in reverse."""
    alerts = Alerts(mesh.bus.alert, now)
    mesh.spawn("alerts", alerts.run())
    profiles = Profiles(mesh.bus)
    mesh.spawn("profiles", profiles.keep())
    tallies = Tallies(now)
    clients = await mesh.enter(AwsClients())
    dead_letters = DeadLetterBox(mesh.bus, mesh.metrics, now)
    destinations = await mesh.enter(
        Destinations(Policy(), watcher=alerts, dead_letters=dead_letters, metrics=mesh.metrics)
    )
    _follow(mesh, destinations, tallies, clients)
    checkpoints = Checkpoints(mesh.bucket(subjects.HOOKS))
    catch_ups = CatchUps(StoredEvents(mesh.bus), checkpoints, listener=alerts, clock=now, patience=PATIENCE)
    partitions = []
    for number in range(subjects.PARTITIONS):
        pull = await mesh.enter(
            open_pull(
                mesh.bus,
                subjects.EVENTS,
                durable=subjects.hooks_consumer(number),
                subject=subjects.events_of_partition(number),
                capacity=PULL_MESSAGES,
                capacity_bytes=PULL_BYTES,
            )
        )
        partition = Partition(
            number,
            pull,
            destinations=destinations,
            dead_letters=dead_letters,
            tallies=tallies,
            profiles=profiles,
            metrics=mesh.metrics,
            bounds=BOUNDS,
            catch_ups=catch_ups,
        )
        mesh.spawn(f"partition-{number:02d}", partition.run())
        partitions.append(partition)
    mesh.intake("partitions", Partitions(partitions, destinations))

    async def test_connector(config: SinkConfig, stream_name: str | None) -> ConnectionReport:
        return await run_checks(config.checks(clients, stream_name))

    return State(
        publishing=Publishing(mesh.bus, alerts, now),
        destinations=destinations,
        catch_ups=catch_ups,
        tallies=tallies,
        registry=mesh.registry,
        test_connector=test_connector,
        allow_private_endpoints=mesh.settings.allow_private_endpoints,
    )


def _follow(mesh: Mesh, destinations: Destinations, tallies: Tallies, clients: AwsClients) -> None:
    """Keep `destinations` at the newest configuration."""
    hooks, connectors = mesh.registry.view(HOOKS), mesh.registry.view(KINESIS)

    def connector(config: SinkConfig, revision: int) -> Connector:
        return Connector(revision=revision, open=lambda stream_name: config.open(clients, stream_name))

    def apply() -> None:
        rules = [
            Rule(app_key=entry.app_key, hook_id=entry.id, revision=entry.revision, hook=entry.value)
            for entry in hooks.all()
        ]
        active = {
            entry.app_key: connector(entry.value, entry.revision) for entry in connectors.all() if entry.value.active
        }
        destinations.apply(Index(rules), active)
        tallies.keep({(rule.app_key, rule.hook_id) for rule in rules})

    hooks.on_change(apply)
    connectors.on_change(apply)
    apply()


SERVICE = Service(
    name="hooks",
    build=build,
    routes=ROUTES,
    streams=(subjects.EVENTS, subjects.DLQ, subjects.ALERTS),
    buckets=(subjects.CONFIG, subjects.PROFILES, subjects.HOOKS),
    kinds=(HOOKS, KINESIS),
    endpoints=ENDPOINTS,
)
