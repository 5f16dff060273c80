"""
Who this process is among the replicas: a name that it keeps over a restart, in a folder that no other process uses.

A process that was killed holds its leases until others see that it is silent. The one that is started in its place, in
the same folder, has its name, so it takes them back at once: the lock on the folder says that the old one is gone.
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
    """A name that nobody has: the machine's, for people, and eight random digits."""
    return f"{re.sub(r'[^A-Za-z0-9_-]', '-', socket.gethostname())[:40]}-{secrets.token_hex(4)}"


@asynccontextmanager
async def hold_name(directory: Path) -> AsyncIterator[str]:
    """
    The name of the replica whose folder it is, for as long as the block.

    Where another process has the folder, or it cannot be written, the name is a new one, and a restart waits as other
    replicas do.
    """
    name, file = _claim(directory)
    try:
        yield name
    finally:
        if file is not None:
            os.close(file)


def _claim(directory: Path) -> tuple[str, int | None]:
    """A name, and the locked file that keeps it, which the kernel lets go when this process ends."""
    name, file = new_name(), None
    try:
        directory.mkdir(parents=True, exist_ok=True)
        file = os.open(directory / "replica", os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        kept = os.read(file, 100).decode(errors="replace")
        if NAME.fullmatch(kept):
            return kept, file
        os.ftruncate(file, 0)
        os.pwrite(file, name.encode(), 0)
    except OSError as error:
        log.info("replica_name_store_failed", directory=str(directory), message=error.strerror)
    return name, file
