"""
Open handles of an SFTP session: uploads, downloads, reports of the app, and the listing of a folder.

Configuration: none.
Implementation: reads and writes go straight to the page cache, which is faster than a thread. Only syncs run in one.
Considerations: `close` is for a client that went away, `close_by_client` for a CLOSE packet.
"""

import os
import stat
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from datetime import datetime
from itertools import chain

from asyncssh import SFTPAttrs, SFTPName

from ftp_gateway.model.virtual_paths import WRITABLE
from ftp_gateway.sftp.app_report_folder import AppReport, AppReportFolder
from ftp_gateway.spool.upload import Upload, Writer
from shared.errors import DeniedError, MillraceError

OWNER_ID = 1000
"""Shown as owner and group of every file: clients expect one, and ours have none."""


class FileHandle:
    """A handle. It reads, and refuses writes unless a subclass allows them."""

    def read(self, offset: int, size: int) -> bytes | Awaitable[bytes]:
        raise NotImplementedError

    def attributes(self) -> SFTPAttrs:
        raise NotImplementedError

    def write(self, offset: int, data: bytes) -> int:
        raise DeniedError("the file was opened for reading")

    def set_size(self, size: int) -> None:
        """Ignored, as other attributes that clients set, except by a handle that writes."""

    async def sync(self) -> None:
        """Make the bytes so far durable."""

    async def close_by_client(self) -> None:
        """Close for a client that asked for it."""
        self.close()

    def close(self) -> None:
        """Close for a client that went away."""


class WriteHandle(FileHandle):
    """
    An upload in progress, whose bytes can be read back.

    Args:
        append: Whether each block goes to the end, whatever its offset.
        grow: Reserves room before the file grows, by its new size and the growth; raises as `QuotaUsage.reserve`.
    """

    def __init__(self, writer: Writer, *, append: bool, grow: Callable[[int, int], None]) -> None:
        self.writer = writer
        self._append = append
        self._grow = grow

    def read(self, offset: int, size: int) -> bytes:
        return self.writer.read(offset, size)

    def write(self, offset: int, data: bytes) -> int:
        size = self.writer.upload.size_bytes
        if self._append:
            offset = size
        end = offset + len(data)
        try:
            self._grow(max(size, end), end - size)
        except MillraceError:
            self.writer.mark_failed()
            raise
        return self.writer.write(offset, data)

    def set_size(self, size: int) -> None:
        self._grow(size, size - self.writer.upload.size_bytes)
        self.writer.truncate(size)

    async def sync(self) -> None:
        await self.writer.sync()

    def attributes(self) -> SFTPAttrs:
        return upload_attributes(self.writer.upload)

    async def close_by_client(self) -> None:
        """Complete the upload; it is durable when this returns."""
        await self.writer.commit()

    def close(self) -> None:
        """Leave the upload broken off."""
        self.writer.abandon()


class ReadHandle(FileHandle):
    """A download of a file of the spool."""

    def __init__(self, upload: Upload, handle: int) -> None:
        self._upload = upload
        self._handle = handle

    def read(self, offset: int, size: int) -> bytes:
        return os.pread(self._handle, size, offset)

    def attributes(self) -> SFTPAttrs:
        return upload_attributes(self._upload)

    def close(self) -> None:
        os.close(self._handle)


class ReportHandle(FileHandle):
    """A download of a report of the app."""

    def __init__(self, report_folder: AppReportFolder, report: AppReport) -> None:
        self._report_folder = report_folder
        self._report = report

    def read(self, offset: int, size: int) -> Awaitable[bytes]:
        return self._report_folder.read(self._report, offset, size)

    def attributes(self) -> SFTPAttrs:
        return report_attributes(self._report)


class DirectoryListing:
    """Entries of a folder, over as many READDIRs as it takes. The first READDIR calls `later` for more entries."""

    def __init__(self, names: Iterable[SFTPName], later: Callable[[], Awaitable[Iterable[SFTPName]]] | None) -> None:
        self._names: Iterator[SFTPName] = iter(names)
        self._later = later

    def __aiter__(self) -> AsyncIterator[SFTPName]:
        return self

    async def __anext__(self) -> SFTPName:
        if self._later is not None:
            self._names = chain(self._names, await self._later())
            self._later = None
        for name in self._names:
            return name
        raise StopAsyncIteration


def upload_attributes(upload: Upload) -> SFTPAttrs:
    """Return the attributes of a file of the spool, for STAT."""
    mode = stat.S_IFREG | (0o640 if upload.info.folder in WRITABLE else 0o440)
    return _attributes(mode, upload.changed_at, size=upload.size_bytes)


def report_attributes(report: AppReport) -> SFTPAttrs:
    """Return the attributes of a report of the app, for STAT."""
    return _attributes(stat.S_IFREG | 0o440, report.info.modified_at, size=report.info.size_bytes)


def folder_attributes(at: datetime, *, writable: bool) -> SFTPAttrs:
    """Return the attributes of a folder, for STAT."""
    return _attributes(stat.S_IFDIR | (0o750 if writable else 0o550), at)


def _attributes(mode: int, at: datetime, *, size: int = 0) -> SFTPAttrs:
    seconds = int(at.timestamp())
    return SFTPAttrs(size=size, uid=OWNER_ID, gid=OWNER_ID, permissions=mode, atime=seconds, mtime=seconds, nlink=1)
