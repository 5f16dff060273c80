"""
The windows of a run. Each passes four steps: build its files, plan, upload, move the cursor.

A window is delivered exactly once. Its plan is stored before the first upload, objects are created and never
overwritten, and one write removes the plan and moves the cursor. After a crash in between the plan exists: the next run
uploads the same objects again, or finds them uploaded.
"""

import asyncio
import hashlib
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager, nullcontext
from datetime import datetime
from functools import partial

import structlog
from msgspec.structs import replace

from exporter.exports.job import ExportJob
from exporter.exports.manifests import CONTENT_TYPE as MANIFEST_TYPE
from exporter.exports.manifests import ManifestObject, manifest_of
from exporter.exports.progress import PlannedFile, WindowPlan, name_at, renewed
from exporter.exports.progress_store import ProgressStore
from exporter.exports.retry_budget import RetryBudget
from exporter.exports.run_store import RunStore, counted, with_window
from exporter.exports.runs.run_record import RunRecord
from exporter.pipeline.content import Content
from exporter.pipeline.ports import Destination, FileName, WindowLimits
from exporter.pipeline.source import EventSource
from exporter.pipeline.window_builder import PartFile, WindowBuilder
from shared.errors import ConflictError, UnavailableError
from shared.runtime.fair_share import FairShare

log = structlog.get_logger()

BUILDS_AT_ONCE = 4
BUILDS_RESERVE = 2
"""
Files built concurrently, and further ones of apps that have none. Building reads only our own stream, so no customer's
bucket can block a slot.
"""
REPLAY_BUILDS_AT_ONCE = 2
"""Builds of replays among them. A replay has millions of events behind, which exports do not wait for."""
UPLOAD_BYTES = 256 << 20
UPLOAD_RESERVE_BYTES = 128 << 20
UPLOAD_FLOOR_BYTES = 72 << 20
"""
Bytes that all uploads hold in memory, so that many slow buckets cannot use it up: four files of the largest size, or
thousands of usual ones, at once. The reserve is for apps that hold no more than one file of the largest size.
"""
UPLOAD_S = 120.0
"""The longest upload or read of one object, in one attempt."""
NAMES_TRIED = 60
"""Names to try, one a second, when other writers' objects have the names of our files."""


class WriterDependencies:
    """Dependencies of all runs of this process: source, run store, clock, and limits on concurrent work.

    `limits` take the place of those of every layout.
    """

    def __init__(
        self,
        *,
        source: EventSource,
        run_store: RunStore,
        clock: Callable[[], datetime],
        limits: WindowLimits | None = None,
    ) -> None:
        self.source = source
        self.run_store = run_store
        self.clock = clock
        self.limits = limits
        self.uploads = FairShare(UPLOAD_BYTES, name="uploads", reserve=UPLOAD_RESERVE_BYTES, floor=UPLOAD_FLOOR_BYTES)
        self.builds = FairShare(BUILDS_AT_ONCE, name="builds", reserve=BUILDS_RESERVE)
        self.replays = FairShare(REPLAY_BUILDS_AT_ONCE, name="builds of replays")


