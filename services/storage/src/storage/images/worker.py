"""
The worker process for images: requests on standard input, replies on standard output, one after the other, until the
input ends. `storage.images.worker_pool` starts it as `python -m storage.images.worker`.

Images are decoded in a process because some decoders hold the interpreter's lock while they work (python-pillow/Pillow
#9930), because only a process can be stopped, and because a hostile image can then break this process alone, which
holds no secret and has a memory limit.
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
from storage.images.image import Picture, picture_of

MEMORY_BYTES: Final = 2 << 30
"""The limit on address space. The largest accepted picture takes 620 MB (see `storage.images.image.MAX_PIXELS`)."""


class Look(Struct, frozen=True):
    """The head of a request. The image follows it, in `size_bytes`."""

    size_bytes: int
    sides_px: tuple[int, ...]
    avif: bool


class Seen(Struct, frozen=True):
    """The reply: a picture, or the error."""

    picture: Picture | None = None
    code: str = ""
    message: str = ""


def main(requests: BinaryIO, answers: BinaryIO) -> None:
    """Reply to requests until they end."""
    while (body := read_frame(requests)) is not None:
        look = msgspec.msgpack.decode(body, type=Look)
        content = requests.read(look.size_bytes)
        if len(content) < look.size_bytes:
            return
        answers.write(framed(_seen(content, look)))
        answers.flush()


def _seen(content: bytes, look: Look) -> Seen:
    try:
        return Seen(picture=picture_of(BytesIO(content), sides_px=look.sides_px, avif=look.avif))
    except MemoryError:
        error: MillraceError = TooLargeError(f"the image needs more than {MEMORY_BYTES >> 20} MiB to be decoded")
    except (InvalidError, TooLargeError) as refused:
        error = refused
    return Seen(code=error.code, message=error.message)


if __name__ == "__main__":
    # Ctrl-C in a terminal goes to every process of the group; this one ends with its input.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Pillow warns of unreadable metadata, a line for each picture.
    warnings.simplefilter("ignore")
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    main(sys.stdin.buffer, sys.stdout.buffer)
