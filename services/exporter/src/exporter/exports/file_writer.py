"""
The files of a run. Each passes four steps: build, plan, upload, move the cursor.

A file is delivered exactly once. Its plan is stored before the upload, the object is created and never overwritten, and
one write removes the plan and moves the cursor. After a crash in between the plan exists: the next run uploads the same
object again, or finds it uploaded.
"""

import asyncio
import hashlib
from collections.abc import Callable
from datetime import datetime

import structlog
from msgspec.structs import replace

from exporter.exports.job import ExportJob
from exporter.exports.progress import FilePlan, name_at, needs_renewal, renewed
from exporter.exports.progress_store import ProgressStore
from exporter.exports.retry_budget import RetryBudget
from exporter.exports.run_store import Run, RunStore, counted, with_file
from exporter.pipeline.file_builder import ExportFileBuilder, FileLimits
from exporter.pipeline.ports import Destination
from exporter.pipeline.selection import EventSelection
from exporter.pipeline.source import EventSource
from shared.errors import ConflictError, UnavailableError
from shared.runtime.fair_share import FairShare

log = structlog.get_logger()

BUILDS_AT_ONCE = 4
BUILDS_RESERVE = 2
"""
Files built concurrently, and further ones of apps that have none. Building reads only our own stream, so no customer's
bucket can block a slot.
"""
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


class FileWriterDependencies:
    """Dependencies of all runs of this process: source, run store, clock, and the limits on concurrent work."""

    def __init__(
        self,
        *,
        source: EventSource,
        run_store: RunStore,
        clock: Callable[[], datetime],
        limits: FileLimits | None = None,
    ) -> None:
        self.source = source
        self.run_store = run_store
        self.clock = clock
        self.limits = limits or FileLimits()
        self.uploads = FairShare(UPLOAD_BYTES, name="uploads", reserve=UPLOAD_RESERVE_BYTES, floor=UPLOAD_FLOOR_BYTES)
        self.builds = FairShare(BUILDS_AT_ONCE, name="builds", reserve=BUILDS_RESERVE)


