"""The hooks service as a real process beside a test. No test lives here."""

from asyncio.subprocess import Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from hooks.app import SERVICE
from shared.runtime.settings import Settings
from support.run_service import provision_for
from support.servers.service_process import service_process


@asynccontextmanager
async def hooks_process(
    settings: Settings, folder: Path, *, module: str = "hooks", source: Path | None = None
) -> AsyncIterator[tuple[Process, str]]:
    """
    Run a replica with a folder of its own until the block is left, then kill it. Its URL is yielded once it is ready.

    Started again in the same folder it is the same replica. `support.servers.quick_hooks` is the `module` with short
    leases. `source` holds the package to run instead of the installed one.
    """
    await provision_for(SERVICE, settings)
    async with service_process(module, settings, folder, data_dir=folder, source=source) as started:
        yield started
