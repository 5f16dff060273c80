"""
The catalogue of files that are here: (app, folder, name) -> bytes under an opaque id, and where each is in its life.

A name that a customer gives is a key in memory and a word in a ticket; it never reaches the operating system. A claim
is a change of state in the ticket's name, so a name is free again at once and no client ever writes into a claimed
file. `OK` to a client means durable: the bytes are synced when a file is closed, the ticket when its state changes.

Everything runs in the event loop; what waits for the disk runs in a thread while the upload is marked `busy`.
"""

import asyncio
import fcntl
import os
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec

from ftp_gateway.formats import Rules
from ftp_gateway.paths import Folder, Place, kind_of
from ftp_gateway.reports import Outcome
from ftp_gateway.tickets import State, Ticket, read_tickets, sync_directory, write_ticket
from ftp_gateway.uploads import Upload, Writer
from shared.errors import BusyError, ConflictError, DeniedError

MAX_WAITING_FILES = 1000
"""Of one app, not counting reports: a script that never renames must not fill the disk with names."""
MIN_FREE_BYTES = 64 << 20
ABANDONED_AFTER = timedelta(hours=24)
"""How long bytes wait that are no candidate: broken off, or under a temporary name."""
REPORTS_KEPT = timedelta(days=21)


@asynccontextmanager
async def open_spool(directory: Path, clock: Callable[[], datetime]) -> AsyncIterator["Spool"]:
    """The spool in a directory, for this process alone. Raises `ConflictError` while another process has it."""
    with _locked(directory):
        yield Spool(directory / "spool", clock)


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    with (directory / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConflictError(f"another process works in {directory}") from None
        yield


class Spool:
    """
    The files of every app, on one local disk. Made by `open_spool`.

    Args:
        directory: Made if missing.
        clock: Aware UTC.
    """

    def __init__(self, directory: Path, clock: Callable[[], datetime]) -> None:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._directory = directory
        self._clock = clock
        self._uploads: dict[str, Upload] = {}
        self._places: dict[str, dict[Place, list[Upload]]] = {}
        self.changed = asyncio.Event()
        """Set whenever something may have become due."""
        for upload_id, state, ticket in sorted(read_tickets(directory), key=lambda found: found[2].opened_at):
            stat = self._path(upload_id).stat()
            changed_at = datetime.fromtimestamp(stat.st_mtime, UTC)
            if state == "report":
                self.drop_report(ticket.place)
            self._add(Upload(upload_id, state, ticket, size_bytes=stat.st_size, changed_at=changed_at))

    def find(self, place: Place) -> Upload | None:
        """What a customer sees under a name: the newest file of that name."""
        return self._newest(self._named(place))

    def entries(self, app_key: str, folder: Folder) -> list[Upload]:
        """What a customer sees in a folder."""
        named = [uploads for place, uploads in self._places.get(app_key, {}).items() if place.folder == folder]
        return [newest for uploads in named if (newest := self._newest(uploads)) is not None]

    def uploads(self) -> list[Upload]:
        """Every file that is here, reports aside, in the order in which they were closed."""
        return sorted(self._uploads.values(), key=lambda upload: upload.ticket.closed_at or upload.ticket.opened_at)

    def _newest(self, uploads: list[Upload]) -> Upload | None:
        now = self._clock()
        visible = (upload for upload in reversed(uploads) if not upload.gone or (upload.visible_until or now) > now)
        return next(visible, None)

    def create(self, place: Place, user: str) -> "Writer":
        """
        Begin a file; one of the same name that is not claimed yet is replaced.

        Raises:
            BusyError: Too many files of the app wait, or the disk is nearly full.
        """
        self._check_room(place.app_key)
        upload_id = uuid.uuid4().hex
        now = self._clock()
        ticket = Ticket(app_key=place.app_key, folder=place.folder, name=place.name, user=user, opened_at=now)
        write_ticket(self._directory, upload_id, "open", ticket, before=None, durable=False)
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        handle = os.open(self._path(upload_id), flags, 0o600)
        for earlier in self._named(place):
            if earlier.changeable:
                self._unlink(earlier)
        upload = Upload(upload_id, "open", ticket, size_bytes=0, changed_at=now)
        upload.broken = False
        self._add(upload)
        return self._writer(upload, handle)

    def reopen(self, upload: Upload) -> "Writer":
        """Go on writing to a file that is not claimed yet. Raises `ConflictError` when it is too late for that."""
        if not upload.changeable:
            raise ConflictError("the file is being processed and takes no more bytes")
        with self._held(upload):
            handle = os.open(self._path(upload.id), os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
            if upload.state == "closed":
                self._path(upload.id, "closed").rename(self._path(upload.id, "open"))
                upload.state = "open"
        upload.broken = False
        upload.told_partial = False
        return self._writer(upload, handle)

    def open_bytes(self, upload: Upload) -> int:
        """A handle for reading. Raises `FileNotFoundError` when the file is gone."""
        return os.open(self._path(upload.id), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)

    async def rename(self, upload: Upload, to: Place, *, replace: bool) -> None:
        """
        Give a closed file another name. A name that is processed commits it: it need not settle.

        Raises:
            ConflictError: It is open, broken off or being processed, or there is such a name and not `replace`.
        """
        if not upload.changeable:
            raise ConflictError("the file is being processed")
        if upload.state != "closed":
            raise ConflictError("the upload broke off; resume it first" if upload.broken else "the file is still open")
        there = [other for other in self._named(to) if other.changeable and other is not upload]
        if there and not replace:
            raise ConflictError("there is a file of this name")
        if any(other.busy for other in there):
            raise BusyError("a file of this name is being changed")
        with self._held(upload):
            # Before and not after: a crash in between must not leave two files to be processed.
            for other in there:
                self._unlink(other)
            ticket = msgspec.structs.replace(
                upload.ticket, folder=to.folder, name=to.name, committed=kind_of(to) is not None
            )
            before = upload.place
            await self._write(upload, "closed", ticket)
            if not upload.gone:
                self._remove(upload, before)
                upload.changed_at = self._clock()
                self._add(upload)
        self.changed.set()

    async def cancel(self, upload: Upload) -> None:
        """Remove a file that is not claimed yet. Raises `DeniedError` when it is too late."""
        if not upload.changeable:
            raise DeniedError("the file is being processed")
        with self._held(upload):
            self._unlink(upload)
            await asyncio.to_thread(sync_directory, self._directory)

    def touch(self, upload: Upload) -> None:
        """A client still cares for the file (it sets its times): let it settle anew."""
        if upload.state == "closed" and not upload.ticket.committed:
            upload.changed_at = self._clock()

    def claim(self, upload: Upload) -> None:
        """Take a closed file away from its customer. Durable with `freeze`, which follows."""
        upload.state = "claimed"

    async def freeze(self, upload: Upload, rules: Rules) -> None:
        """Make the claim durable, with the rules that the file is read by from now on."""
        ticket = msgspec.structs.replace(upload.ticket, rules=rules)
        await self._write(upload, "claimed", ticket, before="closed")

    async def mark_reported(self, upload: Upload, outcome: Outcome, told_after: int) -> None:
        """All rows are published and the reports are written."""
        ticket = msgspec.structs.replace(upload.ticket, outcome=outcome, told_after=told_after)
        await self._write(upload, "reported", ticket)

    async def finish(self, upload: Upload, visible_until: datetime) -> None:
        """Let the file go. Its name stays visible until then, because clients look once more after an upload."""
        upload.visible_until = visible_until
        self._unlink(upload)
        await asyncio.to_thread(sync_directory, self._directory)

    async def put_report(self, place: Place, data: bytes) -> None:
        """Write a file of ours, in place of an earlier one of its name."""
        upload_id = uuid.uuid4().hex
        now = self._clock()
        ticket = Ticket(app_key=place.app_key, folder=place.folder, name=place.name, opened_at=now)
        await asyncio.to_thread(self._write_report, upload_id, data, ticket)
        self.drop_report(place)
        self._add(Upload(upload_id, "report", ticket, size_bytes=len(data), changed_at=now))

    def drop_report(self, place: Place) -> None:
        """Remove a file of ours, if there is one."""
        for earlier in self._named(place):
            if earlier.state == "report":
                self._unlink(earlier)

    def path(self, upload: Upload) -> Path:
        """Where the bytes lie, for a process that reads them."""
        return self._path(upload.id)

    def purge(self) -> None:
        """Remove what nobody came back for, old reports, and names that were visible long enough."""
        now = self._clock()
        for places in list(self._places.values()):
            for upload in [upload for uploads in places.values() for upload in uploads]:
                age = now - upload.changed_at
                if upload.gone:
                    if (upload.visible_until or now) <= now:
                        self._remove(upload, upload.place)
                elif upload.state == "report":
                    if age > REPORTS_KEPT:
                        self._unlink(upload)
                elif upload.idle and age > ABANDONED_AFTER:
                    self._unlink(upload)

    async def _close(self, upload: Upload) -> None:
        # The last writer has closed, and its bytes are durable.
        if upload.gone:
            return
        now = self._clock()
        with self._held(upload):
            await self._write(upload, "closed", msgspec.structs.replace(upload.ticket, closed_at=now, committed=False))
        upload.changed_at = now
        self.changed.set()

    def _writer(self, upload: Upload, handle: int) -> Writer:
        return Writer(upload, handle, clock=self._clock, close=self._close, broke_off=self.changed.set)

    @contextmanager
    def _held(self, upload: Upload) -> Iterator[None]:
        if upload.busy:
            raise BusyError("the file is being changed by another session")
        upload.busy = True
        try:
            yield
        finally:
            upload.busy = False

    async def _write(self, upload: Upload, state: State, ticket: Ticket, before: State | None = None) -> None:
        earlier = before or upload.state
        await asyncio.to_thread(write_ticket, self._directory, upload.id, state, ticket, before=earlier, durable=True)
        if upload.gone:
            # Replaced or cancelled while the disk was busy: what was just written must not come back.
            self._path(upload.id, state).unlink(missing_ok=True)
        else:
            upload.state, upload.ticket = state, ticket

    def _write_report(self, upload_id: str, data: bytes, ticket: Ticket) -> None:
        with self._path(upload_id).open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        write_ticket(self._directory, upload_id, "report", ticket, before=None, durable=True)

    def _unlink(self, upload: Upload) -> None:
        # Bytes first: a ticket without bytes is swept, bytes without a ticket might be those of a younger state.
        upload.gone = True
        self._uploads.pop(upload.id, None)
        self._path(upload.id).unlink(missing_ok=True)
        for state in (upload.state, "closed"):
            self._path(upload.id, state).unlink(missing_ok=True)
        if upload.visible_until is None:
            self._remove(upload, upload.place)

    def _add(self, upload: Upload) -> None:
        if upload.state != "report":
            self._uploads[upload.id] = upload
        self._places.setdefault(upload.ticket.app_key, {}).setdefault(upload.place, []).append(upload)

    def _remove(self, upload: Upload, place: Place) -> None:
        places = self._places[place.app_key]
        if upload in (uploads := places.get(place, [])):
            uploads.remove(upload)
        if not uploads:
            places.pop(place, None)

    def _named(self, place: Place) -> list[Upload]:
        return list(self._places.get(place.app_key, {}).get(place, ()))

    def _path(self, upload_id: str, ending: str = "data") -> Path:
        return self._directory / f"{upload_id}.{ending}"

    def _check_room(self, app_key: str) -> None:
        waiting = sum(1 for upload in self._uploads.values() if upload.ticket.app_key == app_key)
        if waiting >= MAX_WAITING_FILES:
            raise BusyError(f"{MAX_WAITING_FILES} files of the app are waiting; remove some, or let them be processed")
        free = os.statvfs(self._directory)
        if free.f_bavail * free.f_frsize < MIN_FREE_BYTES:
            raise BusyError("the disk is nearly full", retry_after_s=60)
