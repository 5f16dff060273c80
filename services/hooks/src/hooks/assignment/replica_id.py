"""
The name of this process among the replicas. It is kept over a restart, in a directory that no other process uses.

A process that was killed holds its leases until others see that it is silent. Its successor in the same directory has
its name, so it claims them at once: the lock on the directory proves that the earlier process has ended.
"""

import fcntl
import os
import re
import secrets
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import structlog

log = structlog.get_logger()

NAME = re.compile(r"[A-Za-z0-9_-]{1,60}")


def new_name() -> str:
    """Make a unique name: the machine's, for people, and eight random hex digits."""
    return f"{re.sub(r'[^A-Za-z0-9_-]', '-', socket.gethostname())[:40]}-{secrets.token_hex(4)}"


@asynccontextmanager
async def lock_name(directory: Path) -> AsyncIterator[str]:
    """
    Yield the name of the replica that the directory belongs to, and lock the directory for the block.

    Where another process has the lock, or the directory cannot be written, the name is a new one. A restart then waits
    for the leases to expire, as other replicas do.
    """
    name, file = _claim(directory)
    try:
        yield name
    finally:
        if file is not None:
            os.close(file)


def _claim(directory: Path) -> tuple[str, int | None]:
    """Return a name and the locked file that keeps it. The kernel unlocks it when this process ends."""
    name, file = new_name(), None
    try:
        directory.mkdir(parents=True, exist_ok=True)
        file = os.open(directory / "replica", os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        stored_name = os.read(file, 100).decode(errors="replace")
        if NAME.fullmatch(stored_name):
            return stored_name, file
        os.ftruncate(file, 0)
        os.pwrite(file, name.encode(), 0)
    except OSError as error:
        log.info("replica_name_store_failed", directory=str(directory), message=error.strerror)
    return name, file