class FileWriter:
    """
    Writes the files of one run. `run` is its record so far; it is in the run store from the first file on.

    Raises, in every method:
        ClaimedElsewhereError: Another process works on this export.
        StopRequested: The service stops.
        MillraceError: The destination or the stream failed, and the retry budget of the run is used up.
    """

    def __init__(
        self,
        dependencies: FileWriterDependencies,
        job: ExportJob,
        progress_store: ProgressStore,
        destination: Destination,
        run: Run,
        retry_budget: RetryBudget,
    ) -> None:
        self.run = run
        self._dependencies = dependencies
        self._job = job
        self._progress_store = progress_store
        self._destination = destination
        self._retry_budget = retry_budget

    async def finish_planned(self) -> None:
        """Deliver the file that an earlier run planned and did not finish."""
        plan = self._progress_store.progress.plan
        if plan is None:
            return
        if plan.location != self._job.location:
            # The destination was changed: the events are read again and delivered to the new one.
            await self._progress_store.change(lambda progress: replace(progress, plan=None))
            return
        file = await self._build(plan.selection, plan.first_sequence - 1, plan.last_sequence, None)
        try:
            if file.sha256 == plan.sha256:
                await self._deliver(plan, file)
            elif await self._retry_budget.run(lambda: self._is_ours(plan)):
                await self._end(plan)
            elif file.rows_out:
                # Events have expired, or this release writes other bytes: the plan no longer holds.
                await self._deliver(await self._plan(file, plan), file)
            else:
                self.run = counted(self.run, rows_dropped=plan.rows_out)
                await self._progress_store.change(
                    lambda progress: replace(progress, plan=None, cursor=plan.last_sequence)
                )
        finally:
            file.close()

    async def next_file(self, until: int) -> bool:
        """Deliver the events after the cursor, as one file. Returns False when all up to `until` are delivered."""
        after = self._progress_store.progress.cursor
        file = await self._build(self._job.selection, after, until, self._dependencies.limits)
        try:
            if file.rows_out:
                await self._deliver(await self._plan(file, None), file)
            else:
                self.run = counted(self.run, rows_in=file.rows_in, rows_dropped=file.rows_dropped)
        finally:
            file.close()
        return file.full

    async def _build(
        self, selection: EventSelection, after: int, until: int, limits: FileLimits | None
    ) -> ExportFileBuilder:
        """Build a file of the selected events in (`after`, `until`], up to the limits."""

        async def write() -> ExportFileBuilder:
            await self._renew()
            file = ExportFileBuilder(
                self._job.app_key, selection, self._job.layout(selection.data), self._job.open_encoder, limits
            )
            try:
                source = self._dependencies.source.open(self._job.app_key, after=after, until=until)
                async with self._dependencies.builds.hold(self._job.app_key), source as events:
                    while not file.full and (messages := await events.next()):
                        await asyncio.to_thread(file.add, messages)
                await asyncio.to_thread(file.finish)
            except BaseException:
                file.close()
                raise
            return file

        return await self._retry_budget.run(write)

    async def _plan(self, file: ExportFileBuilder, outdated: FilePlan | None) -> FilePlan:
        """Store the plan of a file. `outdated` is the plan that it replaces, whose file cannot be built again."""
        at = name_at(self._dependencies.clock(), self._progress_store.progress.named_at)
        plan = FilePlan(
            key=self._job.key(at),
            named_at=at,
            revision=self._job.revision,
            location=self._job.location,
            selection=outdated.selection if outdated else self._job.selection,
            first_sequence=file.first_sequence,
            last_sequence=outdated.last_sequence if outdated else file.last_sequence,
            rows_in=file.rows_in,
            rows_out=file.rows_out,
            rows_dropped=file.rows_dropped + (max(0, outdated.rows_out - file.rows_out) if outdated else 0),
            size_bytes=file.size_bytes,
            sha256=file.sha256,
        )
        await self._store(plan)
        return plan

    async def _store(self, plan: FilePlan) -> None:
        now = self._dependencies.clock()
        await self._progress_store.change(
            lambda progress: replace(renewed(progress, now), plan=plan, named_at=plan.named_at)
        )

    async def _deliver(self, plan: FilePlan, file: ExportFileBuilder) -> None:
        """Upload the file under the next free name, then move the cursor."""
        for _ in range(NAMES_TRIED):
            if await self._upload(plan, file):
                await self._end(plan)
                return
            at = name_at(self._dependencies.clock(), self._progress_store.progress.named_at)
            plan = replace(plan, key=self._job.key(at), named_at=at)
            await self._store(plan)
        raise ConflictError("other objects have the names of this export's files; give it a directory of its own")

    async def _upload(self, plan: FilePlan, file: ExportFileBuilder) -> bool:
        """Upload a file. Returns False when the name belongs to another writer's object."""

        async def put() -> bool:
            await self._renew()
            async with self._dependencies.uploads.hold(self._job.app_key, file.size_bytes):
                try:
                    async with asyncio.timeout(UPLOAD_S):
                        await self._destination.put(plan.key, await asyncio.to_thread(file.read))
                except TimeoutError:
                    raise UnavailableError(f"the store did not accept the object within {UPLOAD_S:.0f} s") from None
                except ConflictError:
                    return await self._is_ours(plan)
            return True

        return await self._retry_budget.run(put)

    async def _is_ours(self, plan: FilePlan) -> bool:
        """Return whether the destination holds the planned object, from an earlier upload without a confirmation."""
        try:
            async with asyncio.timeout(UPLOAD_S):
                stored = await self._destination.read(plan.key, plan.size_bytes)
        except TimeoutError:
            raise UnavailableError(f"the store did not return the object within {UPLOAD_S:.0f} s") from None
        return stored is not None and (await asyncio.to_thread(hashlib.sha256, stored)).hexdigest() == plan.sha256

    async def _end(self, plan: FilePlan) -> None:
        """Record the uploaded file, then remove the plan and move the cursor in one write."""
        # After a crash between the two writes the plan is found again, and the record holds its file already.
        self.run = with_file(self.run, plan)
        await self._dependencies.run_store.put(self.run)
        now = self._dependencies.clock()
        await self._progress_store.change(
            lambda progress: replace(renewed(progress, now), plan=None, cursor=plan.last_sequence)
        )

    async def _renew(self) -> None:
        """Renew the claim when half of its lease is over."""
        now = self._dependencies.clock()
        if needs_renewal(self._progress_store.progress, now):
            await self._progress_store.change(lambda progress: renewed(progress, now))
