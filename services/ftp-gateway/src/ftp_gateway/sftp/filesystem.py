"""
File system of an SFTP session, on top of the spool. Every path is looked up in the index; none reaches the disk.

Configuration: none.
Implementation: asyncssh's `SFTPServer` with every path method replaced. `handles` has the open files.
Considerations: SETSTAT is answered with OK and ignored, also for a file that was deleted meanwhile: a client that is
    refused sends its file again.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from datetime import datetime
from itertools import chain

from asyncssh import SFTPAttrs, SFTPName, SFTPServer, SSHServerChannel
from asyncssh.constants import FXF_APPEND, FXF_CREAT, FXF_EXCL, FXF_TRUNC, FXF_WRITE

from ftp_gateway.access.accounts import Account
from ftp_gateway.access.quotas import QuotaUsage
from ftp_gateway.model.virtual_paths import FOLDERS, WRITABLE, Folder, Location, locate, place_of, writable_place
from ftp_gateway.sftp.app_report_folder import AppReport, AppReportFolder
from ftp_gateway.sftp.handles import (
    DirectoryListing,
    FileHandle,
    ReadHandle,
    ReportHandle,
    WriteHandle,
    folder_attributes,
    report_attributes,
    upload_attributes,
)
from ftp_gateway.sftp.packets import MAX_BLOCK_BYTES
from ftp_gateway.spool.store import Spool
from ftp_gateway.spool.upload import MAX_FILE_BYTES, Upload
from shared.errors import ConflictError, DeniedError, NotFoundError

PAUSE_S = 0.5
"""Longest pause for the bandwidth before it is computed again, so that a changed limit holds soon."""


class SftpFileSystem(SFTPServer):
    """
    File system of one session of one account.

    Args:
        account: Returns the user as he is now.
        note_progress: Records that the client did something.
        wait_until_read: Returns when the client reads what was sent to it.
    """

    def __init__(
        self,
        channel: "SSHServerChannel[bytes]",
        spool: Spool,
        report_folder: AppReportFolder,
        account: Callable[[], Account],
        usage: QuotaUsage,
        now: datetime,
        *,
        note_progress: Callable[[], None],
        wait_until_read: Callable[[], Awaitable[None]],
    ) -> None:
        super().__init__(channel)
        self._spool = spool
        self._report_folder = report_folder
        self._current_account = account
        self._usage = usage
        self._began_at = now
        self._open: set[FileHandle] = set()
        self.note_progress = note_progress
        self.wait_until_read = wait_until_read

    @property
    def _account(self) -> Account:
        return self._current_account()

    @property
    def max_handles(self) -> int:
        """Files and folders that the session may have open."""
        return self._account.quotas.open_handles

    async def pace(self, size: int) -> None:
        """Count transferred bytes and pause for as long as the bandwidth asks."""
        self._usage.record_transfer(size)
        # Not for a client that has disconnected: its bytes are here, and its handles should not outlive it by minutes.
        while not self.channel.is_closing() and (pause_s := self._usage.pause_s(self._account.quotas)) > 0:
            await asyncio.sleep(min(PAUSE_S, pause_s))
            self.note_progress()

    @property
    def uploading(self) -> bool:
        """Return whether the client has a file open for writing."""
        return any(isinstance(file, WriteHandle) for file in self._open)

    def open(self, path: bytes, pflags: int, attrs: SFTPAttrs) -> object:
        location = locate(path)
        if location.folder == "reports" and not pflags & FXF_WRITE:
            return self._open_report(location)
        return self._track(self._write(location, pflags) if pflags & FXF_WRITE else self._read(location))

    async def _open_report(self, location: Location) -> object:
        return self._track(ReportHandle(self._report_folder, await self._report(location)))

    def _track(self, file: FileHandle) -> FileHandle:
        self._open.add(file)
        return file

    def _write(self, location: Location, pflags: int) -> WriteHandle:
        to = writable_place(self._account.app_key, location)
        there = self._spool.find(to)
        if there is not None and pflags & FXF_CREAT and pflags & FXF_EXCL:
            raise ConflictError("there is a file of this name")
        if there is None and not pflags & FXF_CREAT:
            raise NotFoundError("there is no such file")
        if there is None:
            self._usage.check_file(self._account.quotas)
        if there is None or pflags & FXF_TRUNC:
            writer = self._spool.create(to, self._account.name, self)
        else:
            writer = self._spool.reopen(there, self)
        return WriteHandle(writer, append=bool(pflags & FXF_APPEND), grow=self._grow)

    def _grow(self, size: int, growth: int) -> None:
        self._usage.reserve(self._account.quotas, size, growth)

    def _read(self, location: Location) -> ReadHandle:
        upload = self._find(location)
        return ReadHandle(upload, self._spool.open_bytes(upload))

    def read(self, file_obj: object, offset: int, size: int) -> bytes | Awaitable[bytes]:
        # A client may ask for 4 GiB in one packet, which would be allocated, or at an offset that no file has.
        size = min(size, MAX_BLOCK_BYTES)
        if offset > MAX_FILE_BYTES:
            return b""
        return _handle(file_obj).read(offset, size)

    def write(self, file_obj: object, offset: int, data: bytes) -> int:
        return _handle(file_obj).write(offset, data)

    async def close_by_client(self, file: object) -> None:
        """Close a file whose client asked for it: an upload is complete, and durable when this returns."""
        handle = _handle(file)
        self._open.discard(handle)
        await handle.close_by_client()

    def close(self, file_obj: object) -> None:
        """Close a file whose client went away: an upload has broken off."""
        handle = _handle(file_obj)
        if handle in self._open:
            self._open.discard(handle)
            handle.close()

    def exit(self) -> None:
        """Close every handle when the session is over, also when its task was cancelled."""
        for file in list(self._open):
            self.close(file)

    async def fsync(self, file_obj: object) -> None:
        await _handle(file_obj).sync()

    def stat(self, path: bytes) -> SFTPAttrs | Awaitable[SFTPAttrs]:
        location = locate(path)
        if location.folder == "reports" and location.name:
            return self._stat_report(location)
        return upload_attributes(self._find(location)) if location.name else self._folder(location.folder)

    async def _stat_report(self, location: Location) -> SFTPAttrs:
        return report_attributes(await self._report(location))

    def lstat(self, path: bytes) -> SFTPAttrs | Awaitable[SFTPAttrs]:
        return self.stat(path)

    def fstat(self, file_obj: object) -> SFTPAttrs:
        return _handle(file_obj).attributes()

    def setstat(self, path: bytes, attrs: SFTPAttrs) -> None:
        location = locate(path)
        upload = self._spool.find(place_of(self._account.app_key, location)) if location.name else None
        if upload is None:
            return
        # Every other attribute may be ignored, but not the size, which is content.
        if attrs.size is not None and attrs.size != upload.size_bytes:
            opened = (file for file in self._open if isinstance(file, WriteHandle) and file.writer.upload is upload)
            writing = next(opened, None)
            if writing is None:
                raise DeniedError("the size of a file is changed by who has it open for writing")
            writing.set_size(attrs.size)
        self._spool.touch(upload)

    def lsetstat(self, path: bytes, attrs: SFTPAttrs) -> None:
        self.setstat(path, attrs)

    def fsetstat(self, file_obj: object, attrs: SFTPAttrs) -> None:
        if attrs.size is not None:
            _handle(file_obj).set_size(attrs.size)

    def scandir(self, path: bytes) -> AsyncIterator[SFTPName]:
        location = locate(path)
        if location.name:
            if location.folder != "reports":
                self._find(location)
            raise ConflictError("this is a file")
        names = [SFTPName(name, attrs=self._folder(location.folder)) for name in (b".", b"..")]
        if not location.folder:
            names += [SFTPName(folder.encode(), attrs=self._folder(folder)) for folder in FOLDERS]
        # Made as READDIRs ask for them: a folder may hold tens of thousands.
        files = (
            SFTPName(upload.info.name.encode(), attrs=upload_attributes(upload))
            for upload in self._spool.entries(self._account.app_key, location.folder)
        )
        return DirectoryListing(chain(names, files), self._reports if location.folder == "reports" else None)

    async def _reports(self) -> Iterator[SFTPName]:
        found = await self._report_folder.list(self._account.app_key)
        return (SFTPName(report.name.encode(), attrs=report_attributes(report)) for report in found)

    async def remove(self, path: bytes) -> None:
        upload = self._spool.find(writable_place(self._account.app_key, locate(path)))
        if upload is None:
            raise NotFoundError("there is no such file")
        await self._spool.cancel(upload)

    async def rename(self, oldpath: bytes, newpath: bytes) -> None:
        await self._rename(oldpath, newpath, replace=False)

    async def posix_rename(self, oldpath: bytes, newpath: bytes) -> None:
        await self._rename(oldpath, newpath, replace=True)

    async def _rename(self, old: bytes, new: bytes, *, replace: bool) -> None:
        upload = self._spool.find(writable_place(self._account.app_key, locate(old)))
        to = writable_place(self._account.app_key, locate(new))
        if upload is None:
            raise NotFoundError("there is no such file")
        await self._spool.rename(upload, to, replace=replace)

    def mkdir(self, path: bytes, attrs: SFTPAttrs) -> None:
        if not locate(path).name:
            raise ConflictError("there is such a folder")
        raise DeniedError("the folders are fixed")

    def rmdir(self, path: bytes) -> None:
        locate(path)
        raise DeniedError("the folders are fixed")

    def realpath(self, path: bytes) -> bytes:
        return locate(path).path.encode()

    def format_user(self, uid: int | None) -> str:
        return self._account.app_key[:8]

    def format_group(self, gid: int | None) -> str:
        return self._account.app_key[:8]

    async def _report(self, location: Location) -> AppReport:
        if not location.name:
            raise DeniedError("this is a folder")
        return await self._report_folder.find(self._account.app_key, location.name)

    def _find(self, location: Location) -> Upload:
        upload = self._spool.find(place_of(self._account.app_key, location))
        if upload is None:
            raise NotFoundError("there is no such file")
        return upload

    def _folder(self, folder: Folder) -> SFTPAttrs:
        return folder_attributes(self._began_at, writable=folder in WRITABLE)


def _handle(file_obj: object) -> FileHandle:
    assert isinstance(file_obj, FileHandle)
    return file_obj
