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
        self._replicas = ChangeMarks(directory / ".replicas")
        self._files: dict[str, DirectoryIndex] = {}
        self._reports: dict[str, DirectoryIndex] = {}

    def look(self) -> None:
        """See what other replicas have done, in every app."""
        for path in self.directory.iterdir():
            app_key = path.name
            if APP_KEY.fullmatch(app_key):
                self.shelf(app_key, "errors").look()
                files = self.shelf(app_key, "")
                files.look()
                for upload in list(files.uploads.values()):
                    files.refresh(upload)

    def files(self, app_key: str | None) -> Iterator[Upload]:
        """What customers of one app or all have uploaded, in no order, as of the last look."""
        shelves = self._files.values() if app_key is None else (self.shelf(app_key, ""),)
        return (upload for shelf in shelves for upload in shelf.uploads.values())

    def shelf(self, app_key: str, folder: Folder) -> DirectoryIndex:
        """The shelf of a folder."""
        shelves, name = (self._files, "files") if folder in WRITABLE else (self._reports, "reports")
        if app_key not in shelves:
            shelves[app_key] = DirectoryIndex(self.directory / app_key / name, self._replicas)
            shelves[app_key].look()
        return shelves[app_key]

    def of(self, upload: Upload) -> DirectoryIndex:
        """The shelf that an upload lies on."""
        return self.shelf(upload.ticket.app_key, upload.ticket.folder)

    def named(self, place: Place) -> list[Upload]:
        """Those of one name, the latest first, as they are now."""
        shelf = self.shelf(place.app_key, place.folder)
        shelf.look()
        return [shelf.refresh(upload) for upload in shelf.named(place)]

    @contextmanager
    def held(self, upload: Upload) -> Iterator[None]:
        """
        Alone with an upload, for as long as the block.

        Raises:
            BusyError: Somebody else is changing it.
            ConflictError: It is not any more as it is known here.
        """
        if upload.busy:
            raise BusyError("the file is being changed by another session")
        grasped = upload.handle is None
        if grasped:
            upload.handle = self.grasp(upload)
        upload.busy = True
        try:
            yield
        finally:
            upload.busy = False
            if grasped:
                upload.release()

    def grasp(self, upload: Upload) -> int:
        """A handle on the bytes of an upload, with their lock. Raises as `held` does."""
        shelf = self.of(upload)
        try:
            handle = os.open(shelf.path(upload.id), os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            shelf.drop(upload)
            raise ConflictError("the file has been removed") from None
        try:
            if not try_lock(handle):
                raise BusyError("the file is being changed by another session")
            if not shelf.ticket_path(upload.label).exists():
                raise ConflictError("the file has been changed by another session")
        except BaseException:
            os.close(handle)
            raise
        return handle

    async def write(self, upload: Upload, state: State, ticket: UploadInfo) -> None:
        """Take the next step of an upload whose lock is held; durable when this returns."""
        shelf, label = self.of(upload), upload.label.next(state)
        await asyncio.to_thread(shelf.write, label, ticket, before=upload.label, durable=True)
        if upload.gone:
            # Replaced or cancelled while the disk was busy: what was just written must not come back.
            shelf.retract(label)
        else:
            shelf.move(upload, label, ticket)

    def purge(self, now: datetime) -> None:
        """Remove what nobody came back for, old reports, names that were visible long enough, and rests of crashes."""
        self.look()
        for shelf in (*self._files.values(), *self._reports.values()):
            for upload in list(shelf.uploads.values()):
                age = now - shelf.refresh(upload).changed_at
                if upload.state == "done":
                    if not upload.is_visible(now) and not upload.busy:
                        shelf.unlink(upload)
                elif upload.state == "report":
                    if age > REPORTS_KEPT:
                        shelf.unlink(upload)
                elif upload.idle and not upload.unfinished and age > ABANDONED_AFTER:
                    with suppress(BusyError, ConflictError), self.held(upload):
                        shelf.unlink(upload)
            shelf.sweep(now - SWEPT_AFTER)
        self._replicas.sweep(now - ABANDONED_AFTER)
