"""
Index of one directory of the spool, kept in step with the changes of other replicas.

The info files on disk count. The directory is listed again when another replica has marked a change, and now and then
if its modification time has moved. Only new info files are read. Steps of this process are known at once.
"""

import errno
import os
from bisect import insort
from collections.abc import KeysView
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic

from ftp_gateway.model.virtual_paths import Place
from ftp_gateway.spool.change_marks import ChangeMarks, Marks
from ftp_gateway.spool.file_locks import is_locked
from ftp_gateway.spool.upload import Upload
from ftp_gateway.spool.upload_info import InfoFileName, UploadInfo, parse_info_name, read_info, write_info

TICK_S = 0.1
"""Time in which a directory may change again without a new modification time: a tick of the kernel, and more."""
RECHECK_S = 0.5
"""Longest time until a step is seen whose replica was killed before it could mark the change."""


class DirectoryIndex:
    """
    Uploads whose files lie in one directory.

    Args:
        directory: Made if missing.
    """

    def __init__(self, directory: Path, change_marks: ChangeMarks) -> None:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.directory = directory
        self._change_marks = change_marks
        self.uploads: dict[str, Upload] = {}
        self._places: dict[Place, list[Upload]] = {}
        self._files: dict[str, set[str]] = {}
        self._names: set[str] = set()
        self._postponed: set[str] = set()
        self._changed_here: set[str] = set()
        self._seen_marks: Marks | None = None
        self._checked_at = 0.0
        self._changed_ns = -1
        self._changed_at = 0.0
        self._listed_at = 0.0

    def path(self, upload_id: str) -> Path:
        """Return the path of the bytes."""
        return self.directory / f"{upload_id}.data"

    def info_path(self, info_name: InfoFileName) -> Path:
        return self.directory / str(info_name)

    def uploads_at(self, place: Place) -> list[Upload]:
        """Return the uploads of one name, the latest first."""
        return self._places.get(place, [])[::-1]

    def places(self) -> KeysView[Place]:
        """Return every name that has uploads."""
        return self._places.keys()

    def scan(self) -> None:
        """Notice what has changed on disk."""
        # Before the listing: a change that is marked during it counts as new the next time.
        marks, now = self._change_marks.read_others(), monotonic()
        if marks == self._seen_marks and now - self._checked_at < RECHECK_S and not self._may_reload():
            return
        self._seen_marks, self._checked_at = marks, now
        changed_ns = self.directory.stat().st_mtime_ns
        if changed_ns != self._changed_ns:
            self._changed_ns, self._changed_at = changed_ns, now
        elif self._listed_at - self._changed_at > TICK_S and not self._postponed:
            return
        self._listed_at = now
        with os.scandir(self.directory) as entries:
            # NFS gives such names to removed files that are still open somewhere. They are not ours to remove.
            names = {entry.name for entry in entries if not entry.name.startswith(".")}
        # Steps of this process since the last listing are in none yet, so their removal by others would go unnoticed.
        changed = self._postponed | self._changed_here
        self._postponed, self._changed_here = set(), set()
        for name in self._names - names:
            upload_id = name.partition(".")[0]
            changed.add(upload_id)
            self._files[upload_id].discard(name)
        for name in names - self._names:
            upload_id = name.partition(".")[0]
            changed.add(upload_id)
            self._files.setdefault(upload_id, set()).add(name)
        self._names = names
        for upload_id in changed:
            self._reload(upload_id)
            if not self._files.get(upload_id):
                self._files.pop(upload_id, None)

    def _may_reload(self) -> bool:
        uploads = (self.uploads.get(upload_id) for upload_id in self._postponed)
        return any(upload is None or not upload.busy for upload in uploads)

    def _reload(self, upload_id: str) -> None:
        upload = self.uploads.get(upload_id)
        if upload is not None and upload.busy:
            self._postponed.add(upload_id)
            return
        info_name = self._latest_name(upload_id)
        if upload is not None and (info_name is None or upload.info_name.revision >= info_name.revision):
            # A file that lost its info file or its bytes is deleted. One that is ahead was changed here a moment ago.
            if not any(path.exists() for path in (self.path(upload_id), self.info_path(upload.info_name))):
                self.forget(upload)
            elif info_name is None:
                self._postponed.add(upload_id)
            return
        if info_name is None or (info := read_info(self.info_path(info_name))) is None:
            return
        size_bytes, changed_at = info.size_bytes, info.closed_at or info.named_at
        if info_name.state != "done":
            try:
                stat = self.path(upload_id).stat(follow_symlinks=False)
            except FileNotFoundError:
                return
            size_bytes, changed_at = stat.st_size, datetime.fromtimestamp(stat.st_mtime, UTC)
        if upload is None:
            upload = Upload(info_name, info, size_bytes=size_bytes, changed_at=changed_at)
        else:
            # The same object, because open handles and tasks refer to it.
            self._remove(upload)
            upload.info_name, upload.state, upload.info = info_name, info_name.state, info
            upload.size_bytes, upload.changed_at = size_bytes, changed_at
            upload.interrupted = info_name.state == "open"
        self.add(upload)

    def _latest_name(self, upload_id: str) -> InfoFileName | None:
        names = [
            info_name for name in self._files.get(upload_id, ()) if (info_name := parse_info_name(name)) is not None
        ]
        return max(names, key=lambda info_name: info_name.revision, default=None)

    def refresh(self, upload: Upload) -> Upload:
        """Bring size, time and lock of an open upload up to date, since another replica may be writing it."""
        if upload.state == "open" and upload.handle is None and not upload.busy and not upload.deleted:
            try:
                handle = os.open(self.path(upload.id), os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
            except OSError as error:
                # A link was planted there by other means. It is not followed, and is no upload.
                if error.errno not in (errno.ENOENT, errno.ELOOP):
                    raise
                self.forget(upload)
                return upload
            try:
                stat = os.fstat(handle)
                upload.interrupted = not is_locked(handle)
            finally:
                os.close(handle)
            upload.size_bytes, upload.changed_at = stat.st_size, datetime.fromtimestamp(stat.st_mtime, UTC)
        return upload

    def add(self, upload: Upload) -> None:
        self.uploads[upload.id] = upload
        self._changed_here.add(upload.id)
        insort(self._places.setdefault(upload.place, []), upload, key=lambda other: other.info.named_at)

    def write_info(
        self, info_name: InfoFileName, info: UploadInfo, *, before: InfoFileName | None, durable: bool
    ) -> None:
        """Write an info file, and remove the one before. Blocks; with `durable`, for the disk."""
        write_info(self.directory, info_name, info, before=before, durable=durable)
        self._change_marks.mark_changed()

    def apply_step(self, upload: Upload, info_name: InfoFileName, info: UploadInfo) -> None:
        """Adopt a step that this process has written."""
        self._remove(upload)
        upload.info_name, upload.state, upload.info = info_name, info_name.state, info
        self.add(upload)

    def forget(self, upload: Upload) -> None:
        """Take a deleted upload out of the index."""
        upload.deleted = True
        self._remove(upload)

    def _remove(self, upload: Upload) -> None:
        self.uploads.pop(upload.id, None)
        uploads = self._places.get(upload.place, [])
        if upload in uploads:
            uploads.remove(upload)
        if not uploads:
            self._places.pop(upload.place, None)

    def delete(self, upload: Upload) -> None:
        """Remove an upload from disk. Bytes first: an info file without bytes counts for nothing, and is swept."""
        self.path(upload.id).unlink(missing_ok=True)
        self.delete_info(upload.info_name)
        self.forget(upload)

    def delete_info(self, info_name: InfoFileName) -> None:
        """Remove an info file from disk."""
        self.info_path(info_name).unlink(missing_ok=True)
        self._change_marks.mark_changed()

    def sweep(self, before: datetime) -> None:
        """Remove old leftovers of crashes: half-written and superseded info files, and bytes without an info file."""
        for upload_id, names in list(self._files.items()):
            upload = self.uploads.get(upload_id)
            latest = self._latest_name(upload_id)
            bytes_name = self.path(upload_id).name
            if upload is not None:
                kept = {str(upload.info_name), *(() if upload.state == "done" else (bytes_name,))}
            elif latest is not None and bytes_name in names:
                kept = {str(latest), bytes_name}
            else:
                kept = set()
            for name in names - kept:
                path = self.directory / name
                try:
                    if datetime.fromtimestamp(path.stat().st_mtime, UTC) < before:
                        path.unlink()
                except FileNotFoundError:
                    continue
