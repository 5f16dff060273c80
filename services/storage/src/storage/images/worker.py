"""
The worker process for images. It reads requests from standard input and writes replies to standard output, one after
the other, until the input ends. `storage.images.worker_pool` starts it as `python -m storage.images.worker`.

Reasons for a process: some decoders hold the interpreter's lock while they work (python-pillow/Pillow#9930). Only a
process can be stopped. A hostile image breaks this process alone, which holds no secret and has a memory limit.
"""

import resource
import signal
import sys
import warnings
from io import BytesIO
from typing import BinaryIO, Final

import msgspec
from msgspec import Struct

from shared.errors import InvalidError, MillraceError, TooLargeError
from shared.runtime.framing import framed, read_frame
from storage.images.image import InspectedImage, inspect_image

MEMORY_BYTES: Final = 2 << 30
"""The limit on address space. The largest accepted image takes 620 MB (see `storage.images.image.MAX_PIXELS`)."""


class ImageRequest(Struct, frozen=True):
    """The head of a request. The image follows it, in `size_bytes`."""

    size_bytes: int
    sides_px: tuple[int, ...]
    avif: bool


class ImageReply(Struct, frozen=True):
    """The reply: the size and thumbnails of the image, or the error."""

    image: InspectedImage | None = None
    code: str = ""
    message: str = ""


def main(requests: BinaryIO, replies: BinaryIO) -> None:
    """Reply to requests until they end."""
    while (body := read_frame(requests)) is not None:
        request = msgspec.msgpack.decode(body, type=ImageRequest)
        content = requests.read(request.size_bytes)
        if len(content) < request.size_bytes:
            return
        replies.write(framed(_reply(content, request)))
        replies.flush()


def _reply(content: bytes, request: ImageRequest) -> ImageReply:
    try:
        return ImageReply(image=inspect_image(BytesIO(content), sides_px=request.sides_px, avif=request.avif))
    except MemoryError:
        error: MillraceError = TooLargeError(f"the image needs more than {MEMORY_BYTES >> 20} MiB to be decoded")
    except (InvalidError, TooLargeError) as refused:
        error = refused
    return ImageReply(code=error.code, message=error.message)


if __name__ == "__main__":
    # Ctrl-C in a terminal goes to every process of the group; this one ends with its input.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Pillow warns of unreadable metadata, a line for each image.
    warnings.simplefilter("ignore")
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    main(sys.stdin.buffer, sys.stdout.buffer)
