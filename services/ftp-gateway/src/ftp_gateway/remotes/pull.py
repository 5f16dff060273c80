"""
One poll of a customer's server:

    list -> wait until a file no longer changes -> download -> durable in the spool -> remember -> leave, delete,
    archive

The process may die at each arrow. Before "durable" nothing has happened; after it the file is processed like an upload,
whatever happens to the server. After a crash between "durable" and "remember" the file is pulled again and is a
duplicate by its content. The next poll does the last step of a file that is remembered and still on the server.

One file of 300 lines, because each step relies on what the step before has made durable.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from contextlib import AbstractAsyncContextManager, aclosing, suppress
from datetime import datetime
from typing import Protocol

import structlog
from msgspec import Struct
from msgspec.structs import replace

from ftp_gateway.model.virtual_paths import Place, kind_of
from ftp_gateway.remotes.remote import Remote, archive_name, download_name, in_directory, place_of
from ftp_gateway.remotes.state import FORGET_AFTER, PulledFile, RemoteFile
from ftp_gateway.remotes.state_store import RemoteStateStore
from ftp_gateway.spool.store import Spool
from ftp_gateway.spool.upload import MAX_FILE_BYTES, Writer
from ftp_gateway.spool.upload_info import PULLED_BY
from shared.errors import BusyError, ConflictError, MillraceError, TooLargeError
from shared.runtime.telemetry import Metrics

log = structlog.get_logger()

MAX_LISTED = 10_000
"""Files in a remote's directory: each poll compares and remembers them."""
WAIT_IN_SESSION_S = 60.0
"""The longest `settle_s` during which the session stays open."""
MAX_FAILURES_IN_A_ROW = 3
"""Failures in a row after which the server is at fault, and the poll ends."""


class RemoteServer(Protocol):
    """Port: a signed-in session with a remote of any protocol. Each method raises kinds of `MillraceError`."""

    async def list_files(self, directory: str, most: int) -> list[RemoteFile]:
        """Return the entries of a directory, links not followed. Raises `TooLargeError` above `most`."""
        ...

    async def stat(self, path: str) -> RemoteFile | None:
        """Return what is at a path, links not followed; None for nothing."""
        ...

    def read(self, path: str, size_bytes: int) -> AsyncGenerator[bytes, None]:
        """Yield the file in blocks, to its end, or to a little more than `size_bytes`."""
        ...

    async def write(self, path: str, data: bytes) -> None:
        """Create or replace a file."""
        ...

    async def rename(self, path: str, to: str) -> None:
        """Move a file; nothing may be at `to`."""
        ...

    async def remove(self, path: str) -> None:
        """Remove a file."""
        ...

    async def make_directory(self, path: str) -> None:
        """Make a directory, unless it is there."""
        ...


class RemoteJob(Struct, frozen=True, kw_only=True):
    """A remote of an app, at one revision of its configuration."""

    app_key: str
    id: str
    revision: int
    remote: Remote


OpenServer = Callable[[Remote], AbstractAsyncContextManager[RemoteServer]]
SendErrorReports = Callable[[RemoteJob, RemoteServer, RemoteStateStore], Awaitable[None]]


