"""
Kinds of file that an app may upload: the reader, the message and the subject of each.

The readers are `push_csv` and `profile_txt`. `model.virtual_paths.kind_of` finds the kind of a name. A third kind is a
third reader and a branch in each function here.
"""

from collections.abc import Iterator, Sequence
from typing import Protocol, assert_never
from zoneinfo import ZoneInfo

from ftp_gateway.model.rules import FileKind, FileRules
from ftp_gateway.parsing.profile_txt import ProfileReader
from ftp_gateway.parsing.push_csv import PushReader
from ftp_gateway.parsing.text import Parsed, Text
from shared.contracts import streams, subjects
from shared.contracts.messages import ProfileBatch, PushBatch, encode
from shared.contracts.streams import Stream

CHUNK_ROWS = 500
CHUNK_BYTES = 256 * 1024
"""Of the rows' JSON, unless one row alone has more: a quarter of the usual `max_payload`."""


class Reader(Protocol):
    """
    One pass over one file. The caller feeds blocks in their order and calls `finish` once, at the end.

    `feed` and `finish` return the rows that became whole. They raise `RefusedError` alone, to refuse the whole file.
    """

    ends_within_a_line: bool
    cut_off: bool

    def feed(self, block: bytes) -> Parsed: ...

    def finish(self) -> Parsed: ...


class ChunkBuilder:
    """Groups good rows into messages. Deterministic: the same file makes the same chunks."""

    def __init__(self) -> None:
        self._lines: list[int] = []
        self._rows: list[bytes] = []

    def add(self, lines: Sequence[int], rows: Sequence[bytes]) -> Iterator[tuple[list[int], list[bytes]]]:
        """Add rows and their lines. Yields each chunk once a row came that does not fit into it."""
        self._lines += lines
        self._rows += rows
        begin = 0
        while (end := self._end(begin)) < len(self._rows):
            yield self._lines[begin:end], self._rows[begin:end]
            begin = end
        del self._lines[:begin], self._rows[:begin]

    def rest(self) -> tuple[list[int], list[bytes]]:
        """Return the last chunk; it may have no rows."""
        return self._lines, self._rows

    def _end(self, begin: int) -> int:
        """Return the end of the chunk that begins there, if no more rows come."""
        end = min(begin + CHUNK_ROWS, len(self._rows))
        size = sum(map(len, self._rows[begin:end]))
        while size > CHUNK_BYTES and end > begin + 1:
            end -= 1
            size -= len(self._rows[end])
        return end


def open_reader(kind: FileKind, text: Text, rules: FileRules, *, count_only: bool = False) -> Reader:
    """Return a reader at the start of a file. With `count_only` it counts rows and renders none."""
    match kind:
        case "push":
            return PushReader(text, count_only=count_only)
        case "profile":
            return ProfileReader(text, rules.attributes, ZoneInfo(rules.timezone), count_only=count_only)
        case _:
            assert_never(kind)


def stream_of(kind: FileKind) -> Stream:
    """Return the stream of the rows of such files."""
    return streams.PUSH if kind == "push" else streams.PROFILE_UPDATES


def subject_of(kind: FileKind, app_key: str, file_id: str) -> str:
    """Return the subject of the rows of one file."""
    return subjects.push_send(app_key, file_id) if kind == "push" else subjects.profile_update(app_key, file_id)


def message_of(
    kind: FileKind, app_key: str, file_id: str, file_name: str, lines: Sequence[int], rows: Sequence[bytes]
) -> bytes:
    """Return the message of one chunk: a `PushBatch` or `ProfileBatch` around rows that are JSON already."""
    batch = (PushBatch if kind == "push" else ProfileBatch)(
        app_key=app_key, file_id=file_id, file_name=file_name, first_line=lines[0], last_line=lines[-1], rows=()
    )
    return encode(batch).removesuffix(b"]}") + b",".join(rows) + b"]}"
