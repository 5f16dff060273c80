"""
The runs of every export in the bucket `RUNS`: one record a run, kept for as long as the bucket keeps them.

Customers read the records, so a record holds no secret and no address.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final, Literal

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from exporter.exports.failures.failure import DroppedEvents
from exporter.exports.progress import Trigger, WindowPlan
from exporter.pipeline.lane import WHOLE, Lane
from shared.contracts import keys
from shared.contracts.keys import LAKE_EXPORT
from shared.errors import InvalidError, NotFoundError
from shared.messaging.kv import PAGE_BYTES, KeyValueStore
from shared.runtime.slices import Slices

RunState = Literal["running", "retrying", "completed", "failed", "stopped", "cancelled"]
RunRequest = Literal["cancel", "retry"]

ERROR_CHARACTERS = 1000
"""The longest error message in a record."""
MOST_FILES: Final = 1000
"""Files that a record lists. It has to fit in a message, and a run that is far behind writes tens of thousands."""


class RunFile(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """
    An object in the destination, and the sequences of `EVENTS` whose events it holds.

    `etag` is what the store gave for it. It is absent where the answer to the upload was lost.
    """

    key: str
    size_bytes: int
    rows: int
    first_sequence: int
    last_sequence: int
    sha256: str = ""
    etag: str = ""


class RunError(Struct, frozen=True, kw_only=True):
    """The failure of a run, with the code of `shared.errors`."""

    code: str
    message: str


class Run(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """
    One run of an export, over the sequences `first_sequence`..`last_sequence` of `EVENTS`; none where nothing was new.

    `rows_in` counts what was read: events of the export's kind, and what is dropped. `rows_out` counts the events in
    files, `rows_filtered` those that its lists exclude, and `rows_dropped` what could not be exported: items that are
    no events, and messages that have expired (an upper bound). So in = out + filtered + dropped, but in records of a
    release before, where dropped stands beside in.

    A `retrying` run waits for its attempt number `attempts` at `next_try_at`, after `error`. A `stopped` run ended
    early because the service stopped, a `cancelled` one because somebody asked for it; the next run continues.
    `files` are the first 1,000; `files_omitted` counts the others. `counted_to` is the sequence up to which delivered
    windows are counted. `dropped` are the events that were older than 48 hours, at the customer's fault. `lane` is the
    part of the partitions that it read, where the export has several.
    """

    id: str
    app_key: str
    export_id: str
    state: RunState = "running"
    lane: Lane = WHOLE
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
    files_omitted: int = 0
    attempts: int = 1
    next_try_at: datetime | None = None
    error: RunError | None = None
    counted_to: int = 0
    dropped: DroppedEvents | None = None

    @property
    def is_open(self) -> bool:
        """Whether the run is in progress."""
        return self.state in ("running", "retrying")


def counted(run: Run, *, rows_in: int = 0, rows_out: int = 0, rows_dropped: int = 0) -> Run:
    """The record with the counts added. `rows_in` are good events: those in files, and those that are filtered."""
    return replace(
        run,
        rows_in=run.rows_in + rows_in + rows_dropped,
        rows_out=run.rows_out + rows_out,
        rows_filtered=run.rows_filtered + rows_in - rows_out,
        rows_dropped=run.rows_dropped + rows_dropped,
    )


def with_dropped(run: Run, dropped: DroppedEvents) -> Run:
    """The record with events that its end drops. After a crash before it was over they come again, and count once."""
    before = run.dropped.events if run.dropped is not None else 0
    return replace(counted(run, rows_dropped=dropped.events - before), dropped=dropped)


def with_window(run: Run, plan: WindowPlan, etags: Mapping[str, str]) -> Run:
    """
    The record with the files of a delivered window. A window that it holds already is not counted again.

    Args:
        etags: Those that the store gave, by key.
    """
    if plan.last_sequence <= run.counted_to:
        return run
    if plan.files and {file.key for file in plan.files} <= {file.key for file in run.files}:
        # Counted by the release before, which wrote no `counted_to`.
        return run
    files = tuple(
        RunFile(
            key=file.key,
            size_bytes=file.size_bytes,
            rows=file.rows,
            first_sequence=plan.first_sequence,
            last_sequence=plan.last_sequence,
            sha256=file.sha256,
            etag=etags.get(file.key, ""),
        )
        for file in plan.files
    )
    run = counted(run, rows_in=plan.rows_in, rows_out=plan.rows_out, rows_dropped=plan.rows_dropped)
    size_bytes = sum(file.size_bytes for file in files)
    listed = files[: MOST_FILES - len(run.files)]
    return replace(
        run,
        files=(*run.files, *listed),
        files_omitted=run.files_omitted + len(files) - len(listed),
        size_bytes=run.size_bytes + size_bytes,
        counted_to=plan.last_sequence,
    )


def total(runs: Sequence[Run]) -> Run:
    """The sum of runs of lanes at one time: the first one's record, with the counts and files of all."""
    first, *others = sorted(runs, key=lambda run: run.lane.shard)
    if not others:
        return first
    finished = [run.finished_at for run in runs]
    tries = [run.next_try_at for run in runs if run.next_try_at is not None]
    starts = [run.first_sequence for run in runs if run.first_sequence is not None]
    ends = [run.last_sequence for run in runs if run.last_sequence is not None]
    states = [run.state for run in runs]
    files = [file for run in runs for file in run.files]
    return replace(
        first,
        lane=WHOLE,
        state=next(state for state in _WORST_FIRST if state in states),
        started_at=min(run.started_at for run in runs),
        finished_at=None if None in finished else max(filter(None, finished)),
        next_try_at=min(tries, default=None),
        first_sequence=min(starts, default=None),
        last_sequence=max(ends, default=None),
        rows_in=sum(run.rows_in for run in runs),
        rows_out=sum(run.rows_out for run in runs),
        rows_filtered=sum(run.rows_filtered for run in runs),
        rows_dropped=sum(run.rows_dropped for run in runs),
        size_bytes=sum(run.size_bytes for run in runs),
        files=tuple(files[:MOST_FILES]),
        files_omitted=sum(run.files_omitted for run in runs) + len(files[MOST_FILES:]),
        attempts=max(run.attempts for run in runs),
        error=next((run.error for run in runs if run.error is not None), None),
    )


