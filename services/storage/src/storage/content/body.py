"""
Bodies of uploads, received whole: counted and hashed, a small one in memory and a large one in a file.

Routes and handlers read the bytes; `storage.uploads` stores them. All incoming bodies share one memory limit. A body
that does not fit goes to the disk, whatever its size: a hundred uploads need no more memory than the limit. Apps share
it (`shared.runtime.fair_share`).
"""

import asyncio
import hashlib
import io
import os
import tempfile
from collections.abc import AsyncIterable, AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import BinaryIO, Final, cast

from shared.errors import TooLargeError, UnavailableError
from shared.runtime.fair_share import FairShare
from storage.content.content_types import HEAD_BYTES

SPOOL_BYTES: Final = 8 << 20
"""The largest body in memory."""

PIECE_BYTES: Final = 1 << 20
"""The unit of writing to, and reading from, the disk."""


class Body:
    """
    A body that was received whole. `sha256` is hexadecimal, `head` its first `HEAD_BYTES`.

    `data` is None for a body on the disk. `open` and `pieces` read it from memory or disk. They block, and may be used
    only within the context of `Bodies.receive`.
    """

    def __init__(self, *, size_bytes: int, sha256: str, head: bytes, data: bytes | None, file: int = -1) -> None:
        self.size_bytes = size_bytes
        self.sha256 = sha256
        self.head = head
        self.data = data
        self._file = file

    def open(self) -> BinaryIO:
        """A new reader, at the beginning. The caller closes it."""
        if self.data is not None:
            return io.BytesIO(self.data)
        return cast(BinaryIO, io.BufferedReader(_Reader(self._file, self.size_bytes), PIECE_BYTES))

    def pieces(self) -> Iterator[bytes]:
        """The body in pieces, from the beginning."""
        if self.data is not None:
            yield self.data
            return
        with self.open() as reader:
            while piece := reader.read(PIECE_BYTES):
                yield piece

    def read(self) -> bytes:
        """The whole body."""
        return self.data if self.data is not None else b"".join(self.pieces())


def body_of(data: bytes) -> Body:
    """A body of bytes that are in memory already."""
    sha256 = hashlib.sha256(data).hexdigest()
    return Body(size_bytes=len(data), sha256=sha256, head=data[:HEAD_BYTES], data=data)


class Bodies:
    """
    Receives bodies.

    Args:
        folder: For large ones, in files without a name: a killed process leaves nothing behind.
        memory_bytes: The memory for all incoming bodies together. A quarter of it is kept for apps that use little.
    """

    def __init__(self, folder: Path, *, memory_bytes: int) -> None:
        self._folder = folder
        reserve = memory_bytes // 4
        self._memory = FairShare(memory_bytes - reserve, name="uploads", reserve=reserve, floor=SPOOL_BYTES)

    @asynccontextmanager
    async def receive(
        self, app_key: str, pieces: AsyncIterable[bytes], limit_bytes: int, *, field: str = "file"
    ) -> AsyncIterator[Body]:
        """
        Receive a whole body, for the time of the block.

        Raises:
            TooLargeError: The body exceeds the limit; raised with the first byte above it.
            UnavailableError: The disk is full or fails.
        """
        incoming = _IncomingBody(self, app_key, limit_bytes, field)
        try:
            async for piece in pieces:
                await incoming.add(piece)
            yield await incoming.body()
        finally:
            incoming.close()

    def reserve(self, app_key: str, count: int) -> bool:
        """Reserve memory for `count` bytes. Returns False when too little is free."""
        return self._memory.take(app_key, count)

    def release(self, app_key: str, count: int) -> None:
        """Release reserved memory."""
        self._memory.release(app_key, count)

    def new_file(self) -> BinaryIO:
        """A new file without a name. Blocks. Raises `OSError`."""
        self._folder.mkdir(parents=True, exist_ok=True)
        return cast(BinaryIO, tempfile.TemporaryFile(dir=self._folder, buffering=0))


class _IncomingBody:
    """A body that is being received."""

    def __init__(self, bodies: Bodies, app_key: str, limit_bytes: int, field: str) -> None:
        self._bodies = bodies
        self._app_key = app_key
        self._limit_bytes = limit_bytes
        self._field = field
        self._size_bytes = 0
        self._hash = hashlib.sha256()
        self._head = b""
        self._buffer: list[bytes] = []
        self._buffer_bytes = 0
        self._reserved_bytes = 0
        self._file: BinaryIO | None = None

    async def add(self, piece: bytes) -> None:
        self._size_bytes += len(piece)
        if self._size_bytes > self._limit_bytes:
            raise TooLargeError(f"expected at most {self._limit_bytes} bytes", field=self._field)
        if len(self._head) < HEAD_BYTES:
            self._head += piece[: HEAD_BYTES - len(self._head)]
        self._hash.update(piece)
        self._buffer.append(piece)
        self._buffer_bytes += len(piece)
        if self._file is None and self._size_bytes <= SPOOL_BYTES and self._bodies.reserve(self._app_key, len(piece)):
            self._reserved_bytes += len(piece)
        elif self._file is None or self._buffer_bytes >= PIECE_BYTES:
            await self._write()

    async def body(self) -> Body:
        sha256 = self._hash.hexdigest()
        if self._file is None:
            data = b"".join(self._buffer)
            self._buffer.clear()
            return Body(size_bytes=self._size_bytes, sha256=sha256, head=self._head, data=data)
        await self._write()
        return Body(size_bytes=self._size_bytes, sha256=sha256, head=self._head, data=None, file=self._file.fileno())

    def close(self) -> None:
        self._buffer.clear()
        self._bodies.release(self._app_key, self._reserved_bytes)
        if self._file is not None:
            self._file.close()

    async def _write(self) -> None:
        buffer, self._buffer, self._buffer_bytes = self._buffer, [], 0
        try:
            if self._file is None:
                # Not in the writing thread: a cancelled wait would lose the file object, and nothing would close it.
                self._file = self._bodies.new_file()
            # A cancelled upload ends while the thread still writes: the thread has a descriptor of its own.
            await asyncio.to_thread(_write_all, os.dup(self._file.fileno()), buffer)
        except OSError as error:
            raise UnavailableError(f"the upload cannot be kept on the disk: {error.strerror}") from None
        self._bodies.release(self._app_key, self._reserved_bytes)
        self._reserved_bytes = 0


def _write_all(file: int, pieces: list[bytes]) -> None:
    try:
        for piece in pieces:
            view = memoryview(piece)
            while view:
                view = view[os.write(file, view) :]
    finally:
        os.close(file)


class _Reader(io.RawIOBase):
    """Reads a file that has other readers, from a position of its own."""

    def __init__(self, file: int, size_bytes: int) -> None:
        super().__init__()
        self._file = file
        self._size_bytes = size_bytes
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: object) -> int:
        count = os.preadv(self._file, [cast(bytearray, buffer)], self._at)
        self._at += count
        return count

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._at = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size_bytes}[whence]
        return self._at

    def tell(self) -> int:
        return self._at
