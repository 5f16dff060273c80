"""What `build` gives: the parts that routes and handlers call. No rules."""

from collections.abc import Awaitable, Callable
from datetime import datetime

from msgspec import Struct

from hooks.assignment.status import AssignmentStatus
from hooks.backlog.reader import BacklogReaders
from hooks.dead_letters.replay import Replays
from hooks.dead_letters.store import DeadLetterStore
from hooks.delivery.advisories import Advisories
from hooks.delivery.counters import DeliveryCounters
from hooks.delivery.targets import Targets
from hooks.events.publisher import EventPublisher
from hooks.previews import Previews
from hooks.sinks.kinesis.sink import KinesisConfig
from hooks.sinks.webhook.sink import WebhookConfig
from shared.config.registry import Registry
from shared.contracts.connection_report import ConnectionReport


class State(Struct, frozen=True, kw_only=True):
    """
    The running service. `test_connector` tries a connector, saved or not, a stream where one is named, and a record in
    it where that is asked for; `test_webhook` posts one marked message.
    """

    publishing: EventPublisher
    destinations: Targets
    standing: AssignmentStatus
    catch_ups: BacklogReaders
    tallies: DeliveryCounters
    advice: Advisories
    letters: DeadLetterStore
    replays: Replays
    previews: Previews
    registry: Registry
    test_connector: Callable[[KinesisConfig, str | None, bool], Awaitable[ConnectionReport]]
    test_webhook: Callable[[WebhookConfig], Awaitable[ConnectionReport]]
    allow_private_endpoints: bool
    clock: Callable[[], datetime]
