"""
The process that reads files for the service: requests on its standard input, answers on its standard output, one file
after the other, until the input ends. Started by `parsing.worker_pool`: `python -m ftp_gateway.parsing.worker`.

A million rows keep an interpreter busy for seconds, and the service's own has sessions to answer meanwhile.
"""

import contextlib
import fcntl
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import BinaryIO, Final

import msgspec
from msgspec import Struct

from ftp_gateway.model.rules import FileKind, FileRules
from ftp_gateway.parsing.file_reader import FileReader, RowChunk, ValidationResult
from shared.runtime.framing import framed, read_frame

BLOCK_BYTES: Final = 64 * 1024
"""Some hundreds of rows: enough to be read together, and little enough to stay in the processor's cache."""

PIPE_BYTES: Final = 1 << 20
"""The most that an unprivileged user may ask for (pipe(7), /proc/sys/fs/pipe-max-size)."""


class ValidateFile(Struct, frozen=True, tag=True):
    """
    Validate a file. Answered by `FileValidated`; before it by `FindUnknownUsers` where the app refuses unknown users.

    `again` is that of `FileReader`; of a file with a trailer only the bytes `until` it are read.
    """

    path: str
    app_key: str
    kind: FileKind
    rules: FileRules
    again: str = ""
    until: int | None = None


class ReadChunks(Struct, frozen=True, tag=True):
    """Read the file's rows after a line. Answered by a `ChunkRead` for each chunk, and one with None at the end."""

    file_name: str
    after: int


class UnknownUserIds(Struct, frozen=True, tag=True):
    """Answer to `FindUnknownUsers`: the external ids without a profile."""

    unknown: set[str]


class FindUnknownUsers(Struct, frozen=True, tag=True):
    """Ask the service which of these external ids have no profile: the only request of this process."""

    ext_ids: list[str]


class FileValidated(Struct, frozen=True, tag=True):
    """Answer to `ValidateFile`."""

    validation: ValidationResult


class ChunkRead(Struct, frozen=True, tag=True):
    """A chunk of rows; None after the last."""

    chunk: RowChunk | None


Request = ValidateFile | ReadChunks | UnknownUserIds
Answer = FindUnknownUsers | FileValidated | ChunkRead


class InputEndedError(Exception):
    """The input ended: the service has closed it, or has died."""


class _Channel:
    """Requests from the service, and answers to it."""

    def __init__(self, requests: BinaryIO, answers: BinaryIO) -> None:
        self._requests = requests
        self._answers = answers
        self._decoder = msgspec.msgpack.Decoder(Request)

    def next(self) -> Request:
        body = read_frame(self._requests)
        if body is None:
            raise InputEndedError
        request: Request = self._decoder.decode(body)
        return request

    def send(self, answer: Answer) -> None:
        self._answers.write(framed(answer))
        self._answers.flush()

    def unknown_users(self, ext_ids: Sequence[str]) -> set[str]:
        self.send(FindUnknownUsers(list(ext_ids)))
        known = self.next()
        assert isinstance(known, UnknownUserIds)
        return known.unknown


def main(requests: BinaryIO, answers: BinaryIO) -> None:
    """Answer until the requests end."""
    channel = _Channel(requests, answers)
    reading: FileReader | None = None
    try:
        while True:
            request = channel.next()
            match request:
                case ValidateFile():
                    reading = FileReader(
                        request.app_key,
                        request.kind,
                        request.rules,
                        partial(_blocks, Path(request.path), request.until),
                        channel.unknown_users,
                        again=request.again,
                    )
                    channel.send(FileValidated(reading.validate()))
                case ReadChunks():
                    assert reading is not None
                    for chunk in reading.chunks(request.file_name, request.after):
                        channel.send(ChunkRead(chunk))
                    channel.send(ChunkRead(None))
                case UnknownUserIds():
                    raise AssertionError("nothing was asked")
    except (InputEndedError, BrokenPipeError):
        return


def _blocks(path: Path, until: int | None) -> Iterator[bytes]:
    with path.open("rb", buffering=0) as file:
        left = until if until is not None else os.fstat(file.fileno()).st_size
        while left and (block := file.read(min(left, BLOCK_BYTES))):
            left -= len(block)
            yield block


if __name__ == "__main__":
    # Ctrl-C in a terminal goes to every process of the group; this one ends with its input.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # A pipe holds 64 KiB unless it is asked for more, and then each chunk waits for its reader to be awake.
    with contextlib.suppress(OSError):
        fcntl.fcntl(sys.stdout.fileno(), fcntl.F_SETPIPE_SZ, PIPE_BYTES)
    main(sys.stdin.buffer, sys.stdout.buffer)
