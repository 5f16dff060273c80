"""
Messages between a service and its worker process: msgpack with the length before it. Imports little, because each
worker process loads it.
"""

from typing import BinaryIO, Final

import msgspec
from msgspec import Struct

LENGTH_BYTES: Final = 4


def framed(message: Struct) -> bytes:
    """A message with its length before it."""
    body = msgspec.msgpack.encode(message)
    return len(body).to_bytes(LENGTH_BYTES, "big") + body


def read_frame(stream: BinaryIO) -> bytes | None:
    """The body of the next message, or None at the end of the stream."""
    length = stream.read(LENGTH_BYTES)
    return stream.read(int.from_bytes(length, "big")) if length else None
