"""
Store of uploaded files under opaque ids, and every step of their lives. Replicas share the directory.

A customer's file name is a key in memory and a word in an info file. It never reaches the operating system. A claim is
a step of the info file, so the name is free again at once and no client ever writes into a claimed file. `OK` to a
client means durable: the bytes are synced when a file is closed, the info file when its state changes.

Writing, renaming, removing and processing hold the lock of the bytes, so one replica at a time does it; the lock ends
with its process. A second lock, one an app, lets one replica at a time process the files of an app.

Everything runs in the event loop. Waits for the disk run in a thread while the upload is marked `busy`.

One file, because it holds every step of one state machine; disk, index and locks lie in the modules below it.
"""

import asyncio
import os
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import structlog
from msgspec import structs

from ftp_gateway.model.outcome import FileOutcome
from ftp_gateway.model.rules import FileRules
from ftp_gateway.model.virtual_paths import Folder, Place, kind_of
from ftp_gateway.spool.directories import SpoolDirectories
from ftp_gateway.spool.directory_index import DirectoryIndex
from ftp_gateway.spool.file_locks import try_lock, try_lock_path
from ftp_gateway.spool.report_files import ErrorReportFiles
from ftp_gateway.spool.upload import Upload, Writer
from ftp_gateway.spool.upload_info import CompletionProof, InfoFileName, UploadInfo, sync_directory
from shared.errors import BusyError, ConflictError, DeniedError

log = structlog.get_logger()

MAX_WAITING_FILES = 1000
"""Limit of one app, not counting reports: a script that never renames must not fill the disk with names."""
MIN_FREE_BYTES = 64 << 20
CLOCK_S = 0.001
"""Precision that a modification time may lose in the file system."""


