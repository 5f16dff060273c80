"""State of the running service: the parts that routes and handlers call. No rules."""

from collections.abc import Callable
from datetime import datetime

from msgspec import Struct

from hooks.assignment.status import AssignmentStatus
from hooks.backlog.reader import BacklogReaders
from hooks.dead_letters.replay import Replays
from hooks.dead_letters.store import DeadLetterStore
from hooks.delivery.advice import TargetAdvice
from hooks.delivery.counters import DeliveryCounters
from hooks.delivery.targets import Targets
from hooks.events.publisher import EventPublisher
from hooks.partitions.previews import Previews
from hooks.sinks.catalog import SinkCatalog
from shared.config.registry import Registry


class State(Struct, frozen=True, kw_only=True):
    """Parts of the running service, made by `hooks.app.build`."""

    publisher: EventPublisher
    targets: Targets
    assignment: AssignmentStatus
    backlog_readers: BacklogReaders
    counters: DeliveryCounters
    advice: TargetAdvice
    dead_letters: DeadLetterStore
    replays: Replays
    previews: Previews
    registry: Registry
    sinks: SinkCatalog
    clock: Callable[[], datetime]
