"""
The process that writes Parquet (`formats.parquet.worker`), as the service sees it: started with the first file, kept
for the next, killed when it takes too long or its caller gives up.
"""

import asyncio
from typing import Final, Self

import msgspec

from exporter.formats.parquet.messages import Answer, FileWritten, Request, WriteFailed
from shared.errors import MillraceError, UnavailableError
from shared.runtime.worker_process import WorkerProcess

TIMEOUT_S: Final = 300.0
"""The longest work on one file: 100,000 rows take less than a second, the ten million of a day half a minute."""

_answers = msgspec.msgpack.Decoder(Answer)


class ParquetWorkers:
    """
    One process, which writes a file at a time. An async context manager; leaving it ends the process.

    Both ways to call it raise `UnavailableError` when the process has died, and may be called again then.
    """

    def __init__(self, *, timeout_s: float = TIMEOUT_S) -> None:
        self._timeout_s = timeout_s
        self._turns = asyncio.Lock()
        self._process: WorkerProcess | None = None

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        return self

    async def __aexit__(self, *_: object) -> None:
        async with self._turns:
            process, self._process = self._process, None
        if process is not None:
            await process.end()

    async def write(self, request: Request) -> int:
        """Write a file. Returns its rows."""
        async with self._turns:
            # Taken out for the time of the work: a process that failed is not used again.
            process, self._process = self._process, None
            if process is None:
                process = await WorkerProcess.start("exporter.formats.parquet.worker", purpose="that writes Parquet")
            async with process.killed_on_error():
                answer = await self._answer(process, request)
            self._process = process
        match answer:
            case FileWritten(rows):
                return rows
            case WriteFailed(reason):
                raise MillraceError(f"DuckDB could not write the file: {reason}")

    def write_in_thread(self, request: Request) -> int:
        """As `write`, for another thread than that of the event loop."""
        return asyncio.run_coroutine_threadsafe(self.write(request), self._loop).result()

    async def _answer(self, process: WorkerProcess, request: Request) -> FileWritten | WriteFailed:
        try:
            async with asyncio.timeout(self._timeout_s):
                await process.send(request)
                answer: FileWritten | WriteFailed = _answers.decode(await process.receive())
                return answer
        except (EOFError, ConnectionError):
            raise UnavailableError("the process that writes Parquet has ended in the middle of a file") from None
        except TimeoutError:
            raise UnavailableError(f"a file of Parquet was not written within {self._timeout_s:.0f} s") from None
