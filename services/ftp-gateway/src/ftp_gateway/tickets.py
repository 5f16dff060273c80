"""
What stands beside each spool file on disk, and how it is written so that it survives a crash.

A ticket is one small JSON file; its ending is the state of the upload, so a state changes by one atomic rename:

    <id>.data       the bytes, from the first write to the end
    <id>.open       being uploaded, or broken off
    <id>.closed     the client has closed it; the bytes are durable
    <id>.claimed    ours: no client can change it any more
    <id>.reported   published and reported; what is left is to tell and to remove
    <id>.report     a file of ours in /errors
"""

import os
from datetime import datetime
from pathlib import Path
from typing import Literal

import msgspec
import structlog
from msgspec import Struct

from ftp_gateway.formats import Rules
from ftp_gateway.paths import Folder, Place
from ftp_gateway.reports import Outcome

State = Literal["open", "closed", "claimed", "reported", "report"]

STATES: tuple[State, ...] = ("open", "closed", "claimed", "reported", "report")
"""From the earliest to the latest: after a crash between two steps, the later ticket counts."""

log = structlog.get_logger()


class Ticket(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """
    An upload, as it stands on disk.

    `committed` says that a rename made it final, so that it need not settle; `rules` are those of the moment it was
    claimed; `outcome` and `told_after` (the last sequence of its event's subject before the event) are set when
    reported.
    """

    app_key: str
    folder: Folder
    name: str
    user: str = ""
    opened_at: datetime
    closed_at: datetime | None = None
    committed: bool = False
    rules: Rules | None = None
    outcome: Outcome | None = None
    told_after: int = 0

    @property
    def place(self) -> Place:
        return Place(self.app_key, self.folder, self.name)


_decoder = msgspec.json.Decoder(Ticket)


def read_tickets(directory: Path) -> list[tuple[str, State, Ticket]]:
    """
    Every upload in the directory, in the latest state it has a ticket for. What a crash left half done is swept away:
    half written tickets, earlier states, bytes without a ticket, tickets without bytes. What cannot be read stays, for
    an operator to look at.
    """
    endings: dict[str, set[str]] = {}
    for path in directory.iterdir():
        endings.setdefault(path.stem, set()).add(path.suffix.removeprefix("."))
    found = []
    for upload_id, suffixes in endings.items():
        state = next((state for state in reversed(STATES) if state in suffixes), None)
        if state is None or "data" not in suffixes:
            kept: set[str] = set()
        elif (ticket := _read(directory / f"{upload_id}.{state}")) is None:
            continue
        else:
            kept = {"data", state}
            found.append((upload_id, state, ticket))
        for suffix in suffixes - kept:
            directory.joinpath(f"{upload_id}.{suffix}").unlink()
    return found


def _read(path: Path) -> Ticket | None:
    try:
        return _decoder.decode(path.read_bytes())
    except msgspec.MsgspecError as error:
        log.error("ticket_unreadable", ticket=path.name, message=str(error))
        return None


def write_ticket(
    directory: Path, upload_id: str, state: State, ticket: Ticket, *, before: State | None, durable: bool
) -> None:
    """Write a ticket whole or not at all, then let the earlier one go. Blocks; with `durable`, for the disk."""
    half = directory / f"{upload_id}.half"
    with half.open("wb") as file:
        file.write(msgspec.json.encode(ticket))
        if durable:
            file.flush()
            os.fsync(file.fileno())
    half.replace(directory / f"{upload_id}.{state}")
    if before is not None and before != state:
        directory.joinpath(f"{upload_id}.{before}").unlink(missing_ok=True)
    if durable:
        sync_directory(directory)


def sync_directory(directory: Path) -> None:
    """Make renames durable. Blocks for the disk."""
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