class Spool:
    """
    Files of every app, in one directory with two folders an app: `<app>/files` and `<app>/reports`.

    Args:
        directory: Made if missing. On one disk, or on a file system that replicas share and that has locks.
        clock: Aware UTC.
    """

    def __init__(self, directory: Path, clock: Callable[[], datetime]) -> None:
        self._directories = SpoolDirectories(directory)
        self._clock = clock
        self.reports = ErrorReportFiles(self._directories, clock)
        """Error reports and result files for customers."""
        self.changed = asyncio.Event()
        """Set whenever a file may have become due."""
        self.scan()

    def scan(self) -> None:
        """Notice the changes of other replicas, in every app."""
        for _ in self.scan_steps():
            pass

    def scan_steps(self, app_key: str | None = None) -> Iterator[None]:
        """Scan one app or all, in short steps."""
        return self._directories.scan(self.app_keys() if app_key is None else [app_key])

    def app_keys(self) -> list[str]:
        """Return the apps that have, or had, files."""
        return self._directories.app_keys()

    def find(self, place: Place) -> Upload | None:
        """Return the file that a customer sees under a name: the newest of that name."""
        return self._newest(self._directories.uploads_at(place))

    def entries(self, app_key: str, folder: Folder) -> Iterator[Upload]:
        """Yield the files that a customer sees in a folder, of the names that are there now."""
        index = self._directories.index(app_key, folder)
        index.scan()
        # A generator of its own, because the scan is for the caller and the rest for whoever reads on.
        return self._visible(index, [place for place in index.places() if place.folder == folder])

    def _visible(self, index: DirectoryIndex, places: list[Place]) -> Iterator[Upload]:
        for place in places:
            newest = self._newest(index.uploads_at(place))
            if newest is not None and not index.refresh(newest).deleted:
                yield newest

    def uploads(self, app_key: str | None = None) -> list[Upload]:
        """Return every waiting file of one app or all, ordered by when it was closed, as of the last scan."""
        return sorted(self.waiting(app_key), key=lambda upload: upload.info.closed_at or upload.info.opened_at)

    def waiting(self, app_key: str | None = None) -> Iterator[Upload]:
        """Yield the same files, unordered."""
        return (upload for upload in self._directories.files(app_key) if upload.waiting)

    def _newest(self, uploads: list[Upload]) -> Upload | None:
        now = self._clock()
        return next((upload for upload in uploads if upload.is_visible(now)), None)

    def create(self, place: Place, user: str, session: object = None) -> Writer:
        """
        Begin a file. One of the same name that is not claimed yet is replaced.

        Raises:
            BusyError: Too many files of the app wait, or the disk is nearly full.
        """
        self._check_capacity(place.app_key)
        now = self._clock()
        info_name = InfoFileName(uuid.uuid4().hex, 1, "open")
        info = UploadInfo(app_key=place.app_key, folder=place.folder, name=place.name, user=user, opened_at=now)
        index = self._directories.index(place.app_key, place.folder)
        upload = Upload(info_name, info, size_bytes=0, changed_at=now)
        upload.interrupted = False
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        upload.handle = os.open(index.path(upload.id), flags, 0o600)
        try:
            try_lock(upload.handle)
            index.write_info(info_name, info, before=None, durable=False)
            index.add(upload)
            for earlier in self._directories.uploads_at(place):
                if earlier.changeable and earlier is not upload:
                    self._replace(earlier)
        except BaseException:
            index.delete(upload)
            upload.release()
            raise
        return self._writer(upload, session)

    def reopen(self, upload: Upload, session: object = None) -> Writer:
        """
        Continue writing to a file that is not claimed yet. Handles of another session on it become void.

        Raises:
            BusyError: Another replica is writing to it.
            ConflictError: It is being processed.
        """
        if not upload.changeable:
            raise ConflictError("the file is being processed and takes no more bytes")
        if upload.busy:
            raise BusyError("the file is being changed by another session")
        if upload.handle is None:
            upload.handle = self._directories.open_locked(upload)
        try:
            if upload.state == "closed":
                index, info_name = self._directories.index_of(upload), upload.info_name.next("open")
                index.write_info(info_name, upload.info, before=upload.info_name, durable=False)
                index.apply_step(upload, info_name, upload.info)
        except BaseException:
            if not upload.writers:
                upload.release()
            raise
        upload.interrupted = False
        upload.partial_published = False
        return self._writer(upload, session)

    def open_bytes(self, upload: Upload) -> int:
        """Return a handle for reading. Raises `FileNotFoundError` when the file was deleted."""
        return os.open(self._directories.index_of(upload).path(upload.id), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)

    async def rename(self, upload: Upload, to: Place, *, replace: bool) -> None:
        """
        Rename a closed file. A name that is processed commits it: it need not settle.

        Raises:
            ConflictError: It is open, broken off or being processed, or the name exists and `replace` is false.
        """
        if not upload.changeable:
            raise ConflictError("the file is being processed")
        if upload.state != "closed":
            raise ConflictError(
                "the upload broke off; resume it first" if upload.interrupted else "the file is still open"
            )
        there = [other for other in self._directories.uploads_at(to) if other.changeable and other is not upload]
        if there and not replace:
            raise ConflictError("there is a file of this name")
        if any(other.busy for other in there):
            raise BusyError("a file of this name is being changed")
        with self._directories.locked(upload):
            # Before and not after: a crash in between must not leave two files to be processed.
            for other in there:
                self._replace(other)
            self._restart_settling(upload)
            info = structs.replace(
                upload.info,
                folder=to.folder,
                name=to.name,
                renamed_at=self._clock(),
                committed=kind_of(to) is not None,
            )
            await self._directories.write_step(upload, "closed", info)
        self.changed.set()

    async def cancel(self, upload: Upload) -> None:
        """Remove a file that is not claimed yet. Raises `DeniedError` for one that is being processed."""
        if not upload.changeable:
            raise DeniedError("the file is being processed")
        with self._directories.locked(upload):
            self._directories.index_of(upload).delete(upload)
            await asyncio.to_thread(sync_directory, self._directories.index_of(upload).directory)

    def touch(self, upload: Upload) -> None:
        """Restart the settling of a file whose client sets its times, which shows that it is still in use."""
        if upload.state == "closed" and not upload.info.committed:
            with suppress(FileNotFoundError):
                self._restart_settling(upload)

    def try_lock_app(self, app_key: str) -> int | None:
        """
        Take the lock for processing files of an app, and notice what other replicas did before.

        Returns:
            A handle that holds the lock until it is closed; None while another replica has it.
        """
        handle = try_lock_path(self._directories.directory / app_key / "turn")
        if handle is not None:
            self._directories.index(app_key, "").scan()
        return handle

    def claim(self, upload: Upload) -> None:
        """
        Close a file to its customer, until `release`. `store_claim` follows and makes the claim durable.

        Raises:
            BusyError: A customer is changing it at this moment.
            ConflictError: It was changed elsewhere a moment ago, and settles anew.
        """
        handle = self._directories.open_locked(upload)
        if upload.state == "closed" and not upload.info.committed:
            changed_at = os.fstat(handle).st_mtime
            if changed_at > upload.changed_at.timestamp() + CLOCK_S:
                os.close(handle)
                upload.changed_at = datetime.fromtimestamp(changed_at, UTC)
                raise ConflictError("the file settles anew")
        upload.handle = handle
        if upload.state == "closed":
            upload.state = "claimed"

    async def store_claim(self, upload: Upload, rules: FileRules, proof: CompletionProof) -> None:
        """Make the claim durable, with the rules by which the file is read from now on."""
        await self._directories.write_step(upload, "claimed", structs.replace(upload.info, rules=rules, proof=proof))

    def release(self, upload: Upload) -> None:
        """End the processing of a file at any step. The next run goes on from the step on disk."""
        upload.state = upload.info_name.state
        upload.release()

    async def mark_reported(self, upload: Upload, outcome: FileOutcome, told_after: int) -> None:
        """Record that all rows are published and the reports are written."""
        info = structs.replace(upload.info, outcome=outcome, told_after=told_after)
        await self._directories.write_step(upload, "reported", info)

    async def finish(self, upload: Upload, visible_until: datetime) -> None:
        """Remove the bytes. The name stays visible until then, because clients look once more after an upload."""
        index = self._directories.index_of(upload)
        if visible_until > self._clock():
            info = structs.replace(upload.info, size_bytes=upload.size_bytes, visible_until=visible_until)
            await self._directories.write_step(upload, "done", info)
            index.path(upload.id).unlink(missing_ok=True)
        else:
            index.delete(upload)
        upload.release()
        await asyncio.to_thread(sync_directory, index.directory)

    async def finish_companion(self, app_key: str, upload_id: str, visible_until: datetime) -> None:
        """Finish the marker or checksum of a file, if it still exists, so that it counts for no other file."""
        upload = self._directories.index(app_key, "").uploads.get(upload_id)
        if upload is not None and upload.state == "done":
            await self.finish(upload, visible_until)
        elif upload is not None and upload.changeable:
            with self._directories.locked(upload):
                await self.finish(upload, visible_until)

    def read_ends(self, upload: Upload, size: int) -> tuple[bytes, bytes, int]:
        """Return the first and the last `size` bytes of a file, and its whole size."""
        with os.fdopen(self.open_bytes(upload), "rb", buffering=0) as file:
            size_bytes = os.fstat(file.fileno()).st_size
            head, tail = (os.pread(file.fileno(), size, at) for at in (0, max(0, size_bytes - size)))
        return head, tail, size_bytes

    def path(self, upload: Upload) -> Path:
        """Return the path of the bytes, for the process that parses them."""
        return self._directories.index_of(upload).path(upload.id)

    def purge(self) -> None:
        """Remove abandoned uploads, old reports, names that were visible long enough, and leftovers of crashes."""
        for _ in self.purge_steps():
            pass

    def purge_steps(self) -> Iterator[None]:
        """Purge in short steps."""
        return self._directories.purge(self._clock())

    async def _close(self, upload: Upload) -> None:
        # The last writer has closed, and its bytes are durable.
        if upload.deleted:
            return
        now = self._clock()
        with self._directories.locked(upload):
            await self._directories.write_step(
                upload, "closed", structs.replace(upload.info, closed_at=now, committed=False)
            )
        upload.changed_at = now
        self.changed.set()

    def _writer(self, upload: Upload, session: object) -> Writer:
        if upload.session is not session:
            upload.session = session
            upload.writers = 0
        return Writer(upload, clock=self._clock, on_commit=self._close, on_abandon=self.changed.set)

    def _replace(self, earlier: Upload) -> None:
        """Remove a file whose name another one takes. An open one needs no lock: no replica claims it."""
        try:
            if earlier.state == "open":
                self._directories.index_of(earlier).delete(earlier)
            else:
                with self._directories.locked(earlier):
                    self._directories.index_of(earlier).delete(earlier)
        except (BusyError, ConflictError):
            self._directories.index_of(earlier).scan()
            if earlier.changeable:
                raise

    def _restart_settling(self, upload: Upload) -> None:
        upload.changed_at = self._clock()
        at = upload.changed_at.timestamp()
        os.utime(self._directories.index_of(upload).path(upload.id), (at, at))

    def _check_capacity(self, app_key: str) -> None:
        if sum(1 for _ in self.waiting(app_key)) >= MAX_WAITING_FILES:
            raise BusyError(f"{MAX_WAITING_FILES} files of the app are waiting; remove some, or let them be processed")
        free = os.statvfs(self._directories.directory)
        if free.f_bavail * free.f_frsize < MIN_FREE_BYTES:
            log.error("disk_limit_reached", app_key=app_key, free_bytes=free.f_bavail * free.f_frsize)
            raise BusyError("the disk is nearly full", retry_after_s=60)
