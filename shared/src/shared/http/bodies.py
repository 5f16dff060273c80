"""
Bodies of requests: the one reader. It counts, unpacks, and keeps to a lowest rate.

Nothing is read before a handler asks, and a handler is called after the token is checked. aiohttp unpacks nothing.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Final

from aiohttp import HttpVersion11, MultipartReader, web

from shared.errors import InvalidError, TooLargeError
from shared.http.unpacking import Unpacker, UnsupportedEncodingError, coding_of
from shared.runtime.slices import Slices

JOINED_PIECES: Final = 16
"""Pieces of some 256 KiB that are joined without a thread."""

GRACE_S: Final = 30.0
BYTES_PER_S: Final = 8 << 10
"""The lowest rate of a body, after `GRACE_S`: a slower one would occupy its connection for too long."""

JSON_VALUES: Final = 20_000
"""Limit on the values of a JSON body: 20,000 take 10 ms to decode, and a body of 1 MiB may hold 500,000."""


async def read_body(
    request: web.Request, max_bytes: int, *, field: str | None = None, count: Callable[[int], None] | None = None
) -> bytes:
    """
    The whole body, unpacked.

    Args:
        count: Called with the size of each piece that is kept in memory. It may refuse the body by raising.

    Raises:
        InvalidError: It is not of its coding, is cut, or came too slowly.
        TooLargeError: It has more bytes, packed or unpacked.
        UnsupportedEncodingError: It is in another coding.
    """
    pieces: list[bytes] = []
    async with TransferRate() as rate:
        async for piece in body_pieces(request, max_bytes, rate, field=field):
            if count is not None:
                count(len(piece))
            pieces.append(piece)
    # A large one, 16 MiB in 10 ms, is joined without the GIL.
    return await asyncio.to_thread(b"".join, pieces) if len(pieces) > JOINED_PIECES else b"".join(pieces)


async def body_pieces(
    request: web.Request, max_bytes: int, rate: "TransferRate", *, field: str | None = None
) -> AsyncIterator[bytes]:
    """The body, unpacked, piece by piece. Raises as `read_body` does; the limit is raised with the first byte above."""
    coding = coding_of(_joined(request, "Content-Encoding"))
    if _joined(request, "Transfer-Encoding").lower() not in {"", "chunked"}:
        raise InvalidError("expected chunked, and packed bodies by Content-Encoding", field="Transfer-Encoding")
    # Random bytes grow a little by packing.
    max_packed_bytes = max_bytes + max_bytes // 64 + 1024 if coding else max_bytes
    too_large = TooLargeError(f"expected at most {max_bytes} bytes", field=field)
    if (request.content_length or 0) > max_packed_bytes:
        raise too_large
    unpacker = Unpacker(coding) if coding and request.body_exists else None
    received = unpacked = 0
    slices = Slices()
    await _continue(request)
    try:
        async for received_piece in request.content.iter_any():
            rate.add(len(received_piece))
            received += len(received_piece)
            if received > max_packed_bytes:
                raise too_large
            for piece in unpacker.feed(received_piece) if unpacker is not None else (received_piece,):
                unpacked += len(piece)
                if unpacked > max_bytes:
                    raise too_large
                if piece:
                    yield piece
                await slices.turn()
    except web.RequestPayloadError:
        raise InvalidError("the body ends too early, or its chunks are malformed", field="body") from None
    if unpacker is not None:
        unpacker.finish()


def _joined(request: web.Request, name: str) -> str:
    """A header with the values of all its lines, which mean the same as one line (RFC 9110, 5.3)."""
    return ", ".join(request.headers.getall(name, ()))


async def multipart_reader(request: web.Request) -> MultipartReader:
    """The parts of a form. A form that is packed as a whole is not read: no browser and no library sends one."""
    if coding_of(_joined(request, "Content-Encoding")):
        raise UnsupportedEncodingError("expected a form that is not packed", field="Content-Encoding")
    await _continue(request)
    return await request.multipart()


def check_json_values(body: bytes) -> None:
    """Count the values of a JSON body before they are made. Raises `TooLargeError` above `JSON_VALUES`."""
    # A comma in a text counts as well: no configuration comes near the limit.
    if body.count(b",") + body.count(b"[") + body.count(b"{") > JSON_VALUES:
        raise TooLargeError(f"expected JSON of at most {JSON_VALUES} values")


async def _continue(request: web.Request) -> None:
    """Ask for the body of a client that waits to be asked (RFC 9110, 10.1.1): its token is good."""
    if request.version == HttpVersion11 and request.headers.get("Expect", "").lower() == "100-continue":
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        # The answer has not begun.
        request.writer.output_size = 0


class TransferRate:
    """
    The lower limit on the rate of a body. An async context manager around the reading.

    A fast beginning does not allow a pause later: the longest pause is `grace_s`.

    Raises:
        InvalidError: On exit, when the body was slower than `bytes_per_s` after `grace_s`.
    """

    def __init__(self, *, grace_s: float = GRACE_S, bytes_per_s: float = BYTES_PER_S) -> None:
        self._grace_s = grace_s
        self._bytes_per_s = bytes_per_s
        self._timeout = asyncio.timeout(grace_s)

    async def __aenter__(self) -> "TransferRate":
        await self._timeout.__aenter__()
        return self

    async def __aexit__(self, *error: object) -> None:
        try:
            await self._timeout.__aexit__(*error)  # type: ignore[arg-type]
        except TimeoutError:
            raise InvalidError(
                f"the body came more slowly than {self._bytes_per_s:.0f} bytes per second", field="body"
            ) from None

    def add(self, count: int) -> None:
        """Count received bytes."""
        if (until := self._timeout.when()) is not None and not self._timeout.expired():
            now = asyncio.get_running_loop().time()
            self._timeout.reschedule(min(until + count / self._bytes_per_s, now + self._grace_s))
