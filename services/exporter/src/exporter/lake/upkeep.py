"""
Upkeep of the lake: the files of a finished day become one, files that were replaced are removed an hour later, and days
are removed when they are old.

Every replica does it. Merging writes the same bytes, a list changes only from the state that was read, and deleting a
deleted file is no error.
"""

import asyncio
import random
from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta
from functools import partial
from typing import Final

import structlog
from msgspec.structs import replace

from exporter.formats.parquet import ParquetWorkers
from exporter.lake.job import OpenLake
from exporter.lake.lists import DayFiles, LakeDay, LakeLists
from exporter.lake.merging import groups, merge
from exporter.layouts.lake import day_folder
from shared.errors import MillraceError
from shared.objects.store import ObjectStore

log = structlog.get_logger()

INTERVAL_S: Final = 600.0
FINISHED_AFTER: Final = timedelta(hours=1)
"""The time after the end of a day at which its files are merged."""
MOST_FILES: Final = 400
"""Files of a day from which on they are merged before its end: an entry of a bucket has at most 1 MB."""
REMOVED_AFTER: Final = timedelta(hours=1)
"""The time for which a reader may use the files of a list that it took."""


class LakeUpkeep:
    """
    The upkeep of all apps.

    Args:
        keep: The age of a day at which it is removed; None keeps all.
    """

    def __init__(
        self, lists: LakeLists, open_lake: OpenLake, clock: Callable[[], datetime], *, keep: timedelta | None
    ) -> None:
        self._lists = lists
        self._open_lake = open_lake
        self._clock = clock
        self._keep = keep

    async def run(self) -> None:
        """Work every ten minutes or so, until cancelled."""
        while True:
            await asyncio.sleep(INTERVAL_S * random.uniform(0.9, 1.1))
            try:
                await self.work()
            except MillraceError as error:
                log.warning("lake_upkeep_failed", message=error.message)

    async def work(self) -> None:
        """Do what is due now. A day that fails leaves the others alone."""
        # A process of its own: a day of a large app takes it for half a minute, and windows do not wait.
        async with self._open_lake() as store, ParquetWorkers() as workers:
            for day in await self._lists.all():
                try:
                    await self._work_on(store, workers, day)
                except MillraceError as error:
                    log.warning("lake_day_failed", app_key=day.app_key, day=day.key, message=error.message)

    async def _work_on(self, store: ObjectStore, workers: ParquetWorkers, day: LakeDay) -> None:
        now = self._clock()
        await self._remove_replaced(store, day, now)
        ended_at = datetime.combine(date.fromisoformat(day.date), time(), UTC) + timedelta(days=1)
        if self._keep is not None and now - ended_at >= self._keep:
            await self._expire(store, day, now)
        elif now - ended_at >= FINISHED_AFTER or len(day.files.files) >= MOST_FILES:
            # Another replica may have merged it since the lists were read.
            for parts in groups((await self._lists.get(day.key)).files):
                merged = await merge(store, workers, day, parts)
                files = await self._lists.change(
                    day.key, partial(DayFiles.with_merged, merged=merged, parts=parts, at=now)
                )
                if merged.key not in {file.key for file in files.files}:
                    # The app's lake was erased meanwhile.
                    await store.delete(merged.key)
                    return
                log.info("lake_files_merged", app_key=day.app_key, day=day.key, files=len(parts), rows=merged.rows)

    async def _remove_replaced(self, store: ObjectStore, day: LakeDay, now: datetime) -> None:
        due = frozenset(one.key for one in day.files.replaced if now - one.at >= REMOVED_AFTER)
        if not due:
            return
        for key in due - {file.key for file in day.files.files}:
            await store.delete(key)

        def removed(files: DayFiles) -> DayFiles:
            return replace(files, replaced=tuple(one for one in files.replaced if one.key not in due))

        await self._lists.change(day.key, removed)

    async def _expire(self, store: ObjectStore, day: LakeDay, now: datetime) -> None:
        """First take the files from the list; remove the folder and the list when no reader has them any more."""
        files = await self._lists.change(day.key, lambda files: files.without_files(now) if files.files else files)
        if not files.replaced:
            await remove_folder(store, day_folder(day.app_key, day.type, day.date))
            await self._lists.remove(day.key)
            log.info("lake_day_removed", app_key=day.app_key, day=day.key)


async def remove_folder(store: ObjectStore, folder: str) -> None:
    """Remove every object below a folder, listed or not."""
    keys = [info.key async for info in store.list(folder)]
    for key in keys:
        await store.delete(key)
