"""What `build` gives: the parts that routes and handlers call. No rules."""

from collections.abc import Awaitable, Callable
from datetime import datetime

from msgspec import Struct

from hooks.advice import Advice
from hooks.catch_up import CatchUps
from hooks.destinations import Destinations
from hooks.letters import LetterStore
from hooks.previews import Previews
from hooks.publishing import Publishing
from hooks.replays import Replays
from hooks.sinks.kinesis import KinesisConfig
from hooks.sinks.webhook import WebhookConfig
from hooks.standing import Standing
from hooks.tallies import Tallies
from shared.connection_test import ConnectionReport
from shared.registry import Registry


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
