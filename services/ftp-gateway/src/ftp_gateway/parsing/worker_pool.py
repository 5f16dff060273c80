"""
Pool of parser processes (`parsing.worker`), and the session of one file with such a process.

A process starts with the first file and is kept for the next. A process whose file is left in the middle is killed. A
hostile file breaks that process alone; the file is tried again.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final, Self

import msgspec

from ftp_gateway.model.rules import FileKind, FileRules
from ftp_gateway.parsing.file_reader import RowChunk, ValidationResult
from ftp_gateway.parsing.worker import (
    Answer,
    ChunkRead,
    FileValidated,
    FindUnknownUsers,
    ReadChunks,
    Request,
    UnknownUserIds,
    ValidateFile,
)
from shared.errors import UnavailableError
from shared.runtime.worker_process import WorkerProcess

KEPT: Final = 1
"""Idle processes that are kept. Each has some 30 MB."""

AHEAD_BYTES: Final = 1 << 20
"""Bytes of answers that wait to be published. asyncio stops reading at twice this."""

UnknownUsers = Callable[[str, Sequence[str]], Awaitable[set[str]]]
"""Returns those of these external ids of an app that have no profile."""

_answers = msgspec.msgpack.Decoder(Answer)


class ParserPool:
    """
    An async context manager; leaving it ends the processes.

    Args:
        unknown_users: Called only where an app refuses unknown users.
    """

    def __init__(self, unknown_users: UnknownUsers) -> None:
        self._unknown_users = unknown_users
        self._idle: list[WorkerProcess] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        while self._idle:
            await self._idle.pop().end()

    @asynccontextmanager
    async def open(
        self, path: Path, app_key: str, kind: FileKind, rules: FileRules, *, again: str = "", until: int | None = None
    ) -> AsyncIterator["ParserSession"]:
        """Open a session for one file; see `ValidateFile`. An error that leaves the block kills the process."""
        process = self._idle.pop() if self._idle else await _start()
        async with process.killed_on_error():
            request = ValidateFile(str(path), app_key, kind, rules, again, until)
            yield ParserSession(process, request, self._unknown_users)
        if len(self._idle) < KEPT:
            self._idle.append(process)
        else:
            await process.end()


class ParserSession:
    """Session of one file. Both methods raise `UnavailableError` when the process has died."""

    def __init__(self, process: WorkerProcess, request: ValidateFile, unknown_users: UnknownUsers) -> None:
        self._process = process
        self._request = request
        self._unknown_users = unknown_users

    async def validate(self) -> ValidationResult:
        """See `FileReader.validate`. Raises what `unknown_users` raises."""
        await self._send(self._request)
        while True:
            match await self._next():
                case FindUnknownUsers(ext_ids):
                    await self._send(UnknownUserIds(await self._unknown_users(self._request.app_key, ext_ids)))
                case FileValidated(validation):
                    return validation
                case ChunkRead():
                    raise AssertionError("nothing was to be sent yet")

    async def chunks(self, file_name: str, after: int) -> AsyncGenerator[RowChunk, None]:
        """See `FileReader.chunks`. Exhaust it, or leave the session by an error."""
        await self._send(ReadChunks(file_name, after))
        while True:
            answer = await self._next()
            assert isinstance(answer, ChunkRead)
            if answer.chunk is None:
                return
            yield answer.chunk

    async def _send(self, request: Request) -> None:
        try:
            await self._process.send(request)
        except ConnectionError:
            raise _worker_ended() from None

    async def _next(self) -> Answer:
        try:
            answer: Answer = _answers.decode(await self._process.receive())
            return answer
        except EOFError:
            raise _worker_ended() from None


def _worker_ended() -> UnavailableError:
    return UnavailableError("the process that reads files has ended in the middle of one")


async def _start() -> WorkerProcess:
    return await WorkerProcess.start("ftp_gateway.parsing.worker", purpose="that reads files", ahead_bytes=AHEAD_BYTES)