class Puller:
    """
    Polls one remote. Its caller holds the remote's lock.

    Args:
        send_reports: Delivers the error reports of files that were pulled before; called in each session.
        clock: Aware UTC.
    """

    def __init__(
        self,
        job: RemoteJob,
        state: RemoteStateStore,
        *,
        spool: Spool,
        open_server: OpenServer,
        send_reports: SendErrorReports,
        metrics: Metrics,
        clock: Callable[[], datetime],
    ) -> None:
        self._job = job
        self._remote = job.remote
        self._state = state
        self._spool = spool
        self._open_server = open_server
        self._send_reports = send_reports
        self._metrics = metrics
        self._clock = clock
        self._unchanged_since: dict[str, tuple[tuple[int, str], datetime]] = {}

    async def poll(self) -> bool:
        """
        Pull the new files, and finish those that were pulled before.

        Returns:
            Whether an early poll would find more to do: a file that still changes or waits for its name, or a report
            that is not there yet.

        Raises:
            MillraceError: The poll failed, or one of its files, the first; the others were pulled.
        """
        await self._state.save()
        async with self._open_server(self._remote) as server:
            listed = [file for file in await server.list_files(self._remote.path, MAX_LISTED) if file.regular]
            failures: list[MillraceError] = []
            in_a_row = 0
            new = self._new_files(listed)
            left = len(new)
            for file, place in await self._settled_files(server, new):
                try:
                    left -= await self._pull(server, file, place)
                    in_a_row = 0
                except BusyError:
                    raise
                except MillraceError as error:
                    log.warning("pull_failed", app_key=self._job.app_key, remote=self._job.id, message=error.message)
                    self._metrics.count("millrace_ftp_pulled_files_total", outcome="failed")
                    failures.append(error)
                    in_a_row += 1
                    if in_a_row == MAX_FAILURES_IN_A_ROW:
                        break
            try:
                await self._finish(server, listed)
            except MillraceError as error:
                failures.append(error)
            try:
                await self._send_reports(self._job, server, self._state)
            except MillraceError as error:
                failures.append(error)
            await self._forget_deleted({file.name for file in listed})
            if failures:
                raise failures[0]
            return left > 0 or not all(pulled.reported for pulled in self._state.pulled.values())

    def _new_files(self, listed: Iterable[RemoteFile]) -> list[tuple[RemoteFile, Place]]:
        """Return the files that were not pulled yet, the oldest first."""
        found = []
        for file in listed:
            place = place_of(self._remote, self._job.app_key, file.name)
            known = self._state.pulled.get(file.name)
            if place is not None and (known is None or known.version != file.version):
                found.append((file, place))
        return sorted(found, key=lambda one: (one[0].modified_at, one[0].name))

    async def _settled_files(
        self, server: RemoteServer, new: list[tuple[RemoteFile, Place]]
    ) -> list[tuple[RemoteFile, Place]]:
        """Return the files that have not changed for `settle_s`; a short `settle_s` is waited for here."""
        names = {file.name for file, _ in new}
        self._unchanged_since = {name: seen for name, seen in self._unchanged_since.items() if name in names}
        if not all(self._is_settled(file) for file, _ in new) and self._remote.settle_s <= WAIT_IN_SESSION_S:
            await asyncio.sleep(self._remote.settle_s)
            again = [(await server.stat(in_directory(self._remote.path, file.name)), place) for file, place in new]
            new = [(file, place) for file, place in again if file is not None and file.regular]
        return [(file, place) for file, place in new if self._is_settled(file)]

    def _is_settled(self, file: RemoteFile) -> bool:
        now = self._clock()
        version, since = self._unchanged_since.get(file.name, (None, now))
        if version != file.version:
            self._unchanged_since[file.name] = (file.version, now)
            since = now
        return (now - since).total_seconds() >= self._remote.settle_s

    async def _pull(self, server: RemoteServer, file: RemoteFile, place: Place) -> bool:
        """
        Pull one file into the spool, commit and remember it. Returns False for a file that has to wait.

        Raises:
            BusyError: The spool is full.
            ConflictError: The content is not that of the listed file. Nothing of it was kept.
        """
        existing = self._spool.find(place)
        if existing is not None and existing.changeable:
            log.info("pull_postponed", app_key=place.app_key, remote=self._job.id, name=file.name)
            return False
        if file.size_bytes > MAX_FILE_BYTES:
            raise TooLargeError(f"{file.name}: expected a file of at most {MAX_FILE_BYTES} bytes")
        path = in_directory(self._remote.path, file.name)
        if not _same(await server.stat(path), file):
            return False  # It still changes.
        temporary = Place(place.app_key, place.folder, download_name(self._job.id, file.name))
        writer = self._spool.create(temporary, f"{PULLED_BY}{self._job.id}")
        try:
            await self._download(server, path, file, writer)
        except BaseException:
            writer.abandon()
            with suppress(MillraceError):
                await self._spool.cancel(writer.upload)
            raise
        await _uninterrupted(self._commit(writer, file, place))
        self._metrics.count("millrace_ftp_pulled_files_total", outcome="pulled")
        self._metrics.count("millrace_ftp_pulled_bytes_total", file.size_bytes)
        log.info("file_pulled", app_key=place.app_key, remote=self._job.id, name=file.name, size_bytes=file.size_bytes)
        return True

    async def _download(self, server: RemoteServer, path: str, file: RemoteFile, writer: Writer) -> None:
        received = 0
        async with aclosing(server.read(path, file.size_bytes)) as blocks:
            async for block in blocks:
                if received + len(block) > file.size_bytes:
                    raise ConflictError(f"{file.name}: grew while it was read")
                try:
                    writer.write(received, block)
                except OSError as error:
                    raise BusyError(f"the spool cannot be written: {error.strerror}") from None
                received += len(block)
        if received != file.size_bytes:
            raise ConflictError(f"{file.name}: the server gave {received} bytes of {file.size_bytes}")
        if not _same(await server.stat(path), file):
            raise ConflictError(f"{file.name}: changed while it was read")

    async def _commit(self, writer: Writer, file: RemoteFile, place: Place) -> None:
        upload, kind = writer.upload, kind_of(place)
        assert kind is not None, "what is not processed is not pulled"
        try:
            await writer.commit()
        except OSError as error:
            raise BusyError(f"the spool cannot be written: {error.strerror}") from None
        try:
            await self._spool.rename(upload, place, replace=False)
        except ConflictError:
            # A file of this name was uploaded meanwhile, and goes first.
            await self._spool.cancel(upload)
            raise
        now = self._clock()
        await self._state.put_pulled(
            PulledFile(
                name=file.name,
                size_bytes=file.size_bytes,
                modified_at=file.modified_at,
                kind=kind,
                closed_at=upload.info.closed_at or now,
                reported=not self._remote.report_path,
            )
        )
        self._state.count_pulled(file.size_bytes, now)

    async def _finish(self, server: RemoteServer, listed: Iterable[RemoteFile]) -> None:
        """Delete or archive the pulled files that are still on the server."""
        if self._remote.after == "leave":
            return
        if self._remote.after == "archive":
            await server.make_directory(self._remote.archive_path)
        for file in listed:
            pulled = self._state.pulled.get(file.name)
            path = in_directory(self._remote.path, file.name)
            if pulled is None or pulled.version != file.version or not _same(await server.stat(path), file):
                continue
            if self._remote.after == "delete":
                await server.remove(path)
            else:
                to = in_directory(self._remote.archive_path, archive_name(file.name, self._clock()))
                await server.rename(path, to)
            if pulled.reported:
                await self._state.delete_pulled(file.name)

    async def _forget_deleted(self, names: set[str]) -> None:
        """Forget the files that have been missing on the server for `FORGET_AFTER`."""
        now = self._clock()
        for pulled in list(self._state.pulled.values()):
            if pulled.name in names:
                if pulled.missing_since is not None:
                    await self._state.put_pulled(replace(pulled, missing_since=None))
            elif pulled.missing_since is None:
                await self._state.put_pulled(replace(pulled, missing_since=now))
            elif pulled.reported and now - pulled.missing_since > FORGET_AFTER:
                await self._state.delete_pulled(pulled.name)


def _same(found: RemoteFile | None, file: RemoteFile) -> bool:
    return found is not None and found.regular and found.version == file.version


async def _uninterrupted(work: Awaitable[None]) -> None:
    """Finish the work despite a cancellation: a committed file has to be remembered."""
    task = asyncio.ensure_future(work)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait({task})
        raise
