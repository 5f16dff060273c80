"""
Alerts of hooks for an operator of the platform, on `alerts.hooks.<app>.<kind>`. Callers do not wait; one task publishes
the alerts in order.
"""

import asyncio
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Literal, Protocol

from hooks import SERVICE_NAME
from hooks.matching.rule import Target
from shared.contracts import streams
from shared.contracts.alerts import AlertSender
from shared.contracts.messages import Alert
from shared.contracts.subjects import NO_APP
from shared.errors import MillraceError

WAITING = 1000
"""Alerts that may wait to be published. Further ones are dropped: they would repeat the others."""

AlertKind = Literal[
    "target-paused",
    "target-resumed",
    "target-advice",
    "target-throttled",
    "target-far-behind",
    "dead-letters",
    "events-full",
    "events-lost",
]


class PublishOnce(Protocol):
    """Takes an alert and never raises. An alert of a `message_id` that `ALERTS` had a moment ago is dropped there."""

    async def __call__(self, alert: Alert, message_id: str | None = None) -> None: ...


class Alerts:
    """
    Satisfies `hooks.delivery.model.DeliveryObserver`. `run` is a task for the life of the service.

    Every replica finds the trouble of a target by itself. So the id of an alert is the same on all of them: its subject
    and kind, and its number among those of the last minutes, for a target that is paused, resumes and is paused again.
    """

    def __init__(self, publish: PublishOnce, clock: Callable[[], datetime]) -> None:
        self._sender = AlertSender(SERVICE_NAME, publish, clock)
        self._publish = publish
        self._clock = clock
        self._waiting: asyncio.Queue[tuple[Alert, str | None]] = asyncio.Queue()
        self._far_behind: set[Target] = set()
        self._lately: dict[tuple[str, AlertKind, str], list[datetime]] = {}

    async def run(self) -> None:
        """Publish alerts as they come."""
        while True:
            await self._publish(*await self._waiting.get())

    @property
    def waiting(self) -> int:
        """Alerts that are not published yet."""
        return self._waiting.qsize()

    def add(self, app_key: str, kind: AlertKind, subject: str, message: str, *, everywhere: bool = True) -> None:
        """Queue an alert about `subject`. What all replicas find `everywhere` is told once."""
        if self.waiting < WAITING:
            alert = self._sender.make(app_key, kind, subject, message)
            message_id = self._once(app_key, kind, subject) if everywhere else None
            self._waiting.put_nowait((alert, message_id))

    def _once(self, app_key: str, kind: AlertKind, subject: str) -> str:
        now = self._clock()
        begin = now - timedelta(seconds=streams.ALERTS.duplicate_window_s)
        if len(self._lately) >= WAITING:
            self._lately = {key: times for key, times in self._lately.items() if times[-1] > begin}
        lately = [at for at in self._lately.get((app_key, kind, subject), ()) if at > begin]
        self._lately[app_key, kind, subject] = [*lately, now]
        return f"{SERVICE_NAME}:{app_key}:{kind}:{subject}:{len(lately)}"

    def paused(self, target: Target, error: MillraceError) -> None:
        """The target is paused until its configuration changes."""
        message = f"hooks send nothing there and keep the events: {error.message}"
        self.add(target.app_key, "target-paused", target.stream_name, message)

    def far_behind(self, target: Target, since: datetime) -> None:
        """`EVENTS` will soon delete events that a target waits for. One alert, until the target has `caught_up`."""
        if target not in self._far_behind:
            self._far_behind.add(target)
            message = f"events since {since:%Y-%m-%d %H:%M} UTC wait for the stream, and are not kept for ever"
            self.add(target.app_key, "target-far-behind", target.stream_name, message)

    def caught_up(self, target: Target) -> None:
        """A partition of the target has no backlog any more."""
        self._far_behind.discard(target)

    def advised(self, target: Target, message: str) -> None:
        """Records are sent to a target, but its setup needs a correction."""
        self.add(target.app_key, "target-advice", target.stream_name, message)

    def lost(self, target: Target, events: int) -> None:
        """`EVENTS` deleted events before the target accepted them."""
        message = f"{events} events were given up: they grew older than events are kept before the stream took them"
        # Of one partition, which one replica has.
        self.add(target.app_key, "events-lost", target.stream_name, message, everywhere=False)

    def events_full(self, message: str) -> None:
        """`EVENTS` is full and refuses what any app publishes."""
        self.add(NO_APP, "events-full", streams.EVENTS.name, message)

    def resumed(self, target: Target) -> None:
        """The target answers again."""
        self.add(target.app_key, "target-resumed", target.stream_name, "hooks send there again")

    def throttled(self, target: Target, message: str) -> None:
        """A target takes less than comes in, for minutes."""
        message = f"the target takes fewer records than come in, and the others wait: {message}"
        self.add(target.app_key, "target-throttled", target.stream_name, message)

    def rejects(self, target: Target, message: str) -> None:
        """A target refuses every record, and all of them become dead letters."""
        self.add(
            target.app_key, "dead-letters", target.stream_name, f"every record becomes a dead letter there: {message}"
        )
