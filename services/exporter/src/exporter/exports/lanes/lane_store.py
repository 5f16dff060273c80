"""
The lanes of one export in the bucket `PLANS`.

The entry `<app>.<id>` holds the progress of the only lane, or the number of lanes. Every write that makes or removes
lanes writes it too, so that one of two at once fails as a whole.
"""

from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Final, cast

import msgspec
import structlog

from exporter.exports.lanes.changes import Lanes, next_step
from exporter.exports.progress import ExportProgress, LaneCount, SeveralShards, lane_count
from exporter.exports.progress_store import ProgressStore, UnreadableProgressError, with_window
from exporter.pipeline.lane import WHOLE, Lane, Shards, lanes_of
from shared.contracts.keys import export_progress_key, lane_progress_key, lane_progress_keys
from shared.errors import ConflictError
from shared.messaging.kv import BucketEntry, KeyValueStore

log = structlog.get_logger()

READS: Final = 5
"""Attempts to read lanes that others replace meanwhile."""
STEPS: Final = 6
"""The most steps that are taken at once: a change has three."""


class LaneStore:
    """
    The lanes of one export.

    Every method raises `UnavailableError` while NATS does not answer, and `UnreadableProgressError` where it says so.
    """

    def __init__(self, store: KeyValueStore, app_key: str, export_id: str) -> None:
        self._store = store
        self._app_key = app_key
        self._export_id = export_id
        self._head = export_progress_key(app_key, export_id)

    def progress_store(self, lane: Lane) -> ProgressStore:
        """The progress of a lane, to be loaded."""
        return ProgressStore(self._store, self._key(lane))

    async def load(self) -> Lanes:
        """The lanes that are stored; none where the export has no progress. Raises `UnreadableProgressError`."""
        return self._decoded(await self._read())

    async def begin(self, shards: Shards, progress: ExportProgress) -> None:
        """
        Store the first progress of every lane. An export that has progress keeps it.

        Raises:
            UnreadableProgressError: It has progress, and that cannot be read.
        """
        if await self.load():
            return
        # Another replica may begin it at this time.
        with suppress(ConflictError):
            await self._replace({}, dict.fromkeys(lanes_of(shards), progress))

    async def begin_anew(self, shards: Shards, progress: ExportProgress) -> None:
        """Store the first progress of every lane, whatever was there. Raises `ConflictError` when that changes."""
        await self._replace(await self._stored(), dict.fromkeys(lanes_of(shards), progress))

    async def advance(self, shards: Shards) -> Lanes:
        """
        Take the steps to so many lanes that can be taken now. Others may take them at the same time.

        Returns:
            The lanes as they are now; none where the export has no progress.

        Raises:
            UnreadableProgressError: The progress of a lane cannot be read.
        """
        for _ in range(STEPS):
            entries = await self._read()
            lanes = self._decoded(entries)
            step = next_step(lanes, shards) if lanes else {}
            if not step:
                break
            revisions = {key: entry.revision for key, entry in entries.items()}
            if step.keys() <= lanes.keys():
                await self._change(revisions, step)
                continue
            try:
                await self._replace(revisions, step)
            except ConflictError:
                continue
            log.info("lanes_changed", app_key=self._app_key, export=self._export_id, before=len(lanes), now=len(step))
        return lanes

    async def erase(self) -> None:
        """Delete every lane. Raises `ConflictError` when one changes meanwhile."""
        stored = await self._stored()
        if stored:
            await self._store.put_many([BucketEntry(key, None, revision) for key, revision in stored.items()])

    def _key(self, lane: Lane) -> str:
        return lane_progress_key(self._app_key, self._export_id, lane.shards, lane.shard)

    async def _read(self) -> Mapping[str, BucketEntry]:
        """The entries of the lanes that there are and the first entry, by key; none where there is no progress."""
        for _ in range(READS):
            head = await self._store.entry(self._head)
            if head.data is None:
                return {}
            count = lane_count(head.data)
            if count is None:
                return {self._head: head}
            keys = [self._key(lane) for lane in lanes_of(count)]
            found = await self._store.get_many([self._head, *keys])
            if found[self._head] == head and all(key in found and found[key].data is not None for key in keys):
                return found
        raise UnreadableProgressError(self._head)

    def _decoded(self, entries: Mapping[str, BucketEntry]) -> Lanes:
        if not entries:
            return {}
        lanes = [WHOLE] if len(entries) == 1 else lanes_of(cast(Shards, len(entries) - 1))
        return {lane: self._progress(entries[self._key(lane)]) for lane in lanes}

    def _progress(self, entry: BucketEntry) -> ExportProgress:
        progress = self._store.decoded(entry.key, entry.data, ExportProgress)
        if progress is None:
            raise UnreadableProgressError(entry.key)
        return with_window(progress)

    async def _stored(self) -> dict[str, int]:
        """The keys of the export that hold anything, with their revisions."""
        head = await self._store.get(self._head)
        lanes = await self._store.scan(lane_progress_keys(self._app_key, self._export_id))
        return {stored.key: stored.revision for stored in ([head] if head else []) + lanes}

    async def _change(self, revisions: Mapping[str, int], lanes: Lanes) -> None:
        """Write the progress of some lanes. One whose process has gone on meanwhile is left as it is."""
        for lane, progress in lanes.items():
            key = self._key(lane)
            try:
                await self._store.put(key, msgspec.json.encode(progress), expect_revision=revisions[key])
            except ConflictError:
                continue

    async def _replace(self, revisions: Mapping[str, int], lanes: Lanes) -> None:
        """Remove the entries of these revisions, and write lanes, all in one write. Raises `ConflictError`."""
        data = {self._key(lane): msgspec.json.encode(progress) for lane, progress in lanes.items()}
        if len(lanes) > 1:
            data[self._head] = msgspec.json.encode(LaneCount(shards=cast(SeveralShards, len(lanes))))
        expected = {**await self._revisions(data.keys() - revisions.keys()), **revisions}
        await self._store.put_many([BucketEntry(key, data.get(key), expected[key]) for key in expected])

    async def _revisions(self, keys: Iterable[str]) -> dict[str, int]:
        """The revisions of keys, those of their deletion, or 0."""
        wanted = list(keys)
        found = await self._store.get_many(wanted) if wanted else {}
        return {key: found[key].revision if key in found else 0 for key in wanted}