_WORST_FIRST: Final[tuple[RunState, ...]] = ("failed", "retrying", "running", "cancelled", "stopped", "completed")


class Runs(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A page of the runs of an export, the newest first. `next` is the `before` of the page behind it."""

    runs: tuple[Run, ...]
    next: str | None = None


class RunStore:
    """The records of runs, and requests to those in progress."""

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

    async def page(self, app_key: str, export_id: str, *, before: str | None = None, limit: int) -> Runs:
        """
        Runs, the one that changed last first; few requests, however many there are.

        Args:
            before: The id of a run, to begin behind it.
            limit: The most; there are fewer where records are large.

        Raises:
            InvalidError: There is no run of the id `before`.
        """
        revision = None
        if before is not None:
            entry = await self._store.entry(keys.run_key(app_key, export_id, before))
            if entry.data is None:
                raise InvalidError(f"there is no run {before}", field="before")
            revision = entry.revision
        stored = await self._store.newest(keys.run_keys(app_key, export_id), before=revision, most=limit + 1)
        shown, slices = [], Slices()
        for one in stored[:limit]:
            run = self._store.decoded(one.key, one.data, Run)
            if run is not None:
                shown.append(run)
            await slices.turn()
        is_cut = len(stored) > limit or sum(len(one.data) for one in stored) >= PAGE_BYTES
        return Runs(runs=tuple(shown), next=keys.parse_run_key(stored[:limit][-1].key) if is_cut else None)

    async def request(self, run: Run, request: RunRequest) -> None:
        """Store a request to a run in progress, in place of an earlier one."""
        await self._store.put(_request_key(run), request.encode())

    async def requested(self, run: Run) -> RunRequest | None:
        """The request to a run, or None."""
        found = await self._store.get(_request_key(run))
        return _REQUESTS.get(found.data) if found else None

    async def remove_request(self, run: Run) -> None:
        """Remove the request to a run, if there is one."""
        if await self._store.get(_request_key(run)) is not None:
            await self._store.delete(_request_key(run))


def _request_key(run: Run) -> str:
    return keys.run_request_key(run.app_key, run.export_id, run.id)


_REQUESTS: Final[dict[bytes, RunRequest]] = {b"cancel": "cancel", b"retry": "retry"}
