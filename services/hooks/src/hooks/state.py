"""What `build` gives: the parts that routes and handlers call. No rules."""

from collections.abc import Awaitable, Callable

from msgspec import Struct

from hooks.catch_up import CatchUps
from hooks.destinations import Destinations
from hooks.publishing import Publishing
from hooks.sinks import SinkConfig
from hooks.tallies import Tallies
from shared.connection_test import ConnectionReport
from shared.registry import Registry


class State(Struct, frozen=True, kw_only=True):
    """The running service. `test_connector` tries a connector, saved or not, and a stream where one is named."""

    publishing: Publishing
    destinations: Destinations
    catch_ups: CatchUps
    tallies: Tallies
    registry: Registry
    test_connector: Callable[[SinkConfig, str | None], Awaitable[ConnectionReport]]
    allow_private_endpoints: bool
