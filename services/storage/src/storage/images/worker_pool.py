"""
A pool of worker processes for images (`storage.images.worker`), and the bounded queue before it.

A service that accepted more images than it can decode would run out of memory. So a full queue is an error, and the
caller retries. Apps share processes and queue (`shared.runtime.fair_share`). A process that takes too long, or whose
caller was cancelled, is killed; the next image starts another.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Final, Self

import msgspec

from shared.errors import KINDS, InvalidError, TooLargeError
from shared.runtime.fair_share import FairShare
from shared.runtime.worker_process import WorkerProcess
from storage.content.body import Body
from storage.images.image import InspectedImage
from storage.images.worker import ImageReply, ImageRequest

PROCESSES: Final = 2
"""Some 40 MB each, started with the first image."""

NEWCOMERS: Final = 2
"""Processes beyond these for apps that have none, started when one app's images take long."""

WAITING: Final = 64
"""Images that may wait: some three seconds of work, at 50 ms for 12 megapixels and two processes."""

RETRY_AFTER_S: Final = 2.0

TIMEOUT_S: Final = 15.0
"""The time limit of one image. The slowest accepted, a progressive JPEG of 40 megapixels, takes 3 s under load."""

PIECE_BYTES: Final = 256 * 1024


class ImageProcessPool:
    """Decodes images in worker processes. An async context manager: on exit it ends the processes."""

    def __init__(self, *, processes: int = PROCESSES, waiting: int = WAITING, timeout_s: float = TIMEOUT_S) -> None:
        self._timeout_s = timeout_s
        self._processes = processes
        self._slots = FairShare(
            processes, name="images", reserve=NEWCOMERS, waiting=waiting, retry_after_s=RETRY_AFTER_S
        )
        self._idle: list[WorkerProcess] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        while self._idle:
            await self._idle.pop().end()

    async def inspect(self, app_key: str, body: Body, *, sides_px: Sequence[int], avif: bool = False) -> InspectedImage:
        """
        Decode an image and make its thumbnails. See `storage.images.image.inspect_image`.

        Raises:
            InvalidError: Not an image, damaged, or one that makes its decoder fail.
            TooLargeError: It exceeds a limit of the decoder, or takes too long.
            BusyError: The queue is full, and this app has the most images in it.
        """
        async with self._slots.hold(app_key):
            reply = await self._request_with_retry(body, ImageRequest(body.size_bytes, tuple(sides_px), avif))
        if reply.image is None:
            raise KINDS[reply.code](reply.message, field="file")
        return reply.image

    @asynccontextmanager
    async def _process(self) -> AsyncIterator[WorkerProcess]:
        process = self._idle.pop() if self._idle else await _start()
        async with process.killed_on_error():
            yield process
        if len(self._idle) < self._processes:
            self._idle.append(process)
        else:
            await process.end()

    async def _request_with_retry(self, body: Body, request: ImageRequest) -> ImageReply:
        # The first process may have died earlier, for another reason.
        for _ in range(2):
            with contextlib.suppress(EOFError, ConnectionError):
                async with self._process() as process:
                    return await self._request(process, body, request)
        raise InvalidError("the image made its decoder fail", field="file")

    async def _request(self, process: WorkerProcess, body: Body, request: ImageRequest) -> ImageReply:
        try:
            async with asyncio.timeout(self._timeout_s):
                await process.send(request)
                for piece in body.pieces():
                    for at in range(0, len(piece), PIECE_BYTES):
                        await process.write(piece[at : at + PIECE_BYTES])
                return msgspec.msgpack.decode(await process.receive(), type=ImageReply)
        except TimeoutError:
            raise TooLargeError(f"the image took more than {self._timeout_s:g} s to decode", field="file") from None


async def _start() -> WorkerProcess:
    return await WorkerProcess.start("storage.images.worker", purpose="for images")
