"""
The files of an app, newest first: those that are here, from the spool, and those that are done, from `FILES`.
"""

from collections import deque
from datetime import datetime
from typing import Literal

from msgspec import Struct

from ftp_gateway import completion
from ftp_gateway.formats import Rules
from ftp_gateway.paths import Folder, kind_of
from ftp_gateway.spool import Spool
from ftp_gateway.uploads import Upload
from shared.bus import Bus
from shared.consumers import open_scan
from shared.messages import FileChanged, decode
from shared.subjects import FILES, FileState, ftp_file

LOOK_BACK = 5000
"""How many of the stream's newest messages are looked through, whoever's they are."""

_DONE: tuple[FileState, ...] = ("completed", "failed", "duplicate")


class FileEntry(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """
    One file. `uploaded` waits for a rename to a name that is processed, or for what else its app wants to see;
    `waiting` waits until it may be taken; `partial` broke off. `file_id` is empty until the file was looked at.
    """

    name: str
    kind: Literal["push", "profile"]
    state: Literal["uploading", "partial", "uploaded", "waiting", "processing", "completed", "failed", "duplicate"]
    at: datetime
    file_id: str = ""
    size_bytes: int = 0
    rows_ok: int = 0
    rows_bad: int = 0
    reason: str | None = None


async def recent_files(bus: Bus, spool: Spool, rules: Rules, app_key: str, most: int) -> list[FileEntry]:
    """At most `most` files of an app, whose rules these are. Raises `UnavailableError`."""
    spool.look()
    here = [_entry_here(spool, upload, rules) for upload in spool.uploads(app_key)]
    done = [entry for state in _DONE for entry in await _done(bus, app_key, state, most)]
    return sorted(here + done, key=lambda entry: entry.at, reverse=True)[:most]


def _entry_here(spool: Spool, upload: Upload, rules: Rules) -> FileEntry:
    folder: Folder = upload.place.folder
    return FileEntry(
        name=upload.ticket.name,
        kind=kind_of(upload.place) or ("profile" if folder == "Profile" else "push"),
        state=_state(spool, upload, rules),
        at=upload.changed_at,
        size_bytes=upload.size_bytes,
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


async def _done(bus: Bus, app_key: str, state: FileState, most: int) -> list[FileEntry]:
    subject = ftp_file(app_key, state)
    last = await bus.last_message(FILES, subject)
    if last is None:
        return []
    found: deque[FileEntry] = deque(maxlen=most)
    async with open_scan(bus, FILES, subject=subject, start_sequence=max(1, last.sequence - LOOK_BACK)) as scan:
        at = 0
        while at < last.sequence:
            for message in await scan.next(256):
                at = message.sequence
                found.append(_entry_done(decode(message.data, FileChanged)))
    return list(found)


def _entry_done(event: FileChanged) -> FileEntry:
    assert event.state in _DONE
    return FileEntry(
        name=event.file_name,
        kind=event.kind,
        state="completed" if event.state == "completed" else "duplicate" if event.state == "duplicate" else "failed",
        at=event.at,
        file_id=event.file_id,
        size_bytes=event.size_bytes,
        rows_ok=event.rows_ok,
        rows_bad=event.rows_bad,
        reason=event.reason,
    )
