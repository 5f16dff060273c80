"""
Files of an app, newest first: files in progress from the spool, finished files from the stream `FILES`.
"""

from collections.abc import Callable
from contextlib import aclosing
from datetime import datetime, timedelta
from typing import Literal

from msgspec import Struct, structs

from ftp_gateway.model.rules import FileRules
from ftp_gateway.model.virtual_paths import kind_in, kind_of
from ftp_gateway.processing import completion, file_events, publisher
from ftp_gateway.spool.store import Spool
from ftp_gateway.spool.upload import Upload
from shared.contracts.messages import FileChanged
from shared.contracts.streams import FILES
from shared.contracts.subjects import FileState, ftp_file
from shared.errors import NotFoundError
from shared.messaging.bus import Bus
from shared.messaging.reverse_scan import newest_first
from shared.runtime.slices import Slices, in_slices

MAX_SCANNED = 5000
"""Events of one state of an app that a query reads, from the newest on."""
STORED_WITHIN = timedelta(minutes=5)
"""Longest time from the `at` of an event to its storage. NATS has a clock of its own."""

_FINISHED: tuple[FileState, ...] = ("completed", "failed", "duplicate")


ListedState = Literal["uploading", "partial", "uploaded", "waiting", "processing", "completed", "failed", "duplicate"]


class FileEntry(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """
    One file. `uploaded` waits for a rename to a name that is processed, or for the proof of completion of its app;
    `waiting` waits until it may be processed; `partial` broke off. `file_id` and the rows are there once the whole
    file was read. Of `rows`, `rows_bad` are refused and `rows_ok` are published, about so far while `processing`;
    `duplicates` are those whose external id came before. `seconds` is from the upload to the end.
    """

    name: str
    kind: Literal["push", "profile"]
    state: ListedState
    at: datetime
    file_id: str = ""
    size_bytes: int = 0
    rows: int = 0
    rows_ok: int = 0
    rows_bad: int = 0
    duplicates: int = 0
    seconds: float = 0.0
    reason: str | None = None


class FileFilter(Struct, frozen=True, kw_only=True):
    """Filter: at most `most` files, in this state, from before this moment."""

    most: int
    state: ListedState | None = None
    before: datetime | None = None

    def matches(self, entry: FileEntry) -> bool:
        """Return whether a file is in this state and from before the moment."""
        return self.state in (None, entry.state) and (self.before is None or entry.at < self.before)


class FileHistory:
    """
    The files of all apps.

    Args:
        rules_of: The rules of an app as they are now.
    """

    def __init__(self, bus: Bus, spool: Spool, rules_of: Callable[[str], FileRules]) -> None:
        self._bus = bus
        self._spool = spool
        self._rules_of = rules_of

    async def newest(self, app_key: str, file_filter: FileFilter) -> list[FileEntry]:
        """Return an app's files, the newest first. Raises `UnavailableError`."""
        found = [entry for entry in await self._in_spool(app_key) if file_filter.matches(entry)]
        stored_before = None if file_filter.before is None else file_filter.before + STORED_WITHIN
        for state in _FINISHED:
            if file_filter.state in (None, state):
                found += await self._finished(app_key, state, file_filter.matches, file_filter.most, stored_before)
        return sorted(found, key=lambda entry: entry.at, reverse=True)[: file_filter.most]

    async def find(self, app_key: str, file_id: str) -> FileEntry:
        """
        Return the last upload of a content.

        Raises:
            NotFoundError: There is none, or only an old one.
            UnavailableError: NATS does not answer.
        """
        found = [entry for entry in await self._in_spool(app_key) if entry.file_id == file_id]
        for state in _FINISHED:
            found += await self._finished(app_key, state, lambda entry: entry.file_id == file_id, 1)
        if not found:
            raise NotFoundError("there is no such file")
        return max(found, key=lambda entry: entry.at)

    async def _in_spool(self, app_key: str) -> list[FileEntry]:
        await in_slices(self._spool.scan_steps(app_key))
        rules = self._rules_of(app_key)
        slices = Slices()
        found: list[FileEntry] = []
        for upload in self._spool.uploads(app_key):
            if not upload.partly_pulled and not upload.deleted:
                entry = _entry_in_spool(self._spool, upload, rules)
                found.append(await self._with_rows(entry, app_key, upload.id))
            await slices.turn()
        return found

    async def _with_rows(self, entry: FileEntry, app_key: str, upload_id: str) -> FileEntry:
        """
        Add the counts of rows of a validated file. They are read from the streams, because another replica may process
        it.
        """
        if entry.state != "processing":
            return entry
        received = await file_events.last_received(self._bus, app_key, upload_id)
        if received is None:
            return entry
        line = await publisher.published_line(self._bus, entry.kind, app_key, received.file_id, upload_id)
        return structs.replace(
            entry,
            file_id=received.file_id,
            rows=received.rows,
            # As if the bad ones were spread evenly, and no line were empty: nobody counts them on the way.
            rows_ok=min(received.rows_ok, received.rows_ok * line // max(1, received.rows)),
            rows_bad=received.rows_bad,
            duplicates=received.duplicates,
        )

    async def _finished(
        self,
        app_key: str,
        state: FileState,
        matches: Callable[[FileEntry], bool],
        most: int,
        before: datetime | None = None,
    ) -> list[FileEntry]:
        found: list[FileEntry] = []
        scanned = 0
        async with aclosing(newest_first(self._bus, FILES, ftp_file(app_key, state), before=before)) as messages:
            async for message in messages:
                event = self._bus.decoded(FILES, message.sequence, message.data, FileChanged)
                if event is not None and matches(entry := _entry_of_event(event)):
                    found.append(entry)
                scanned += 1
                if len(found) == most or scanned == MAX_SCANNED:
                    break
        return found


def _entry_in_spool(spool: Spool, upload: Upload, rules: FileRules) -> FileEntry:
    return FileEntry(
        name=upload.info.name,
        kind=kind_in(upload.place.folder),
        state=_state(spool, upload, rules),
        at=upload.changed_at,
        size_bytes=upload.size_bytes,
    )


def _state(
    spool: Spool, upload: Upload, rules: FileRules
) -> Literal["uploading", "partial", "uploaded", "waiting", "processing"]:
    if upload.state == "open":
        return "partial" if upload.interrupted and not upload.writers else "uploading"
    if upload.state != "closed":
        return "processing"
    # One that is being changed has no time yet at which it is due, and is about to have one.
    ready = completion.readiness_of(upload, rules, spool.find)
    is_candidate = kind_of(upload.place) is not None
    return "waiting" if is_candidate and (ready is None or not ready.missing) else "uploaded"


def _entry_of_event(event: FileChanged) -> FileEntry:
    assert event.state in _FINISHED
    return FileEntry(
        name=event.file_name,
        kind=event.kind,
        state="completed" if event.state == "completed" else "duplicate" if event.state == "duplicate" else "failed",
        at=event.at,
        file_id=event.file_id,
        size_bytes=event.size_bytes,
        rows=event.rows,
        rows_ok=event.rows_ok,
        rows_bad=event.rows_bad,
        duplicates=event.duplicates,
        seconds=event.seconds,
        reason=event.reason,
    )
