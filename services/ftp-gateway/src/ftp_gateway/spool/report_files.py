"""
The files of ours in `/errors`: written whole and durable, in place of the one before.
"""

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


class ReportFiles:
    """
    What customers are told about their files.

    Args:
        clock: Aware UTC.
    """

    def __init__(self, shelves: SpoolDirectories, clock: Callable[[], datetime]) -> None:
        self._shelves = shelves
        self._clock = clock

    async def put(self, place: Place, data: bytes) -> None:
        """Write one, in place of an earlier one of its name."""
        now = self._clock()
        label = InfoFileName(uuid.uuid4().hex, 1, "report")
        ticket = UploadInfo(app_key=place.app_key, folder=place.folder, name=place.name, opened_at=now)
        shelf = self._shelves.shelf(place.app_key, place.folder)
        await asyncio.to_thread(_write, shelf, label, data, ticket)
        self.drop(place, but=label.upload_id)
        if label.upload_id not in shelf.uploads:
            shelf.add(Upload(label, ticket, size_bytes=len(data), changed_at=now))

    def drop(self, place: Place, *, but: str = "") -> None:
        """Remove the one of a name, if there is one."""
        for earlier in self._shelves.named(place):
            if earlier.state == "report" and earlier.id != but:
                self._shelves.of(earlier).unlink(earlier)


def _write(shelf: DirectoryIndex, label: InfoFileName, data: bytes, ticket: UploadInfo) -> None:
    with shelf.path(label.upload_id).open("xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    shelf.write(label, ticket, before=None, durable=True)
