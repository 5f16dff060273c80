"""
Directories of the spool, two an app, and the steps of an upload in them. A step is taken with the lock of its bytes.

    <app>/files      uploads of customers
    <app>/reports    reports and result files for them
    <app>/turn       locked by the replica that processes files of the app
    .replicas/<id>   mark of a replica, moved on after each step
"""

import asyncio
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta
from pathlib import Path

from ftp_gateway.model.virtual_paths import WRITABLE, Folder, Place
from ftp_gateway.spool.change_marks import ChangeMarks
from ftp_gateway.spool.directory_index import DirectoryIndex
from ftp_gateway.spool.file_locks import try_lock
from ftp_gateway.spool.upload import Upload
from ftp_gateway.spool.upload_info import State, UploadInfo
from shared.contracts.subjects import APP_KEY
from shared.errors import BusyError, ConflictError

ABANDONED_AFTER = timedelta(hours=24)
"""Age until which an upload that is no candidate is kept: one that broke off, or one under a temporary name."""
REPORTS_KEPT = timedelta(days=21)
SWEPT_AFTER = timedelta(hours=1)
"""Age from which leftovers of a crash are removed. A younger file may be a step that another replica is taking."""


class SpoolDirectories:
    """
    Indexes of the directories of every app.

    Args:
        directory: Made if missing. On one disk, or on a file system that replicas share and that has locks.
    """

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.directory = directory
        self._change_marks = ChangeMarks(directory / ".replicas")
        self._files: dict[str, DirectoryIndex] = {}
        self._reports: dict[str, DirectoryIndex] = {}

    def app_keys(self) -> list[str]:
        """Return the apps that have a directory."""
        return [path.name for path in self.directory.iterdir() if APP_KEY.fullmatch(path.name)]

    def scan(self, app_keys: Iterable[str]) -> Iterator[None]:
        """Notice the changes of other replicas in these apps, in short steps."""
        for app_key in app_keys:
            self.index(app_key, "errors").scan()
            yield
            files = self.index(app_key, "")
            files.scan()
            yield
            for upload in list(files.uploads.values()):
                files.refresh(upload)
                yield

    def files(self, app_key: str | None) -> Iterator[Upload]:
        """Yield the uploads of one app or all, unordered, as of the last scan."""
        directories = self._files.values() if app_key is None else (self.index(app_key, ""),)
        return (upload for index in directories for upload in index.uploads.values())

    def index(self, app_key: str, folder: Folder) -> DirectoryIndex:
        """Return the index of a folder."""
        directories, name = (self._files, "files") if folder in WRITABLE else (self._reports, "reports")
        if app_key not in directories:
            directories[app_key] = DirectoryIndex(self.directory / app_key / name, self._change_marks)
            directories[app_key].scan()
        return directories[app_key]

    def index_of(self, upload: Upload) -> DirectoryIndex:
        """Return the index that lists an upload."""
        return self.index(upload.info.app_key, upload.info.folder)

    def uploads_at(self, place: Place) -> list[Upload]:
        """Return the uploads of one name as they are now, the latest first."""
        index = self.index(place.app_key, place.folder)
        index.scan()
        return [index.refresh(upload) for upload in index.uploads_at(place)]

    @contextmanager
    def locked(self, upload: Upload) -> Iterator[None]:
        """
        Hold the lock of an upload for the length of the block.

        Raises:
            BusyError: Another session or replica is changing it.
            ConflictError: It was changed or removed since this replica read it.
        """
        if upload.busy:
            raise BusyError("the file is being changed by another session")
        opened_here = upload.handle is None
        if opened_here:
            upload.handle = self.open_locked(upload)
        upload.busy = True
        try:
            yield
        finally:
            upload.busy = False
            if opened_here:
                upload.release()

    def open_locked(self, upload: Upload) -> int:
        """Return a handle on the bytes of an upload, with their lock. Raises as `locked` does."""
        index = self.index_of(upload)
        try:
            handle = os.open(index.path(upload.id), os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            index.forget(upload)
            raise ConflictError("the file has been removed") from None
        try:
            if not try_lock(handle):
                raise BusyError("the file is being changed by another session")
            if not index.info_path(upload.info_name).exists():
                raise ConflictError("the file has been changed by another session")
        except BaseException:
            os.close(handle)
            raise
        return handle

    async def write_step(self, upload: Upload, state: State, info: UploadInfo) -> None:
        """Take the next step of an upload whose lock is held. It is durable when this returns."""
        index, info_name = self.index_of(upload), upload.info_name.next(state)
        await asyncio.to_thread(index.write_info, info_name, info, before=upload.info_name, durable=True)
        if upload.deleted:
            # Replaced or cancelled while the disk was busy: the step just written must not come back.
            index.delete_info(info_name)
        else:
            index.apply_step(upload, info_name, info)

    def purge(self, now: datetime) -> Iterator[None]:
        """
        Remove abandoned uploads, old reports, names that were visible long enough, and leftovers of crashes, in short
        steps.
        """
        yield from self.scan(self.app_keys())
        for index in (*self._files.values(), *self._reports.values()):
            for upload in list(index.uploads.values()):
                yield
                age = now - index.refresh(upload).changed_at
                if upload.deleted:
                    continue
                if upload.state == "done":
                    if not upload.is_visible(now) and not upload.busy:
                        index.delete(upload)
                elif upload.state == "report":
                    if age > REPORTS_KEPT:
                        index.delete(upload)
                elif upload.idle and not upload.unfinished and age > ABANDONED_AFTER:
                    with suppress(BusyError, ConflictError), self.locked(upload):
                        index.delete(upload)
            index.sweep(now - SWEPT_AFTER)
        self._change_marks.sweep(now - ABANDONED_AFTER)
