"""
The catalogue of one directory of the spool, kept in step with what other replicas do there.

The tickets on disk are what counts. They are listed again when another replica has told of a change, and now and then,
if the directory has changed; those that are new are read. A step that this process takes itself is known at once.
"""

import errno
import os
from bisect import insort
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic

from ftp_gateway.model.virtual_paths import Place
from ftp_gateway.spool.change_marks import ChangeMarks, Heard
from ftp_gateway.spool.file_locks import is_locked
from ftp_gateway.spool.upload import Upload
from ftp_gateway.spool.upload_info import InfoFileName, UploadInfo, parse_label, read_ticket, write_ticket

TICK_S = 0.1
"""How long a directory may change again without showing it in its time of change (a tick of the kernel, and more)."""
RECHECK_S = 0.5
"""How long at most until a step is seen whose replica was killed before it could tell."""


class DirectoryIndex:
    """
    The uploads whose files lie in one directory.

    Args:
        directory: Made if missing.
    """

    def __init__(self, directory: Path, replicas: ChangeMarks) -> None:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.directory = directory
        self._replicas = replicas
        self.uploads: dict[str, Upload] = {}
        self._places: dict[Place, list[Upload]] = {}
        self._files: dict[str, set[str]] = {}
        self._names: set[str] = set()
        self._postponed: set[str] = set()
        self._stepped: set[str] = set()
        self._heard: Heard | None = None
        self._checked_at = 0.0
        self._changed_ns = -1
        self._changed_at = 0.0
        self._listed_at = 0.0

    def path(self, upload_id: str) -> Path:
        """Where the bytes are."""
        return self.directory / f"{upload_id}.data"

    def ticket_path(self, label: InfoFileName) -> Path:
        return self.directory / str(label)

    def named(self, place: Place) -> list[Upload]:
        """Those of one name, the latest first."""
        return self._places.get(place, [])[::-1]

    def names(self) -> Iterator[tuple[Place, list[Upload]]]:
        """All of them by name, the latest of each first."""
        return ((place, uploads[::-1]) for place, uploads in self._places.items())

    def look(self) -> None:
        """See what has changed on disk."""
        # Before the listing: what is told during it is news the next time.
        heard, now = self._replicas.heard(), monotonic()
        if heard == self._heard and now - self._checked_at < RECHECK_S and not self._may_compare():
            return
        self._heard, self._checked_at = heard, now
        changed_ns = self.directory.stat().st_mtime_ns
        if changed_ns != self._changed_ns:
            self._changed_ns, self._changed_at = changed_ns, now
        elif self._listed_at - self._changed_at > TICK_S and not self._postponed:
            return
        self._listed_at = now
        with os.scandir(self.directory) as entries:
            # What was removed and is still open somewhere has such a name on NFS, and is not ours to remove.
            names = {entry.name for entry in entries if not entry.name.startswith(".")}
        # What was done here since the last listing is in none yet, and would not be missed when others remove it.
        changed = self._postponed | self._stepped
        self._postponed, self._stepped = set(), set()
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
            self._compare(upload_id)
            if not self._files.get(upload_id):
                self._files.pop(upload_id, None)

    def _may_compare(self) -> bool:
        uploads = (self.uploads.get(upload_id) for upload_id in self._postponed)
        return any(upload is None or not upload.busy for upload in uploads)

    def _compare(self, upload_id: str) -> None:
        upload = self.uploads.get(upload_id)
        if upload is not None and upload.busy:
            self._postponed.add(upload_id)
            return
        label = self._latest(upload_id)
        if upload is not None and (label is None or upload.label.revision >= label.revision):
            # A file that lost its ticket or its bytes is gone; one that is ahead was changed here, a moment ago.
            if not any(path.exists() for path in (self.path(upload_id), self.ticket_path(upload.label))):
                self.drop(upload)
            elif label is None:
                self._postponed.add(upload_id)
            return
        if label is None or (ticket := read_ticket(self.ticket_path(label))) is None:
            return
        size_bytes, changed_at = ticket.size_bytes, ticket.closed_at or ticket.named_at
        if label.state != "done":
            try:
                stat = self.path(upload_id).stat(follow_symlinks=False)
            except FileNotFoundError:
                return
            size_bytes, changed_at = stat.st_size, datetime.fromtimestamp(stat.st_mtime, UTC)
        if upload is None:
            upload = Upload(label, ticket, size_bytes=size_bytes, changed_at=changed_at)
        else:
            # The same object, because open handles and tasks refer to it.
            self._remove(upload)
            upload.label, upload.state, upload.ticket = label, label.state, ticket
            upload.size_bytes, upload.changed_at = size_bytes, changed_at
            upload.broken = label.state == "open"
        self.add(upload)

    def _latest(self, upload_id: str) -> InfoFileName | None:
        labels = [label for name in self._files.get(upload_id, ()) if (label := parse_label(name)) is not None]
        return max(labels, key=lambda label: label.revision, default=None)

    def refresh(self, upload: Upload) -> Upload:
        """A part, or an upload by way of another replica, as its bytes are now."""
        if upload.state == "open" and upload.handle is None and not upload.busy and not upload.gone:
            try:
                handle = os.open(self.path(upload.id), os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
            except OSError as error:
                # A link was planted there by other means; it is not followed, and is nothing of ours.
                if error.errno not in (errno.ENOENT, errno.ELOOP):
                    raise
                self.drop(upload)
                return upload
            try:
                stat = os.fstat(handle)
                upload.broken = not is_locked(handle)
            finally:
                os.close(handle)
            upload.size_bytes, upload.changed_at = stat.st_size, datetime.fromtimestamp(stat.st_mtime, UTC)
        return upload

    def add(self, upload: Upload) -> None:
        self.uploads[upload.id] = upload
        self._stepped.add(upload.id)
        insort(self._places.setdefault(upload.place, []), upload, key=lambda other: other.ticket.named_at)

    def write(self, label: InfoFileName, ticket: UploadInfo, *, before: InfoFileName | None, durable: bool) -> None:
        """Write a ticket, and let the one before go. Blocks; with `durable`, for the disk."""
        write_ticket(self.directory, label, ticket, before=before, durable=durable)
        self._replicas.tell()

    def move(self, upload: Upload, label: InfoFileName, ticket: UploadInfo) -> None:
        """Take over a step that was written here."""
        self._remove(upload)
        upload.label, upload.state, upload.ticket = label, label.state, ticket
        self.add(upload)

    def drop(self, upload: Upload) -> None:
        """It is on disk no more."""
        upload.gone = True
        self._remove(upload)

    def _remove(self, upload: Upload) -> None:
        self.uploads.pop(upload.id, None)
        uploads = self._places.get(upload.place, [])
        if upload in uploads:
            uploads.remove(upload)
        if not uploads:
            self._places.pop(upload.place, None)

    def unlink(self, upload: Upload) -> None:
        """Remove it from disk. Bytes first: a ticket without bytes is nothing, and is swept."""
        self.path(upload.id).unlink(missing_ok=True)
        self.retract(upload.label)
        self.drop(upload)

    def retract(self, label: InfoFileName) -> None:
        """Remove a ticket from disk."""
        self.ticket_path(label).unlink(missing_ok=True)
        self._replicas.tell()

    def sweep(self, before: datetime) -> None:
        """Remove what crashes have left, if it is old: half written and superseded tickets, bytes without a ticket."""
        for upload_id, names in list(self._files.items()):
            upload = self.uploads.get(upload_id)
            latest = self._latest(upload_id)
            bytes_name = self.path(upload_id).name
            if upload is not None:
                kept = {str(upload.label), *(() if upload.state == "done" else (bytes_name,))}
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
