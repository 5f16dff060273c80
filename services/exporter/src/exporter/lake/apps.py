"""The apps that have a lake: those whose events the stream holds."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

import structlog

from shared.contracts import streams
from shared.contracts.subjects import APP_KEY, EVERY_EVENT, NO_APP, app_of_events, events_of_app
from shared.errors import MillraceError
from shared.messaging.bus import Bus
from shared.messaging.streams import subjects_in

log = structlog.get_logger()

INTERVAL_S: Final = 30.0


class LakeApps:
    """
    The apps with events, as last looked up.

    Args:
        begin: Stores the first progress of an app's lake, before the app is among these.
        on_change: Called after a change.
    """

    def __init__(self, bus: Bus, begin: Callable[[str], Awaitable[None]], on_change: Callable[[], None]) -> None:
        self._bus = bus
        self._begin = begin
        self._on_change = on_change
        self.keys: frozenset[str] = frozenset()

    async def run(self) -> None:
        """Look them up every 30 s, until cancelled."""
        while True:
            try:
                await self.refresh()
            except MillraceError as error:
                log.warning("lake_apps_failed", message=error.message)
            await asyncio.sleep(INTERVAL_S)

    async def refresh(self) -> None:
        """Look them up now. Raises `UnavailableError` while NATS does not answer."""
        subjects = await subjects_in(self._bus, streams.EVENTS, EVERY_EVENT)
        found = {app_of_events(subject) for subject in subjects}
        found = {app_key for app_key in found if app_key != NO_APP and APP_KEY.fullmatch(app_key)}
        for app_key in found - self.keys:
            await self._begin(app_key)
        if found != self.keys:
            self.keys = frozenset(found)
            self._on_change()

    async def has_events(self, app_key: str) -> bool:
        """Return whether the stream holds events of an app now."""
        return bool(await subjects_in(self._bus, streams.EVENTS, events_of_app(app_key)))
