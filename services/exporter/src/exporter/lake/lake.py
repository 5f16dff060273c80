"""The lake as the service calls it: the jobs of its apps, what it holds, its erasure."""

from collections.abc import Callable
from contextlib import suppress
from datetime import datetime

from msgspec import Struct
from msgspec.structs import replace

from exporter.exports.job import ExportJob
from exporter.exports.lanes.lane_store import LaneStore
from exporter.exports.progress_store import UnreadableProgressError
from exporter.exports.schedule import schedule_of
from exporter.exports.worker import Key, first_progress
from exporter.lake.apps import LakeApps
from exporter.lake.erasure import LakeErasure
from exporter.lake.job import EVERY_S, OpenLake, lake_job
from exporter.lake.lists import LakeFile, LakeLists
from exporter.pipeline.lane import Shards
from exporter.pipeline.ports import Format
from exporter.pipeline.source import EventSource
from shared.contracts.keys import LAKE_EXPORT
from shared.errors import ConflictError, NotFoundError
from shared.messaging.bus import Bus
from shared.messaging.kv import KeyValueStore


class LakeDayFiles(Struct, frozen=True, kw_only=True):
    """A type and day (`YYYY-MM-DD`, UTC, when the events were queued) with its files in the order of their events."""

    type: str
    date: str
    rows: int
    size_bytes: int
    files: tuple[LakeFile, ...]


class LakeFiles(Struct, frozen=True, kw_only=True):
    """The lake of an app, the newest day first."""

    days: tuple[LakeDayFiles, ...]


class Lake:
    """
    The lakes of all apps.

    Args:
        on_change: Called when `jobs` returns others.
        shards: The lanes that write each of them.
        is_on: Whether anything is written.
    """

    def __init__(
        self,
        *,
        bus: Bus,
        lists: LakeLists,
        plans: KeyValueStore,
        source: EventSource,
        open_lake: OpenLake,
        location: str,
        parquet: Format,
        clock: Callable[[], datetime],
        owner: str,
        on_change: Callable[[], None],
        shards: Shards = 1,
        is_on: bool = True,
    ) -> None:
        self.is_on = is_on
        self.lists = lists
        self.open = open_lake
        self.apps = LakeApps(bus, self._begin, on_change)
        self.erasure = LakeErasure(
            lists=lists,
            plans=plans,
            source=source,
            open_lake=open_lake,
            clock=clock,
            owner=owner,
            shards=shards,
        )
        self._plans = plans
        self._source = source
        self._location = location
        self._parquet = parquet
        self._clock = clock
        self._shards = shards

    def jobs(self) -> dict[Key, ExportJob]:
        """The export of each app that has events."""
        return {
            (app_key, LAKE_EXPORT): replace(
                lake_job(app_key, self.lists, self.open, self._location, self._parquet), shards=self._shards
            )
            for app_key in self.apps.keys
        }

    async def files(self, app_key: str) -> LakeFiles:
        """The files of an app's lake. Raises `NotFoundError` when it has none."""
        days = await self.lists.of_app(app_key)
        if not days:
            raise NotFoundError(f"the lake has no events of {app_key}")
        return LakeFiles(
            days=tuple(
                LakeDayFiles(
                    type=day.type,
                    date=day.date,
                    rows=sum(file.rows for file in day.files.files),
                    size_bytes=sum(file.size_bytes for file in day.files.files),
                    files=day.files.files,
                )
                for day in days
            )
        )

    async def look_for(self, app_key: str) -> None:
        """Look for an app's events now. Raises `NotFoundError` where there are none, `ConflictError` when it is off."""
        if not self.is_on:
            raise ConflictError("the lake is off; MILLRACE_EXPORTER_LAKE turns it on")
        if not await self.apps.has_events(app_key):
            raise NotFoundError(f"there are no events of {app_key}")
        await self.apps.refresh()

    async def is_gone(self, app_key: str) -> bool:
        """Return whether neither the stream nor the lake holds an event of an app."""
        return not await self.apps.has_events(app_key) and not await self.lists.of_app(app_key)

    async def _begin(self, app_key: str) -> None:
        """Store the first progress of an app's lake, before the first event that the stream holds."""
        state = await self._source.state()
        schedule = schedule_of(f"{app_key}.{LAKE_EXPORT}", EVERY_S)
        first = first_progress(schedule, max(0, state.first_sequence - 1), self._clock())
        # The worker of this lake alerts; the other apps go on.
        with suppress(UnreadableProgressError):
            await LaneStore(self._plans, app_key, LAKE_EXPORT).begin(self._shards, first)
