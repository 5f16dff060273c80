"""
Info files beside each spool file on disk, and how they are written so that they survive a crash.

An info file is one small JSON file that never changes: each step of an upload writes the next revision and removes the
one before. Its ending is the state of the upload, for people; the highest revision counts.

    <id>.data               the bytes, from the first write to the end
    <id>.<n>.open           being uploaded, or broken off
    <id>.<n>.closed         the client has closed it; the bytes are durable
    <id>.<n>.claimed        claimed for processing: no client can change it any more
    <id>.<n>.reported       rows published and report written; the event and the removal are left
    <id>.<n>.done           its bytes are deleted, and its name is still shown
    <id>.<n>.report         an error report or result file in /errors
"""

import os
from datetime import datetime
from pathlib import Path
from typing import Literal

import msgspec
import structlog
from msgspec import Struct

from ftp_gateway.model.outcome import FileOutcome
from ftp_gateway.model.rules import FileRules
from ftp_gateway.model.virtual_paths import Folder, Place

State = Literal["open", "closed", "claimed", "reported", "done", "report"]

STATES: tuple[State, ...] = ("open", "closed", "claimed", "reported", "done", "report")

PULLED_BY = "remote:"
"""Prefix of `user` for pulled files; the id of the remote follows. No SFTP user has such a name."""

log = structlog.get_logger()


class CompletionProof(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """
    Evidence that a file was complete when it was claimed, for apps that ask for more than a close.

    `companion` is the upload id of its marker or checksum file, and `checksum` the value in it. `missing` says that
    nothing came in time.
    """

    companion: str = ""
    checksum: str = ""
    missing: bool = False


class UploadInfo(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """
    An upload, as it stands on disk.

    `committed` says that a rename made it final, so that it need not settle. `rules` and `proof` are those of the
    moment it was claimed. `outcome` and `told_after` (the last sequence of its event's subject before the event) are
    set when reported; `size_bytes` and `visible_until` when done.
    """

    app_key: str
    folder: Folder
    name: str
    user: str = ""
    opened_at: datetime
    renamed_at: datetime | None = None
    closed_at: datetime | None = None
    committed: bool = False
    rules: FileRules | None = None
    proof: CompletionProof = CompletionProof()
    outcome: FileOutcome | None = None
    told_after: int = 0
    size_bytes: int = 0
    visible_until: datetime | None = None

    @property
    def place(self) -> Place:
        return Place(self.app_key, self.folder, self.name)

    @property
    def pulled(self) -> bool:
        """Return whether it comes from a customer's own server."""
        return self.user.startswith(PULLED_BY)

    @property
    def named_at(self) -> datetime:
        """Time of its last name. Of several files of one name the latest is shown."""
        return self.renamed_at or self.opened_at


_decoder = msgspec.json.Decoder(UploadInfo)


class InfoFileName(Struct, frozen=True):
    """Name of an info file: upload id, revision and state."""

    upload_id: str
    revision: int
    state: State

    def __str__(self) -> str:
        return f"{self.upload_id}.{self.revision}.{self.state}"

    def next(self, state: State) -> "InfoFileName":
        """Return the name of the step that follows."""
        return InfoFileName(self.upload_id, self.revision + 1, state)


def parse_info_name(name: str) -> InfoFileName | None:
    """Parse the name of an info file; None for any other file."""
    match name.split("."):
        case [upload_id, revision, ending] if revision.isdecimal():
            for state in STATES:
                if state == ending:
                    return InfoFileName(upload_id, int(revision), state)
    return None


def read_info(path: Path) -> UploadInfo | None:
    """
    Read an info file. Returns None when it was deleted, or is of another release; that one stays for an operator.
    """
    try:
        return _decoder.decode(path.read_bytes())
    except FileNotFoundError:
        return None
    except msgspec.MsgspecError as error:
        log.error("upload_info_decoding_failed", file=path.name, message=str(error))
        return None


def write_info(
    directory: Path, info_name: InfoFileName, info: UploadInfo, *, before: InfoFileName | None, durable: bool
) -> None:
    """Write an info file whole or not at all, then remove the earlier one. Blocks; with `durable`, for the disk."""
    half = directory / f"{info_name}.half"
    try:
        with half.open("wb") as file:
            file.write(msgspec.json.encode(info))
            if durable:
                file.flush()
                os.fsync(file.fileno())
        half.replace(directory / str(info_name))
    except BaseException:
        half.unlink(missing_ok=True)
        raise
    if before is not None:
        directory.joinpath(str(before)).unlink(missing_ok=True)
    if durable:
        sync_directory(directory)


def sync_directory(directory: Path) -> None:
    """Make renames durable. Blocks for the disk."""
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
