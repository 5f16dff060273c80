"""The exporter as a real process beside a test. No test lives here."""

import asyncio
import json
import sys
from asyncio.subprocess import Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from shared.runtime.settings import Settings, child_environment

TESTS = Path(__file__).parents[2]


@asynccontextmanager
async def exporter_process(settings: Settings, folder: Path) -> AsyncIterator[tuple[Process, str]]:
    """
    Run a replica with short leases (`support.servers.quick_exporter`) until the block is left, then kill it.

    Yields the process and its URL once it is ready. The lake is in `settings.data_dir`, for all replicas.
    """
    announce = _announcement(folder)
    environment = child_environment(
        nats_url=settings.nats_url,
        secret_keys=settings.secret_keys,
        http_port=0,
        allow_private_endpoints=True,
        data_dir=settings.data_dir,
        announce_file=announce,
        log_level="error",
    )
    environment["PYTHONPATH"] = str(TESTS)
    command = (sys.executable, "-m", "support.servers.quick_exporter")
    process = await asyncio.create_subprocess_exec(*command, env=environment)
    try:
        while not announce.exists():
            assert process.returncode is None, "the service ended while it started"
            await asyncio.sleep(0.02)
        yield process, json.loads(announce.read_text())["http"]
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


def _announcement(folder: Path) -> Path:
    """Path of the file in which the process announces its URL, without a file."""
    folder.mkdir(exist_ok=True)
    path = folder / "announce.json"
    path.unlink(missing_ok=True)
    return path
