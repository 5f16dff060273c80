"""
The files of the lake in the bucket `LAKE`: one entry for each app, type and day.

An entry is written when its files are stored, in one write. So a reader sees all files of a window or none, and a day's
files or the one that they became.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import date, datetime
from functools import partial
from typing import Final

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from exporter.exports.progress import WindowPlan
from exporter.layouts.lake import day_of_key
from exporter.pipeline.lane import Lane
from shared.contracts.keys import lake_day_key, lake_day_keys, parse_lake_day_key
from shared.errors import BusyError, ConflictError
from shared.messaging.kv import KeyValueStore

ATTEMPTS: Final = 20
"""Writes of one entry in a row that others came before."""


class LaneRange(Lane, frozen=True, kw_only=True):
    """A range of sequences of `EVENTS`, in the partitions of one lane."""

    first_sequence: int
    last_sequence: int

    def covers(self, other: "LaneRange") -> bool:
        """Return whether the other range is in this one."""
        return (
            (self.shards, self.shard) == (other.shards, other.shard)
            and self.first_sequence <= other.first_sequence
            and other.last_sequence <= self.last_sequence
        )


class LakeFile(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """
    A file, and the sequences of `EVENTS` between which its events lie.

    It has all of the app's events there, or those in `lanes`, where several lanes write the lake.
    """

    key: str
    rows: int
    size_bytes: int
    first_sequence: int
    last_sequence: int
    lanes: tuple[LaneRange, ...] = ()

    @property
    def ranges(self) -> tuple[LaneRange, ...]:
        """The ranges that it covers."""
        return self.lanes or (LaneRange(first_sequence=self.first_sequence, last_sequence=self.last_sequence),)

    def covers(self, other: "LakeFile") -> bool:
        """Return whether the events of the other file are in this one."""
        return all(any(mine.covers(its) for mine in self.ranges) for its in other.ranges)


def lanes_in(files: Sequence[LakeFile]) -> tuple[LaneRange, ...]:
    """The ranges of neighbours in a list as one file has them: one for each lane. None where all have no lanes."""
    if not any(file.lanes for file in files):
        return ()
    found: dict[tuple[int, int], LaneRange] = {}
    for one in (one for file in files for one in file.ranges):
        known = found.get((one.shards, one.shard), one)
        found[one.shards, one.shard] = replace(
            one,
            first_sequence=min(known.first_sequence, one.first_sequence),
            last_sequence=max(known.last_sequence, one.last_sequence),
        )
    return tuple(found.values())


class ReplacedFile(Struct, frozen=True, kw_only=True):
    """A file that is no part of the lake any more, and the time since then. Readers may still have it open."""

    key: str
    at: datetime


class DayFiles(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The files of a type and day, in the order of their sequences."""

    files: tuple[LakeFile, ...] = ()
    replaced: tuple[ReplacedFile, ...] = ()

    def with_file(self, file: LakeFile) -> "DayFiles":
        """The same with a file; unchanged where its events are there already."""
        if any(known.covers(file) for known in self.files):
            return self
        files = sorted((*self.files, file), key=lambda one: one.first_sequence)
        return replace(self, files=tuple(files))

    def with_merged(self, merged: LakeFile, parts: tuple[LakeFile, ...], at: datetime) -> "DayFiles":
        """The same with one file in the place of some; unchanged where these are not all there."""
        if not set(parts) <= set(self.files):
            return self
        kept = [file for file in self.files if file not in parts]
        files = sorted((*kept, merged), key=lambda one: one.first_sequence)
        return DayFiles(files=tuple(files), replaced=(*self.replaced, *_replaced(parts, at)))

    def without_files(self, at: datetime) -> "DayFiles":
        """The same with no file: all are replaced by nothing."""
        return DayFiles(replaced=(*self.replaced, *_replaced(self.files, at)))


class LakeDay(Struct, frozen=True, kw_only=True):
    """A type and day of an app, with its files."""

    app_key: str
    type: str
    date: str
    files: DayFiles

    @property
    def key(self) -> str:
        """Its key in `LAKE`."""
        return lake_day_key(self.app_key, self.type, self.date)


class LakeLists:
    """The entries of `LAKE`. Every method raises `UnavailableError` while NATS does not answer."""

    def __init__(self, store: KeyValueStore) -> None:
        self._store = store

    async def of_app(self, app_key: str) -> list[LakeDay]:
        """Every type and day of an app, the newest day first."""
        days = await self._scan(lake_day_keys(app_key))
        return sorted(days, key=lambda day: (day.date, day.type), reverse=True)

    async def all(self) -> list[LakeDay]:
        """Every type and day of all apps."""
        return await self._scan(lake_day_keys("*"))

    async def get(self, key: str) -> DayFiles:
        """The files of a type and day; none where there is no entry."""
        found = await self._store.get(key)
        return self._decoded(key, found.data if found else None)

    async def add(self, app_key: str, lane: Lane, plan: WindowPlan) -> None:
        """Add the files of a lane's window, which are stored. Changes nothing where they are there already."""
        covered = LaneRange(
            shards=lane.shards,
            shard=lane.shard,
            first_sequence=plan.first_sequence,
            last_sequence=plan.last_sequence,
        )
        for planned in plan.files:
            file = LakeFile(
                key=planned.key,
                rows=planned.rows,
                size_bytes=planned.size_bytes,
                first_sequence=plan.first_sequence,
                last_sequence=plan.last_sequence,
                lanes=() if lane.is_whole else (covered,),
            )
            key = lake_day_key(app_key, planned.part, day_of_key(planned.key))
            await self.change(key, partial(DayFiles.with_file, file=file))

    async def change(self, key: str, change: Callable[[DayFiles], DayFiles]) -> DayFiles:
        """
        Write the result of `change`, applied to the newest files of an entry.

        Raises:
            BusyError: Others write the entry again and again.
        """
        for _ in range(ATTEMPTS):
            entry = await self._store.entry(key)
            before = self._decoded(key, entry.data)
            after = change(before)
            if after == before:
                return before
            try:
                await self._store.put(key, msgspec.json.encode(after), expect_revision=entry.revision)
            except ConflictError:
                continue
            return after
        raise BusyError(f"the list {key} changes all the time", retry_after_s=5)

    async def remove(self, key: str) -> None:
        """Remove an entry."""
        await self._store.delete(key)

    async def _scan(self, keys: str) -> list[LakeDay]:
        days = []
        for stored in await self._store.scan(keys):
            app_key, event_type, day = parse_lake_day_key(stored.key)
            # Whatever else came under a key of the bucket is no day of the lake.
            with suppress(ValueError):
                date.fromisoformat(day)
                files = self._decoded(stored.key, stored.data)
                days.append(LakeDay(app_key=app_key, type=event_type, date=day, files=files))
        return days

    def _decoded(self, key: str, data: bytes | None) -> DayFiles:
        return self._store.decoded(key, data, DayFiles) or DayFiles()


def _replaced(files: tuple[LakeFile, ...], at: datetime) -> tuple[ReplacedFile, ...]:
    return tuple(ReplacedFile(key=file.key, at=at) for file in files)
