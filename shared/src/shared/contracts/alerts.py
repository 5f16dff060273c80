"""Alerts of a service: made here and handed to the connection, which publishes them (`Bus.alert`)."""

from collections.abc import Awaitable, Callable
from datetime import datetime

from shared.contracts.messages import Alert

PublishAlert = Callable[[Alert], Awaitable[None]]
"""Takes an alert and never raises."""


class AlertSender:
    """
    Alerts of one service, with its name and the time.

    Args:
        clock: Aware UTC.
    """

    def __init__(self, service: str, publish: PublishAlert, clock: Callable[[], datetime]) -> None:
        self.publish = publish
        self._service = service
        self._clock = clock

    def make(self, app_key: str, kind: str, subject: str, message: str) -> Alert:
        """An alert of now, which is not published yet."""
        return Alert(
            service=self._service, app_key=app_key, kind=kind, subject=subject, message=message, at=self._clock()
        )

    async def send(self, app_key: str, kind: str, subject: str, message: str) -> None:
        """Publish an alert of now."""
        await self.publish(self.make(app_key, kind, subject, message))
