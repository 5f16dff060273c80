"""
A child process that answers messages on its standard input and output (`shared.runtime.framing`), from its start to its
end. Pools decide how many there are and when one is used again.
"""

import asyncio
import contextlib
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final, Self

from msgspec import Struct

from shared.errors import UnavailableError
from shared.runtime.framing import LENGTH_BYTES, framed
from shared.runtime.settings import child_environment

AHEAD_BYTES: Final = 1 << 16
"""asyncio's own default."""


class WorkerProcess:
    """
    One process, made by `start`. One task talks to it at a time.

    `send`, `write` and `receive` raise `ConnectionError` or `EOFError` when the process has ended.
    """

    def __init__(self, process: Process) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._process = process
        self._input = process.stdin
        self._output = process.stdout

    @classmethod
    async def start(cls, module: str, *, purpose: str, ahead_bytes: int = AHEAD_BYTES) -> Self:
        """
        Run a module with this interpreter.

        Args:
            purpose: For the error, after "no process": "that reads files".
            ahead_bytes: How much of its answers is read before it is asked for. asyncio stops at twice this.

        Raises:
            UnavailableError: The system starts no process.
        """
        # The process gets none of this one's settings, among which are its secrets.
        environment = child_environment()
        try:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", module, stdin=PIPE, stdout=PIPE, limit=ahead_bytes, env=environment
            )
        except OSError as error:
            raise UnavailableError(f"no process {purpose} can be started: {error.strerror}") from None
        return cls(process)

    async def send(self, message: Struct) -> None:
        """Send a message."""
        await self.write(framed(message))

    async def write(self, data: bytes | memoryview) -> None:
        """Send bytes that follow a message."""
        self._input.write(data)
        await self._input.drain()

    async def receive(self) -> bytes:
        """The body of the next message."""
        length = int.from_bytes(await self._output.readexactly(LENGTH_BYTES), "big")
        return await self._output.readexactly(length)

    @asynccontextmanager
    async def killed_on_error(self) -> AsyncIterator[None]:
        """Kill the process when the block is left by an error or a cancellation: it is in the middle of something."""
        try:
            yield
        except BaseException:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            # Its answers are read to their end: `wait` returns once the pipe is closed, and that is seen after them.
            await asyncio.shield(self._process.communicate())
            raise

    async def end(self) -> None:
        """End the process by the end of its input."""
        self._input.close()
        await self._process.wait()
