"""Error reports and result files in `/errors`: written whole and durable, in place of the one before."""

import asyncio
import os
import uuid
from collections.abc import Callable
from datetime import datetime

from ftp_gateway.model.virtual_paths import Place
from ftp_gateway.spool.directories import SpoolDirectories
from ftp_gateway.spool.directory_index import DirectoryIndex
from ftp_gateway.spool.upload import Upload
from ftp_gateway.spool.upload_info import InfoFileName, UploadInfo


class ErrorReportFiles:
    """
    Error reports and result files of every app. `model.outcome` names them, `processing.error_report` renders them.

    Args:
        clock: Aware UTC.
    """

    def __init__(self, directories: SpoolDirectories, clock: Callable[[], datetime]) -> None:
        self._directories = directories
        self._clock = clock

    async def put(self, place: Place, data: bytes) -> None:
        """Write a file, in place of an earlier one of its name."""
        now = self._clock()
        info_name = InfoFileName(uuid.uuid4().hex, 1, "report")
        info = UploadInfo(app_key=place.app_key, folder=place.folder, name=place.name, opened_at=now)
        index = self._directories.index(place.app_key, place.folder)
        await asyncio.to_thread(_write, index, info_name, data, info)
        self.delete(place, but=info_name.upload_id)
        if info_name.upload_id not in index.uploads:
            index.add(Upload(info_name, info, size_bytes=len(data), changed_at=now))

    def delete(self, place: Place, *, but: str = "") -> None:
        """Remove the file of a name, if there is one."""
        for earlier in self._directories.uploads_at(place):
            if earlier.state == "report" and earlier.id != but:
                self._directories.index_of(earlier).delete(earlier)


def _write(index: DirectoryIndex, info_name: InfoFileName, data: bytes, info: UploadInfo) -> None:
    with index.path(info_name.upload_id).open("xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    index.write_info(info_name, info, before=None, durable=True)
