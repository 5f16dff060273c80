"""
Bodies of requests: raw, and the parts of a multipart form.

A body is counted while it is read, because aiohttp's own limit does not hold for `multipart()` (aiohttp#3702).
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

from aiohttp import BodyPartReader, web
from aiohttp.http_exceptions import HttpProcessingError

from shared.contracts.messages import MediaKind
from shared.errors import InvalidError, TooLargeError
from shared.http.bodies import TransferRate, body_pieces
from shared.http.server import Call
from storage.state import State
from storage.uploads.records import KINDS

PIECE_BYTES: Final = 64 * 1024
KIND_MAX_BYTES: Final = 64
AROUND_BYTES: Final = 64 * 1024
"""The size of a multipart body beyond that of its file."""


@asynccontextmanager
async def read_multipart(request: web.Request, max_bytes: int) -> AsyncIterator[TransferRate]:
    """Read a multipart body. aiohttp's errors about it, which have no common type, become `InvalidError`."""
    if request.content_type != "multipart/form-data":
        raise InvalidError("expected multipart/form-data", field="Content-Type")
    check_length(request, max_bytes, "file", around_bytes=AROUND_BYTES)
    try:
        async with TransferRate() as rate:
            yield rate
    except (ValueError, AssertionError, RuntimeError, HttpProcessingError) as error:
        raise InvalidError(f"the multipart body is broken: {error}", field="body") from None


def receive_raw_body(call: Call[State], rate: TransferRate, max_bytes: int, field: str) -> Any:
    """Receive the raw body."""
    pieces = body_pieces(call.request, max_bytes, rate, field=field)
    return call.state.bodies.receive(call.app_key, pieces, max_bytes, field=field)


def check_length(request: web.Request, max_bytes: int, field: str, *, around_bytes: int) -> None:
    """Check the announced length of a body that has up to `around_bytes` beside what the limit is for."""
    # A body that announces too much is refused before it is sent. Every body is also counted while it is read.
    if (request.content_length or 0) > max_bytes + around_bytes:
        raise TooLargeError(f"expected at most {max_bytes} bytes", field=field)


def max_bytes_of(call: Call[State], kind: MediaKind | None) -> int:
    """Return the size limit of a kind. The kind may follow the file in a form: then it is the largest limit."""
    max_bytes = call.state.uploads.limits.max_bytes
    return max_bytes[kind] if kind is not None else max(max_bytes.values())


async def part_pieces(part: BodyPartReader, rate: TransferRate, field: str) -> AsyncIterator[bytes]:
    """Yield the pieces of a part."""
    encodings = {part.headers.get(name, "binary").lower() for name in ("Content-Encoding", "Content-Transfer-Encoding")}
    if not encodings <= {"binary", "8bit", "7bit", "identity"}:
        raise InvalidError("expected the bytes as they are, in no encoding", field=field)
    while piece := await part.read_chunk(PIECE_BYTES):
        rate.add(len(piece))
        yield piece


async def read_kind(call: Call[State], part: BodyPartReader, rate: TransferRate) -> MediaKind:
    """Read the form field `kind`."""
    async with call.state.bodies.receive(
        call.app_key, part_pieces(part, rate, "kind"), KIND_MAX_BYTES, field="kind"
    ) as body:
        value = body.read().decode("ascii", "replace").strip()
    for kind in KINDS:
        if value == kind:
            return kind
    raise InvalidError(f"expected one of {', '.join(KINDS)}", field="kind")
