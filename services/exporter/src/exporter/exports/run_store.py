"""
The runs of every export in the bucket `RUNS`: one record a run, kept for as long as the bucket keeps them.

Customers read the records, so a record holds no secret and no address.
"""

from datetime import datetime
from itertools import islice
from typing import Literal

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from exporter.exports.progress import Trigger, WindowPlan
from shared.contracts import keys
from shared.contracts.keys import LAKE_EXPORT
from shared.errors import NotFoundError
from shared.messaging.kv import KeyValueStore

RunState = Literal["running", "completed", "failed", "stopped"]

ERROR_CHARACTERS = 1000
"""The longest error message in a record."""


class RunFile(Struct, frozen=True, kw_only=True):
    """An object in the destination, and the sequences of `EVENTS` whose events it holds."""

    key: str
    size_bytes: int
    rows: int
    first_sequence: int
    last_sequence: int


class RunError(Struct, frozen=True, kw_only=True):
    """The failure of a run, with the code of `shared.errors`."""

    code: str
    message: str


class Run(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """
    One run of an export, over the sequences `first_sequence`..`last_sequence` of `EVENTS`; none where nothing was new.

    `rows_in` counts the events of the export's type that were read. `rows_out` counts those in files, and
    `rows_filtered` those that its lists exclude: in = out + filtered. `rows_dropped` counts messages of `EVENTS` that
    could not be exported: expired ones (an upper bound), and ones that hold no events. A `stopped` run ended early
    because the service stopped; the next run continues.
    """

    id: str
    app_key: str
    export_id: str
    state: RunState = "running"
    trigger: Trigger
    started_at: datetime
    finished_at: datetime | None = None
    first_sequence: int | None = None
    last_sequence: int | None = None
    rows_in: int = 0
    rows_out: int = 0
    rows_filtered: int = 0
    rows_dropped: int = 0
    size_bytes: int = 0
    files: tuple[RunFile, ...] = ()
    attempts: int = 1
    error: RunError | None = None


def counted(run: Run, *, rows_in: int = 0, rows_out: int = 0, rows_dropped: int = 0) -> Run:
    """The record with the counts added."""
    return replace(
        run,
        rows_in=run.rows_in + rows_in,
        rows_out=run.rows_out + rows_out,
        rows_filtered=run.rows_filtered + rows_in - rows_out,
        rows_dropped=run.rows_dropped + rows_dropped,
    )


def with_window(run: Run, plan: WindowPlan) -> Run:
    """The record with the files of a delivered window. A window that it holds already is not counted again."""
    if plan.files and {file.key for file in plan.files} <= {file.key for file in run.files}:
        return run
    files = tuple(
        RunFile(
            key=file.key,
            size_bytes=file.size_bytes,
            rows=file.rows,
            first_sequence=plan.first_sequence,
            last_sequence=plan.last_sequence,
        )
        for file in plan.files
    )
    run = counted(run, rows_in=plan.rows_in, rows_out=plan.rows_out, rows_dropped=plan.rows_dropped)
    size_bytes = sum(file.size_bytes for file in files)
    return replace(run, files=(*run.files, *files), size_bytes=run.size_bytes + size_bytes)


class Runs(Struct, frozen=True, kw_only=True):
    """Runs of an export, the newest first."""

    runs: tuple[Run, ...]


class RunStore:
    """The records of runs. Ids sort by time, so the newest are the last keys."""

    def __init__(self, store: KeyValueStore) -> None:
        self._store = store

    async def put(self, run: Run) -> None:
        """Create or overwrite a record. Those of the lake are not kept: every app has one each five minutes."""
        if run.export_id == LAKE_EXPORT:
            return
        await self._store.put(keys.run_key(run.app_key, run.export_id, run.id), msgspec.json.encode(run))

    async def get(self, app_key: str, export_id: str, run_id: str) -> Run:
        """The record of a run. Raises `NotFoundError`."""
        found = await self._store.get(keys.run_key(app_key, export_id, run_id))
        run = self._store.decoded(found.key, found.data, Run) if found else None
        if run is None:
            raise NotFoundError(f"there is no run {run_id}")
        return run

    async def newest(self, app_key: str, export_id: str, most: int) -> list[Run]:
        """Up to `most` runs, the newest first."""
        stored = await self._store.scan(keys.run_keys(app_key, export_id))
        stored.sort(key=lambda one: one.key, reverse=True)
        runs = (self._store.decoded(one.key, one.data, Run) for one in stored)
        return list(islice((run for run in runs if run is not None), most))
