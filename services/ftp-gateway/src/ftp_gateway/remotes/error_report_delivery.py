"""
Delivery of error reports and result files to a remote, from `/errors` of the app to the remote's `report_path`.

A report is written under a temporary name, measured, and renamed. It stays in `/errors` as well.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime, timedelta

import structlog
from msgspec.structs import replace

from ftp_gateway.model import outcome
from ftp_gateway.model.outcome import FileOutcome
from ftp_gateway.model.virtual_paths import Place
from ftp_gateway.remotes.pull import RemoteJob, RemoteServer
from ftp_gateway.remotes.remote import in_directory
from ftp_gateway.remotes.state_store import RemoteStateStore
from ftp_gateway.spool.store import Spool
from shared.contracts.messages import decode
from shared.errors import ConflictError, NotFoundError

log = structlog.get_logger()

REPORT_EXPECTED_WITHIN = timedelta(hours=24)
"""Longest wait for a report. That of a later file may have replaced it, or it was removed."""


class ErrorReportDelivery:
    """Sends the reports that are due. `send` satisfies `ftp_gateway.remotes.pull.SendErrorReports`."""

    def __init__(self, spool: Spool, clock: Callable[[], datetime]) -> None:
        self._spool = spool
        self._clock = clock

    async def send(self, job: RemoteJob, server: RemoteServer, state: RemoteStateStore) -> None:
        """Send the reports of the files that are done. Raises the `MillraceError` of the server."""
        directory = job.remote.report_path
        due = [file for file in state.pulled.values() if not file.reported]
        for file in due if directory else ():
            result_file_name = outcome.result_file_name(file.kind, file.name)
            result = await self._content(job.app_key, result_file_name)
            if result is not None and decode(result, FileOutcome).received_at >= file.closed_at:
                await server.make_directory(directory)
                error_report_name = outcome.error_report_name(file.kind, file.name)
                report = await self._content(job.app_key, error_report_name)
                if report is not None:
                    await _put(server, directory, error_report_name, report)
                await _put(server, directory, result_file_name, result)
            elif self._clock() - file.closed_at < REPORT_EXPECTED_WITHIN:
                continue
            else:
                log.warning("error_report_delivery_expired", app_key=job.app_key, remote=job.id, name=file.name)
            await state.put_pulled(replace(file, reported=True))

    async def _content(self, app_key: str, name: str) -> bytes | None:
        """A report; its size is bounded by `outcome.MAX_REPORTED`."""
        upload = self._spool.find(Place(app_key, "errors", name))
        if upload is None:
            return None
        try:
            return await asyncio.to_thread(self._spool.path(upload).read_bytes)
        except FileNotFoundError:
            return None  # Another replica has just put a later one in its place.


async def _put(server: RemoteServer, directory: str, name: str, data: bytes) -> None:
    """Write a whole file under its name, or nothing. Raises `ConflictError` when the server kept another size."""
    half, path = in_directory(directory, f"{name}.part"), in_directory(directory, name)
    await server.write(half, data)
    found = await server.stat(half)
    if found is None or found.size_bytes != len(data):
        raise ConflictError(f"{name}: the server kept {found.size_bytes if found else 0} bytes of {len(data)}")
    # Plain SFTP renames onto nothing.
    with suppress(NotFoundError):
        await server.remove(path)
    await server.rename(half, path)