class WindowWriter:
    """
    Writes the windows of one run, and counts them in its record.

    Raises, in every method:
        ClaimedElsewhereError: Another process works on this export.
        StopRequested: The service stops.
        RunCancelled: The run is cancelled.
        MillraceError: The destination or the stream failed, and the retry budget of the run is used up.
    """

    def __init__(
        self,
        dependencies: WriterDependencies,
        job: ExportJob,
        progress_store: ProgressStore,
        destination: Destination,
        record: RunRecord,
        retry_budget: RetryBudget,
    ) -> None:
        self._record = record
        self._dependencies = dependencies
        self._job = job
        self._progress_store = progress_store
        self._destination = destination
        self._retry_budget = retry_budget

    async def finish_planned(self) -> None:
        """Deliver the window that an earlier run planned and did not finish."""
        plan = self._progress_store.progress.window
        if plan is None:
            return
        if plan.location != self._job.location:
            # The destination was changed: the events are read again and delivered to the new one.
            await self._progress_store.change(lambda progress: replace(progress, window=None))
            return
        manifest = manifest_of(self._job, plan)
        if manifest:
            is_whole: bool = await self._retry_budget.run(partial(self._is_stored, manifest.planned))
            if is_whole:
                # Written after all files, which a loader may have taken away since.
                await self._settle(plan, {})
                return
        window = await self._build(plan.content, plan.first_sequence - 1, plan.last_sequence, planned=True)
        try:
            plan = await self._as_built(plan, window)
            await self._deliver(plan, window)
        finally:
            window.close()

    async def next_window(self, until: int, *, behind: bool) -> bool:
        """Deliver the events after the cursor, as one window. Returns False when all up to `until` are delivered."""
        after = self._progress_store.progress.cursor
        window = await self._build(self._job.content, after, until, behind=behind)
        try:
            if window.files:
                plan = self._plan(window)
                await self._store(plan)
                await self._deliver(plan, window)
            else:
                self._record.run = counted(self._record.run, rows_in=window.rows_in, rows_dropped=window.rows_dropped)
        finally:
            window.close()
        return window.full

    async def _build(
        self, content: Content, after: int, until: int, *, planned: bool = False, behind: bool = False
    ) -> WindowBuilder:
        """Build the window in (`after`, `until`]. One that is not planned yet ends at the limits."""
        layout, form = self._job.layout_of(content), self._job.format_of(content)
        name = f"{self._job.app_key} {self._job.export_id}"
        limits = None if planned else self._dependencies.limits or layout.limits

        async def write() -> WindowBuilder:
            window = WindowBuilder(name, layout, form, limits=limits, behind=behind)
            try:
                source = self._dependencies.source.open(
                    self._job.app_key, after=after, until=until, lane=self._job.lane
                )
                async with self._turn(), self._dependencies.builds.hold(self._job.app_key), source as events:
                    while not window.full and (messages := await events.next()):
                        self._retry_budget.signals.check()
                        await asyncio.to_thread(window.add, messages)
                await asyncio.to_thread(window.finish)
            except BaseException:
                window.close()
                raise
            return window

        return await self._retry_budget.run(write)

    def _turn(self) -> AbstractAsyncContextManager[None]:
        """The turn of a replay, which leaves builds to the exports."""
        return self._dependencies.replays.hold(self._job.app_key) if self._job.span else nullcontext()

    def _file_name(self, part: str, window: WindowBuilder, named_at: datetime) -> FileName:
        return FileName(
            part=part,
            named_at=named_at,
            queued_at=window.queued_at,
            first_sequence=window.first_sequence,
            last_sequence=window.last_sequence,
            lane=self._job.lane,
        )

    def _plan(self, window: WindowBuilder) -> WindowPlan:
        content = self._job.content
        named_at = name_at(self._dependencies.clock(), self._progress_store.progress.named_at)
        return WindowPlan(
            named_at=named_at,
            revision=self._job.revision,
            location=self._job.location,
            content=content,
            first_sequence=window.first_sequence,
            last_sequence=window.last_sequence,
            rows_in=window.rows_in,
            rows_dropped=window.rows_dropped,
            files=tuple(
                _planned(self._job.key(content, self._file_name(part, window, named_at)), part, file)
                for part, file in window.files.items()
            ),
        )

    async def _as_built(self, plan: WindowPlan, window: WindowBuilder) -> WindowPlan:
        """
        The plan, as the files can be built now.

        Events have expired since, or this release writes other bytes: then a file that is not stored yet is planned as
        it is now, and rows that are gone are counted.
        """
        files: list[PlannedFile] = []
        for planned in plan.files:
            built = window.files.get(planned.part)
            is_same = built is not None and built.sha256 == planned.sha256
            if is_same or await self._retry_budget.run(partial(self._is_stored, planned)):
                files.append(planned)
            elif built:
                files.append(_planned(planned.key, planned.part, built))
        if tuple(files) != plan.files:
            lost = max(0, plan.rows_out - sum(file.rows for file in files))
            plan = replace(plan, files=tuple(files), rows_in=plan.rows_in - lost, rows_dropped=plan.rows_dropped + lost)
            await self._store(plan)
        return plan

    async def _store(self, plan: WindowPlan) -> None:
        now = self._dependencies.clock()
        await self._progress_store.change(
            lambda progress: replace(renewed(progress, now), window=plan, named_at=plan.named_at)
        )

    async def _deliver(self, plan: WindowPlan, window: WindowBuilder) -> None:
        """Upload the files that are not stored yet, then their manifest, and settle the window."""
        content_type = self._job.format_of(plan.content).content_type
        etags: dict[str, str] = {}
        for place, planned in enumerate(plan.files):
            built = window.files.get(planned.part)
            if built is None or built.sha256 != planned.sha256:
                # It is stored already, and cannot be built any more.
                continue
            self._retry_budget.signals.check()
            for _ in range(NAMES_TRIED):
                etag = await self._upload(planned, built, content_type)
                if etag is not None:
                    etags[planned.key] = etag
                    break
                if not self._job.layout_of(plan.content).is_named_by_second:
                    raise _taken(planned.key)
                plan, planned = await self._renamed(plan, place, window)
            else:
                raise _taken(planned.key)
        manifest = manifest_of(self._job, plan)
        if manifest and await self._upload(manifest.planned, manifest, MANIFEST_TYPE) is None:
            raise _taken(manifest.planned.key)
        await self._settle(plan, etags)

    async def _settle(self, plan: WindowPlan, etags: Mapping[str, str]) -> None:
        """Record the stored files where the job does, then move the cursor."""
        if self._job.record is not None:
            await self._retry_budget.run(partial(self._job.record, self._job.lane, plan))
        await self._end(plan, etags)

    async def _renamed(self, plan: WindowPlan, place: int, window: WindowBuilder) -> tuple[WindowPlan, PlannedFile]:
        """The plan with the next free name for one file. Returns the plan, which is stored, and the file."""
        named_at = name_at(self._dependencies.clock(), self._progress_store.progress.named_at)
        planned = plan.files[place]
        key = self._job.key(plan.content, self._file_name(planned.part, window, named_at))
        planned = replace(planned, key=key)
        plan = replace(plan, named_at=named_at, files=(*plan.files[:place], planned, *plan.files[place + 1 :]))
        await self._store(plan)
        return plan, planned

    async def _upload(self, planned: PlannedFile, file: PartFile | ManifestObject, content_type: str) -> str | None:
        """
        Upload a file.

        Returns:
            The etag, empty where it is not known; None when the name belongs to another writer's object.
        """

        async def put() -> str | None:
            async with self._dependencies.uploads.hold(self._job.app_key, file.size_bytes):
                await self._progress_store.check_claim(self._dependencies.clock())
                try:
                    async with asyncio.timeout(UPLOAD_S):
                        data = await asyncio.to_thread(file.read)
                        return await self._destination.put(planned.key, data, content_type)
                except TimeoutError:
                    raise UnavailableError(f"the store did not accept the object within {UPLOAD_S:.0f} s") from None
                except ConflictError:
                    return "" if await self._is_stored(planned) else None

        return await self._retry_budget.run(put)

    async def _is_stored(self, planned: PlannedFile) -> bool:
        """Return whether the destination holds the planned object, from an earlier upload without a confirmation."""
        try:
            async with asyncio.timeout(UPLOAD_S):
                stored = await self._destination.read(planned.key, planned.size_bytes)
        except TimeoutError:
            raise UnavailableError(f"the store did not return the object within {UPLOAD_S:.0f} s") from None
        if stored is None:
            return False
        return (await asyncio.to_thread(hashlib.sha256, stored)).hexdigest() == planned.sha256

    async def _end(self, plan: WindowPlan, etags: Mapping[str, str]) -> None:
        """Record the delivered window, then remove the plan and move the cursor in one write."""
        # After a crash between the two writes the plan is found again, and the record holds its files already.
        self._record.run = with_window(self._record.run, plan, etags)
        if plan.files:
            await self._record.save()
        now = self._dependencies.clock()
        await self._progress_store.change(
            lambda progress: replace(renewed(progress, now), window=None, cursor=plan.last_sequence)
        )


def _planned(key: str, part: str, file: PartFile) -> PlannedFile:
    return PlannedFile(key=key, part=part, rows=file.rows, size_bytes=file.size_bytes, sha256=file.sha256)


def _taken(key: str) -> ConflictError:
    return ConflictError(f"another writer's object has the name {key}; give this export a directory of its own")
