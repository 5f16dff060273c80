"""The exporter as a real process beside a test. No test lives here."""

from asyncio.subprocess import Process
from contextlib import AbstractAsyncContextManager
from pathlib import Path

from shared.runtime.settings import Settings
from support.servers.service_process import service_process


def exporter_process(settings: Settings, folder: Path) -> AbstractAsyncContextManager[tuple[Process, str]]:
    """
    Run a replica with short leases (`support.servers.quick_exporter`) until the block is left, then kill it.

    The lake is in `settings.data_dir`, for all replicas.
    """
    return service_process("support.servers.quick_exporter", settings, folder, data_dir=settings.data_dir)
