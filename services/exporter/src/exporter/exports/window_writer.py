"""
The windows of a run. Each passes four steps: build its files, plan, upload, move the cursor.

A window is delivered exactly once. Its plan is stored before the first upload, objects are created and never
overwritten, and one write removes the plan and moves the cursor. After a crash in between the plan exists: the next run
uploads the same objects again, or finds them uploaded.

One file, because the steps of a window share its plan, the run's record and the destination.
"""

import asyncio
import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, contextmanager, nullcontext
from datetime import datetime
from functools import partial

import structlog
from msgspec.structs import replace

from exporter.exports.job import ExportJob
from exporter.exports.manifests import CONTENT_TYPE as MANIFEST_TYPE
from exporter.exports.manifests import ManifestObject, manifest_of
from exporter.exports.progress import PlannedFile, WindowPlan, name_at, renewed, with_files
from exporter.exports.progress_store import ProgressStore
from exporter.exports.retry_budget import RetryBudget
from exporter.exports.run_store import RunStore, counted, with_window
from exporter.exports.runs.run_record import RunRecord
from exporter.exports.watching.probe import probe
from exporter.pipeline.content import Content
from exporter.pipeline.ports import Destination, FileName, WindowLimits
from exporter.pipeline.source import EventSource
from exporter.pipeline.window_builder import PartFile, WindowBuilder
from shared.errors import ConflictError, DeniedError, MillraceError, UnavailableError
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
MOST_VERSIONS = 8
"""Versions of one file to remember. Then no more is dropped from its window."""
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

    `destination_error` is the last error of the destination, and `has_delivered` says that it has taken a file.

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
        self.destination_error: MillraceError | None = None
        self.has_delivered = False
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
        if manifest and await self._if_stored(manifest.planned):
            # Written after all files, which a loader may have taken away since.
            await self._settle(plan, {})
            return
        trimmed_to = self._trimmed_to(plan)
        if trimmed_to > plan.trimmed_to:
            # Only a store that takes something gets another version of the files: each one has to be remembered.
            with self._asks_destination():
                await probe(self._destination, self._job.directory)
            plan = replace(plan, trimmed_to=trimmed_to)
        after = max(plan.first_sequence - 1, trimmed_to)
        window = await self._build(plan.content, after, plan.last_sequence, planned=True)
        try:
            plan = await self._as_built(plan, window)
            await self._deliver(plan, window)
        finally:
            window.close()

    async def next_window(self, until: int, *, behind: bool) -> bool:
        """Deliver the events after the cursor, as one window. Returns False when all up to `until` are delivered."""
        after = self._progress_store.progress.passed
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

    def _trimmed_to(self, plan: WindowPlan) -> int:
        """The sequence up to which events of the plan are dropped when its files are built now."""
        dropped_until = min(self._progress_store.progress.dropped_until, plan.last_sequence)
        if dropped_until < plan.first_sequence or any(len(file.before) >= MOST_VERSIONS for file in plan.files):
            return plan.trimmed_to
        return max(plan.trimmed_to, dropped_until)

    async def _as_built(self, plan: WindowPlan, window: WindowBuilder) -> WindowPlan:
        """
        The plan, as the files can be built now.

        Events have expired or were dropped since, or this release writes other bytes: then a file is planned as it is
        now, and what it was is remembered, since it may be stored.
        """
        files: list[PlannedFile] = []
        for planned in plan.files:
            built = window.files.get(planned.part)
            if built is None:
                files += await self._if_stored(planned)
            elif built.sha256 == planned.sha256:
                files.append(planned)
            else:
                before = (*planned.before, planned.version)
                files.append(replace(_planned(planned.key, planned.part, built), before=before))
        if tuple(files) != plan.files:
            plan = with_files(plan, files)
            await self._store(plan)
        return plan

    async def _if_stored(self, planned: PlannedFile) -> tuple[PlannedFile, ...]:
        """The file in the version that is stored, whose events are gone; none where it is not, or nobody may say."""

        async def find() -> PlannedFile | None:
            with self._asks_destination():
                return await self._stored_version(planned)

        try:
            stored = await self._retry_budget.run(find)
        except DeniedError:
            # S3 does not say that a key is missing to one who may not list the bucket, and an export need not.
            stored = None
        return (stored,) if stored is not None else ()

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
                uploaded = await self._upload(planned, built, content_type)
                if uploaded is not None:
                    stored, etags[planned.key] = uploaded
                    if stored.sha256 != planned.sha256:
                        plan = with_files(plan, [*plan.files[:place], stored, *plan.files[place + 1 :]])
                        await self._store(plan)
                    break
                if not self._job.layout_of(plan.content).is_named_by_second:
                    raise self._taken(planned.key)
                plan, planned = await self._renamed(plan, place, window)
            else:
                raise self._taken(planned.key)
        manifest = manifest_of(self._job, plan)
        if manifest and await self._upload(manifest.planned, manifest, MANIFEST_TYPE) is None:
            raise self._taken(manifest.planned.key)
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
        planned = replace(planned, key=key, before=())
        plan = replace(plan, named_at=named_at, files=(*plan.files[:place], planned, *plan.files[place + 1 :]))
        await self._store(plan)
        return plan, planned

    async def _upload(
        self, planned: PlannedFile, file: PartFile | ManifestObject, content_type: str
    ) -> tuple[PlannedFile, str] | None:
        """
        Upload a file.

        Returns:
            The file in the version that is stored, and its etag, empty where it is not known; None when the name
            belongs to another writer's object.
        """

        async def put() -> tuple[PlannedFile, str] | None:
            async with self._dependencies.uploads.hold(self._job.app_key, file.size_bytes):
                await self._progress_store.check_claim(self._dependencies.clock())
                data = await asyncio.to_thread(file.read)
                with self._asks_destination():
                    try:
                        async with asyncio.timeout(UPLOAD_S):
                            return planned, await self._destination.put(planned.key, data, content_type)
                    except TimeoutError:
                        message = f"the store did not accept the object within {UPLOAD_S:.0f} s"
                        raise UnavailableError(message) from None
                    except ConflictError:
                        stored = await self._stored_version(planned)
                        return (stored, "") if stored is not None else None

        return await self._retry_budget.run(put)

    async def _stored_version(self, planned: PlannedFile) -> PlannedFile | None:
        """The version of a file that the destination holds, from an earlier upload without a confirmation."""
        for version in (planned.version, *planned.before):
            try:
                async with asyncio.timeout(UPLOAD_S):
                    stored = await self._destination.read(planned.key, version.size_bytes)
            except TimeoutError:
                raise UnavailableError(f"the store did not return the object within {UPLOAD_S:.0f} s") from None
            if stored is None:
                continue
            if (await asyncio.to_thread(hashlib.sha256, stored)).hexdigest() == version.sha256:
                return replace(
                    planned, rows=version.rows, size_bytes=version.size_bytes, sha256=version.sha256, before=()
                )
        return None

    @contextmanager
    def _asks_destination(self) -> Iterator[None]:
        """Note an error as the destination's."""
        try:
            yield
        except MillraceError as error:
            self.destination_error = error
            raise

    def _taken(self, key: str) -> ConflictError:
        message = f"another writer's object has the name {key}; give this export a directory of its own"
        self.destination_error = error = ConflictError(message)
        return error

    async def _end(self, plan: WindowPlan, etags: Mapping[str, str]) -> None:
        """Record the delivered window, then remove the plan and move the cursor in one write."""
        # After a crash between the two writes the plan is found again, and the record holds its files already.
        self._record.run = with_window(self._record.run, plan, etags)
        if plan.files:
            self.has_delivered = True
            await self._record.save()
        now = self._dependencies.clock()
        await self._progress_store.change(
            lambda progress: replace(renewed(progress, now), window=None, cursor=plan.last_sequence)
        )


def _planned(key: str, part: str, file: PartFile) -> PlannedFile:
    return PlannedFile(key=key, part=part, rows=file.rows, size_bytes=file.size_bytes, sha256=file.sha256)
