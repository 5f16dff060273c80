"""
Alerts of hooks for an operator of the platform, on `alerts.hooks.<app>.<kind>`. Callers do not wait; one task publishes
the alerts in order.
"""

import asyncio
from collections.abc import Callable
from datetime import datetime
from typing import Literal

from hooks import SERVICE_NAME
from hooks.matching.rule import Target
from shared.contracts import streams
from shared.contracts.alerts import AlertSender, PublishAlert
from shared.contracts.messages import Alert
from shared.errors import MillraceError

WAITING = 1000
"""Alerts that may wait to be published. Further ones are dropped: they would repeat the others."""

AlertKind = Literal[
    "target-paused", "target-resumed", "target-advice", "events-full", "target-far-behind", "events-lost"
]


class Alerts:
    """Satisfies `hooks.delivery.model.DeliveryObserver`. `run` is a task for the life of the service."""

    def __init__(self, publish: PublishAlert, clock: Callable[[], datetime]) -> None:
        self._sender = AlertSender(SERVICE_NAME, publish, clock)
        self._waiting: asyncio.Queue[Alert] = asyncio.Queue()
        self._far_behind: set[Target] = set()

    async def run(self) -> None:
        """Publish alerts as they come."""
        while True:
            await self._sender.publish(await self._waiting.get())

    @property
    def waiting(self) -> int:
        """Alerts that are not published yet."""
        return self._waiting.qsize()

    def add(self, app_key: str, kind: AlertKind, subject: str, message: str) -> None:
        """Queue an alert about `subject`."""
        if self.waiting < WAITING:
            self._waiting.put_nowait(self._sender.make(app_key, kind, subject, message))

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
        self.add(target.app_key, "events-lost", target.stream_name, message)

    def events_full(self, app_key: str, error: MillraceError) -> None:
        """`EVENTS` is full and refuses what an app publishes."""
        self.add(app_key, "events-full", streams.EVENTS.name, f"events are refused: {error}")

    def resumed(self, target: Target) -> None:
        """The target answers again."""
        self.add(target.app_key, "target-resumed", target.stream_name, "hooks send there again")
