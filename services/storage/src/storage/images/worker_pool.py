"""
A pool of worker processes for images (`storage.images.worker`), and the bounded queue before it.

A service that accepted more images than it can decode would run out of memory. So a full queue is an error, and the
caller retries. A process that takes too long, or whose caller was cancelled, is killed; the next image starts another.
"""

import asyncio
import contextlib
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Final, Self

import msgspec

from shared.errors import KINDS, BusyError, InvalidError, TooLargeError, UnavailableError
from shared.runtime.settings import child_environment
from storage.content.body import Body
from storage.images.image import Picture
from storage.images.worker import LENGTH_BYTES, Look, Seen, framed

PROCESSES: Final = 2
"""Some 40 MB each, started with the first image."""

WAITING: Final = 64
"""Images that may wait: some three seconds of work, at 50 ms for 12 megapixels and two processes."""

RETRY_AFTER_S: Final = 2.0

LOOK_S: Final = 15.0
"""The time limit of one image. The slowest accepted, a progressive JPEG of 40 megapixels, takes 3 s under load."""

PIECE_BYTES: Final = 256 * 1024


class ImageProcessPool:
    """Decodes images in worker processes. An async context manager: on exit it ends the processes."""

    def __init__(self, *, processes: int = PROCESSES, waiting: int = WAITING, look_s: float = LOOK_S) -> None:
        self._look_s = look_s
        self._free = processes + waiting
        self._slots = asyncio.Semaphore(processes)
        self._idle: list[Process] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        while self._idle:
            await _end(self._idle.pop())

    async def look(self, body: Body, *, sides_px: Sequence[int], avif: bool = False) -> Picture:
        """
        Decode an image and make its thumbnails. See `storage.images.image.picture_of`.

        Raises:
            InvalidError: Not an image, damaged, or one that makes its decoder fail.
            TooLargeError: It exceeds a limit of the decoder, or takes too long.
            BusyError: The queue is full.
        """
        if self._free <= 0:
            raise BusyError("too many pictures wait to be worked on", retry_after_s=RETRY_AFTER_S)
        self._free -= 1
        try:
            seen = await self._ask_twice(body, Look(body.size_bytes, tuple(sides_px), avif))
        finally:
            self._free += 1
        if seen.picture is None:
            raise KINDS[seen.code](seen.message, field="file")
        return seen.picture

    @asynccontextmanager
    async def _process(self) -> AsyncIterator[Process]:
        process = self._idle.pop() if self._idle else await _start()
        try:
            yield process
        except BaseException:
            # It is in the middle of something, or gone.
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await asyncio.shield(process.wait())
            raise
        self._idle.append(process)

    async def _ask_twice(self, body: Body, look: Look) -> Seen:
        # The first process may have died before, of something else.
        async with self._slots:
            for _ in range(2):
                with contextlib.suppress(EOFError, ConnectionError):
                    async with self._process() as process:
                        return await self._ask(process, body, look)
        raise InvalidError("the image made its decoder fail", field="file")

    async def _ask(self, process: Process, body: Body, look: Look) -> Seen:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            async with asyncio.timeout(self._look_s):
                process.stdin.write(framed(look))
                for piece in body.pieces():
                    for at in range(0, len(piece), PIECE_BYTES):
                        process.stdin.write(piece[at : at + PIECE_BYTES])
                        await process.stdin.drain()
                length = int.from_bytes(await process.stdout.readexactly(LENGTH_BYTES), "big")
                return msgspec.msgpack.decode(await process.stdout.readexactly(length), type=Seen)
        except TimeoutError:
            raise TooLargeError(f"the image took more than {self._look_s:g} s to decode", field="file") from None


async def _start() -> Process:
    # The process gets none of this one's settings, among which are its secrets.
    environment = child_environment()
    try:
        return await asyncio.create_subprocess_exec(
            sys.executable, "-m", "storage.images.worker", stdin=PIPE, stdout=PIPE, env=environment
        )
    except OSError as error:
        raise UnavailableError(f"no process for pictures can be started: {error.strerror}") from None


async def _end(process: Process) -> None:
    assert process.stdin is not None
    process.stdin.close()
    await process.wait()
