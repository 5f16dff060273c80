"""
The directories of the spool, two an app, and how a step of an upload is taken in them: with the lock of its bytes.

    <app>/files      what customers upload
    <app>/reports    what they get back
    <app>/turn       locked by the replica that processes files of the app
    .replicas/<id>   moved on by a replica after each step
"""

import asyncio
import os
from collections.abc import Iterator
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
"""How long bytes wait that are no candidate: broken off, or under a temporary name."""
REPORTS_KEPT = timedelta(days=21)
SWEPT_AFTER = timedelta(hours=1)
"""The age of what a crash has left. Younger, it may be a step that another replica is about to take."""


class SpoolDirectories:
    """
    The uploads of every app.

    Args:
        directory: Made if missing. On one disk, or on a file system that replicas share and that has locks.
    """

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.directory = directory
        self._change_marks = ChangeMarks(directory / ".replicas")
        self._files: dict[str, DirectoryIndex] = {}
        self._reports: dict[str, DirectoryIndex] = {}

    def scan(self) -> None:
        """See what other replicas have done, in every app."""
        for path in self.directory.iterdir():
            app_key = path.name
            if APP_KEY.fullmatch(app_key):
                self.index(app_key, "errors").scan()
                files = self.index(app_key, "")
                files.scan()
                for upload in list(files.uploads.values()):
                    files.refresh(upload)

    def files(self, app_key: str | None) -> Iterator[Upload]:
        """What customers of one app or all have uploaded, in no order, as of the last look."""
        directories = self._files.values() if app_key is None else (self.index(app_key, ""),)
        return (upload for index in directories for upload in index.uploads.values())

    def index(self, app_key: str, folder: Folder) -> DirectoryIndex:
        """The index of a folder."""
        directories, name = (self._files, "files") if folder in WRITABLE else (self._reports, "reports")
        if app_key not in directories:
            directories[app_key] = DirectoryIndex(self.directory / app_key / name, self._change_marks)
            directories[app_key].scan()
        return directories[app_key]

    def index_of(self, upload: Upload) -> DirectoryIndex:
        """The index that lists an upload."""
        return self.index(upload.info.app_key, upload.info.folder)

    def uploads_at(self, place: Place) -> list[Upload]:
        """Those of one name, the latest first, as they are now."""
        index = self.index(place.app_key, place.folder)
        index.scan()
        return [index.refresh(upload) for upload in index.uploads_at(place)]

    @contextmanager
    def locked(self, upload: Upload) -> Iterator[None]:
        """
        Alone with an upload, for as long as the block.

        Raises:
            BusyError: Somebody else is changing it.
            ConflictError: It is not any more as it is known here.
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
        """A handle on the bytes of an upload, with their lock. Raises as `held` does."""
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
        """Take the next step of an upload whose lock is held; durable when this returns."""
        index, info_name = self.index_of(upload), upload.info_name.next(state)
        await asyncio.to_thread(index.write_info, info_name, info, before=upload.info_name, durable=True)
        if upload.deleted:
            # Replaced or cancelled while the disk was busy: what was just written must not come back.
            index.delete_info(info_name)
        else:
            index.apply_step(upload, info_name, info)

    def purge(self, now: datetime) -> None:
        """Remove what nobody came back for, old reports, names that were visible long enough, and rests of crashes."""
        self.scan()
        for index in (*self._files.values(), *self._reports.values()):
            for upload in list(index.uploads.values()):
                age = now - index.refresh(upload).changed_at
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
