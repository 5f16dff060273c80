"""The parts that all webhooks of a process share."""

from collections.abc import Callable
from datetime import datetime

from msgspec import Struct

from shared.outgoing.door import Outgoing


class WebhookClient(Struct, frozen=True):
    """The connections of the process, and the clock that stamps messages."""

    outgoing: Outgoing
    clock: Callable[[], datetime]
