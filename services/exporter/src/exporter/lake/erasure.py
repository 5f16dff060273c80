"""Erasure of an app's lake: the lists, the files, and everything that the lake would still read."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from typing import Final

import structlog
from msgspec.structs import replace

from exporter.exports.claims import hold_claim
from exporter.exports.lanes.lane_store import LaneStore
from exporter.exports.progress import Claim, ExportProgress, lease_until, may_claim
from exporter.exports.progress_store import ClaimedElsewhereError, ProgressStore, UnreadableProgressError
from exporter.exports.schedule import schedule_of
from exporter.exports.worker import first_progress
from exporter.lake.job import EVERY_S, OpenLake
from exporter.lake.lists import LakeLists
from exporter.lake.upkeep import remove_folder
from exporter.layouts.lake import app_folder
from exporter.pipeline.lane import Shards
from exporter.pipeline.source import EventSource
from shared.contracts.keys import LAKE_EXPORT
from shared.errors import BusyError, ConflictError
from shared.ids import make_ulid
from shared.messaging.kv import KeyValueStore

log = structlog.get_logger()

WAIT_S: Final = 60.0
"""The longest wait for a run in progress."""
POLL_S: Final = 0.25


class LakeErasure:
    """
    Erases the lakes of apps.

    Args:
        owner: Identifies the erasures of this process among the claims of runs.
        shards: The lanes of a lake that had none.
    """

    def __init__(
        self,
        *,
        lists: LakeLists,
        plans: KeyValueStore,
        source: EventSource,
        open_lake: OpenLake,
        clock: Callable[[], datetime],
        owner: str,
        shards: Shards = 1,
    ) -> None:
        self._lists = lists
        self._plans = plans
        self._source = source
        self._open_lake = open_lake
        self._clock = clock
        self._owner = f"{owner}-erasure"
        self._shards = shards

    async def erase(self, app_key: str) -> None:
        """
        Erase an app's lake, while no run works on it. Events that are published later begin a new one.

        Raises:
            BusyError: A run works on it for longer than a minute, or another erasure does.
            MillraceError: NATS or the store failed; what is left is erased by another call.
        """
        try:
            async with asyncio.timeout(WAIT_S):
                lanes = await self._claimed(app_key)
        except TimeoutError:
            raise BusyError("the lake is being written", retry_after_s=15) from None
        work = self._remove(app_key)
        for lane in lanes:
            work = hold_claim(lane, self._clock, work)
        await work
        for lane in lanes:
            await lane.change(lambda progress: replace(progress, claim=None))
        log.info("lake_erased", app_key=app_key)

    async def _claimed(self, app_key: str) -> list[ProgressStore]:
        """Claim every lane of the app's lake, and pass over all events that the stream holds. Waits for runs."""
        lanes = LaneStore(self._plans, app_key, LAKE_EXPORT)
        while True:
            try:
                found = await lanes.load()
                if not found:
                    await lanes.begin(self._shards, await self._first_progress(app_key))
                    continue
                # While one lane is claimed, no others take their place.
                claimed = [store for lane in found if (store := await self._claim(lanes.progress_store(lane)))]
                if len(claimed) == len(found):
                    last_sequence = (await self._source.state()).last_sequence
                    for store in claimed:
                        await store.change(lambda progress: replace(progress, cursor=last_sequence, window=None))  # noqa: B023
                    return claimed
            except UnreadableProgressError:
                # All of the lake goes, so how far it had come is of no use.
                with suppress(ConflictError):
                    await lanes.begin_anew(self._shards, await self._first_progress(app_key))
                continue
            except ClaimedElsewhereError:
                continue
            await asyncio.sleep(POLL_S)

    async def _claim(self, store: ProgressStore) -> ProgressStore | None:
        """The store of a lane that is claimed now; None while a run works on it, and when it is replaced."""
        now = self._clock()
        if not await store.load() or not may_claim(store.progress, self._owner, now):
            return None
        claim = Claim(
            run_id=make_ulid(int(now.timestamp() * 1000)),
            owner=self._owner,
            trigger="manual",
            started_at=now,
            until=lease_until(now),
        )
        await store.change(lambda progress: replace(progress, claim=claim))
        return store

    async def _first_progress(self, app_key: str) -> ExportProgress:
        state = await self._source.state()
        return first_progress(schedule_of(f"{app_key}.{LAKE_EXPORT}", EVERY_S), state.last_sequence, self._clock())

    async def _remove(self, app_key: str) -> None:
        # Readers lose the lists first, and then what these name.
        for day in await self._lists.of_app(app_key):
            await self._lists.remove(day.key)
        async with self._open_lake() as store:
            await remove_folder(store, app_folder(app_key))
