"""A service as a real process beside a test. No test lives here."""

import asyncio
import json
import os
import sys
from asyncio.subprocess import Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from shared.runtime.settings import Settings, child_environment

TESTS = Path(__file__).parents[2]


@asynccontextmanager
async def service_process(
    module: str, settings: Settings, folder: Path, *, data_dir: Path | str, source: Path | None = None
) -> AsyncIterator[tuple[Process, str]]:
    """
    Run a module of a service until the block is left, then kill it. Its URL is yielded once it is ready.

    `folder` is for what it announces. `source` holds the package to run instead of the installed one.
    """
    announce = _announcement(folder)
    environment = child_environment(
        nats_url=settings.nats_url,
        secret_keys=settings.secret_keys,
        http_port=0,
        allow_private_endpoints=True,
        data_dir=data_dir,
        announce_file=announce,
        log_level="error",
    )
    environment["PYTHONPATH"] = os.pathsep.join(map(str, [source, TESTS] if source else [TESTS]))
    process = await asyncio.create_subprocess_exec(sys.executable, "-m", module, env=environment)
    try:
        while not announce.exists():
            assert process.returncode is None, "the service ended while it started"
            await asyncio.sleep(0.05)
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
