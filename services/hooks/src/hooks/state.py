"""What `build` gives: the parts that routes and handlers call. No rules."""

from collections.abc import Awaitable, Callable
from datetime import datetime

from msgspec import Struct

from hooks.assignment.status import Standing
from hooks.backlog.reader import CatchUps
from hooks.dead_letters.replay import Replays
from hooks.dead_letters.store import LetterStore
from hooks.delivery.advisories import Advice
from hooks.delivery.counters import Tallies
from hooks.delivery.targets import Destinations
from hooks.events.publisher import Publishing
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

    publishing: Publishing
    destinations: Destinations
    standing: Standing
    catch_ups: CatchUps
    tallies: Tallies
    advice: Advice
    letters: LetterStore
    replays: Replays
    previews: Previews
    registry: Registry
    test_connector: Callable[[KinesisConfig, str | None, bool], Awaitable[ConnectionReport]]
    test_webhook: Callable[[WebhookConfig], Awaitable[ConnectionReport]]
    allow_private_endpoints: bool
    clock: Callable[[], datetime]
