"""
The files of an app, newest first: those that are here, from the spool, and those that are done, from `FILES`.
"""

from collections import deque
from collections.abc import Callable
from datetime import datetime
from typing import Literal

from msgspec import Struct, structs

from ftp_gateway import completion
from ftp_gateway.formats import Rules
from ftp_gateway.paths import kind_in, kind_of
from ftp_gateway.spool import Spool
from ftp_gateway.survey import Survey
from ftp_gateway.uploads import Upload
from shared.bus import Bus
from shared.consumers import open_scan
from shared.errors import NotFoundError
from shared.messages import FileChanged, decode
from shared.subjects import FILES, FileState, ftp_file

LOOK_BACK = 5000
"""How many of the stream's newest messages are looked through, whoever's they are."""

_DONE: tuple[FileState, ...] = ("completed", "failed", "duplicate")


ListedState = Literal["uploading", "partial", "uploaded", "waiting", "processing", "completed", "failed", "duplicate"]


class Progress(Struct, kw_only=True):
    """How far the publishing of a file is: its good rows end at `last_line`, and those up to `line` are published."""

    file_id: str
    rows: int
    bad: int
    duplicates: int
    last_line: int
    line: int = 0

    @classmethod
    def of(cls, survey: Survey) -> "Progress":
        return cls(
            file_id=survey.file_id,
            rows=survey.ok + survey.bad,
            bad=survey.bad,
            duplicates=survey.duplicates,
            last_line=survey.last_line,
        )

    def reach(self, line: int) -> None:
        """All rows up to this line are in the stream."""
        self.line = line

    @property
    def published(self) -> int:
        """Rows, as if the bad ones were spread evenly: nobody counts them on the way."""
        return (self.rows - self.bad) * self.line // max(1, self.last_line)


class FileEntry(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """
    One file. `uploaded` waits for a rename to a name that is processed, or for what else its app wants to see;
    `waiting` waits until it may be taken; `partial` broke off. `file_id` and the rows are there once all of the file
    was looked at. Of `rows`, `rows_bad` are not taken and `rows_ok` are published, about so far while `processing`;
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


class Wanted(Struct, frozen=True, kw_only=True):
    """Which files: at most `most`, in this state, and from before this moment."""

    most: int
    state: ListedState | None = None
    before: datetime | None = None

    def takes(self, entry: FileEntry) -> bool:
        """Whether a file is one of them."""
        return self.state in (None, entry.state) and (self.before is None or entry.at < self.before)


class History:
    """
    The files of all apps.

    Args:
        rules_of: The rules of an app as they are now.
        progress: How far a file is, by the id of its upload.
    """

    def __init__(
        self,
        bus: Bus,
        spool: Spool,
        rules_of: Callable[[str], Rules],
        progress: Callable[[str], Progress | None],
    ) -> None:
        self._bus = bus
        self._spool = spool
        self._rules_of = rules_of
        self._progress = progress

    async def newest(self, app_key: str, wanted: Wanted) -> list[FileEntry]:
        """An app's files, the newest first. Raises `UnavailableError`."""
        found = [entry for entry in self._here(app_key) if wanted.takes(entry)]
        for state in _DONE:
            if wanted.state in (None, state):
                found += await self._done(app_key, state, wanted.takes, wanted.most)
        return sorted(found, key=lambda entry: entry.at, reverse=True)[: wanted.most]

    async def find(self, app_key: str, file_id: str) -> FileEntry:
        """
        What became of a content when it came last.

        Raises:
            NotFoundError: It did not, or long ago.
            UnavailableError: NATS does not answer.
        """
        found = [entry for entry in self._here(app_key) if entry.file_id == file_id]
        for state in _DONE:
            found += await self._done(app_key, state, lambda entry: entry.file_id == file_id, 1)
        if not found:
            raise NotFoundError("there is no such file")
        return max(found, key=lambda entry: entry.at)

    def _here(self, app_key: str) -> list[FileEntry]:
        self._spool.look()
        rules = self._rules_of(app_key)
        return [
            _entry_here(self._spool, upload, rules, self._progress(upload.id))
            for upload in self._spool.uploads(app_key)
        ]

    async def _done(
        self, app_key: str, state: FileState, takes: Callable[[FileEntry], bool], most: int
    ) -> list[FileEntry]:
        subject = ftp_file(app_key, state)
        last = await self._bus.last_message(FILES, subject)
        if last is None:
            return []
        found: deque[FileEntry] = deque(maxlen=most)
        start = max(1, last.sequence - LOOK_BACK)
        async with open_scan(self._bus, FILES, subject=subject, start_sequence=start) as scan:
            at = 0
            while at < last.sequence:
                for message in await scan.next(256):
                    at = message.sequence
                    entry = _entry_done(decode(message.data, FileChanged))
                    if takes(entry):
                        found.append(entry)
        return list(found)


def _entry_here(spool: Spool, upload: Upload, rules: Rules, progress: Progress | None) -> FileEntry:
    entry = FileEntry(
        name=upload.ticket.name,
        kind=kind_in(upload.place.folder),
        state=_state(spool, upload, rules),
        at=upload.changed_at,
        size_bytes=upload.size_bytes,
    )
    if progress is None:
        return entry
    return structs.replace(
        entry,
        file_id=progress.file_id,
        rows=progress.rows,
        rows_ok=progress.published,
        rows_bad=progress.bad,
        duplicates=progress.duplicates,
    )


def _state(
    spool: Spool, upload: Upload, rules: Rules
) -> Literal["uploading", "partial", "uploaded", "waiting", "processing"]:
    if upload.state == "open":
        return "partial" if upload.broken and not upload.writers else "uploading"
    if upload.state != "closed":
        return "processing"
    # One that is being changed has no time yet at which it is due, and is about to have one.
    ready = completion.due(upload, rules, spool.find)
    is_candidate = kind_of(upload.place) is not None
    return "waiting" if is_candidate and (ready is None or not ready.missing) else "uploaded"


def _entry_done(event: FileChanged) -> FileEntry:
    assert event.state in _DONE
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
