"""Replays as they are asked for, stored and shown, and the job of one. Pure."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Annotated, Final, Literal

from msgspec import Meta, Struct, field
from msgspec.structs import replace

from exporter.config.export import Export, job_of
from exporter.destinations.platform import Platform
from exporter.exports.job import ExportJob, Span
from exporter.exports.progress import ExportProgress
from exporter.exports.run_store import Run
from exporter.exports.schedule import schedule_of
from exporter.folders.claims import Folder
from exporter.pipeline.ports import Destination, Format
from shared.config.registry import ConfigEntry, Kind
from shared.contracts.keys import replay_export
from shared.errors import ConflictError

RETRY_S: Final = 300.0
"""The time from one run of a replay to the next, where one was not enough."""

Position = Annotated[int, Meta(ge=1)] | Annotated[datetime, Meta(tz=True)]
"""A sequence of `EVENTS`, or a time with its zone."""
ReplayState = Literal["waiting", "running", "failing", "completed"]


class ReplayRequest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """
    A replay to start: the events from `from` to `to`, and the folder for their files.

    A time is that at which `EVENTS` stored an event: from it on, and before it at the end. A sequence is one of
    `EVENTS` and counts with both ends. Without `to` it ends where the export is now.
    """

    from_: Position = field(name="from")
    to: Position | None = None
    folder: Annotated[str, Meta(min_length=1, max_length=512)]


class Replay(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A replay as it is stored. `place` and `folder` are those of its claim."""

    id: str
    export_id: str
    first_sequence: int
    last_sequence: int
    place: str
    folder: str
    created_at: datetime

    @property
    def job_id(self) -> str:
        """The id of the export that its job is like."""
        return replay_export(self.export_id, self.id)

    @property
    def claimed(self) -> Folder:
        """Its folder, as it is claimed."""
        return Folder(self.place, self.folder)


class AppReplays(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All replays of an app, the oldest first."""

    replays: tuple[Replay, ...] = ()

    def of(self, export_id: str) -> list[Replay]:
        """Those of an export."""
        return [replay for replay in self.replays if replay.export_id == export_id]


REPLAYS: Final = Kind(prefix="replays", type=AppReplays, fixed_id="")


class ReplayStatus(Struct, frozen=True, kw_only=True):
    """
    A replay, over the sequences `first_sequence`..`last_sequence` of `EVENTS`.

    Those up to `delivered_to` are written. A `failing` one is tried again, a `waiting` one has not begun or waits for
    its export to be active. `run` is the newest run.
    """

    id: str
    export_id: str
    state: ReplayState
    folder: str
    first_sequence: int
    last_sequence: int
    delivered_to: int
    created_at: datetime
    run: Run | None = None


class ReplayStatuses(Struct, frozen=True, kw_only=True):
    """The replays of an export, the newest first."""

    replays: tuple[ReplayStatus, ...]


def status_of(replay: Replay, progress: ExportProgress | None, run: Run | None) -> ReplayStatus:
    """A replay as it is shown."""
    state: ReplayState = "waiting"
    if progress is not None and is_over(replay, progress):
        state = "completed"
    elif run is not None and run.error is not None:
        state = "failing"
    elif progress is not None and progress.claim is not None:
        state = "running"
    return ReplayStatus(
        id=replay.id,
        export_id=replay.export_id,
        state=state,
        folder=replay.folder,
        first_sequence=replay.first_sequence,
        last_sequence=replay.last_sequence,
        delivered_to=progress.cursor if progress is not None else replay.first_sequence - 1,
        created_at=replay.created_at,
        run=run,
    )


def is_over(replay: Replay, progress: ExportProgress) -> bool:
    """Return whether all events of a replay are delivered."""
    return _span(replay).is_over(progress)


def in_folder(export: Export, folder: str) -> Export:
    """The export as its replay writes: into another folder of the same bucket, in one lane."""
    return replace(export, destination=replace(export.destination, directory=folder), shards=1)


def replay_job(
    entry: ConfigEntry[Export], replay: Replay, platform: Platform, formats: Mapping[str, Format]
) -> ExportJob:
    """The job of a replay, at the current revision of its export."""
    app_key = entry.app_key
    job = job_of(replace(entry, value=in_folder(entry.value, replay.folder)), platform, formats)
    is_elsewhere = entry.value.destination.place(app_key) != replay.place
    return replace(
        job,
        export_id=replay.job_id,
        schedule=schedule_of(f"{app_key}.{replay.job_id}", RETRY_S),
        span=_span(replay),
        open_destination=_refuse if is_elsewhere else job.open_destination,
    )


def _span(replay: Replay) -> Span:
    return Span(first_sequence=replay.first_sequence, last_sequence=replay.last_sequence)


@asynccontextmanager
async def _refuse() -> AsyncIterator[Destination]:
    raise ConflictError("the export writes into another bucket now; delete this replay and start another one")
    yield
