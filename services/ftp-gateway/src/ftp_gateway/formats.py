"""
The kinds of file that an app may upload, seen alike: how each is read, and what its rows are published as.

A kind is one reader (`push_csv`, `profile_txt`), one message and one subject. Which names are of which kind is told by
`paths`. A third kind is a third reader and a branch in each function here.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Literal, Protocol, assert_never
from zoneinfo import ZoneInfo

from msgspec import Struct

from ftp_gateway.lines import Fallback, RowError, Text
from ftp_gateway.profile_txt import ProfileReader
from ftp_gateway.profile_values import AttributeType
from ftp_gateway.push_csv import PushReader
from shared import subjects
from shared.messages import ProfileBatch, ProfileRow, PushBatch, PushRow
from shared.subjects import Stream

FileKind = Literal["push", "profile"]
Completion = Literal["settle", "rename", "done_marker", "row_count", "sha256"]
"""What an app wants to see before a file counts as complete. See `completion`."""
Row = PushRow | ProfileRow

CHUNK_ROWS = 500
CHUNK_BYTES = 128 * 1024
"""Of the file's lines. JSON makes six bytes of a control character, so a chunk stays under the usual `max_payload`."""


class Rules(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """
    How an app's files are read. Frozen when a file is claimed, so that it is read alike after a restart.

    `attributes` empty accepts any attribute; `unknown_users` says whether a profile file may make new profiles.
    """

    settle_s: float = 5.0
    completion: Completion = "settle"
    fallback_encoding: Fallback | None = None
    attributes: dict[str, AttributeType] = {}
    timezone: str = "UTC"
    unknown_users: Literal["create", "reject"] = "create"


class Reader(Protocol):
    """
    One pass over one file. The caller feeds blocks in their order and calls `finish` once, at the end.

    `feed` and `finish` give what became whole: rows and row errors, each with the size of its line in bytes. They raise
    `RefusedError` when the file is to be refused whole, and nothing else.
    """

    ends_within_a_line: bool
    cut_off: bool

    def feed(self, block: bytes) -> Sequence[tuple[int, Row | RowError]]: ...

    def finish(self) -> Sequence[tuple[int, Row | RowError]]: ...


class Chunks:
    """Good rows as the messages they go out in. Deterministic: the same file gives the same chunks."""

    def __init__(self) -> None:
        self._rows: list[Row] = []
        self._bytes = 0

    def add(self, rows: Iterable[tuple[int, Row]]) -> Iterator[list[Row]]:
        """Take rows with their sizes; gives each chunk as soon as the next row does not fit into it."""
        for size_bytes, row in rows:
            if self._rows and (len(self._rows) == CHUNK_ROWS or self._bytes + size_bytes > CHUNK_BYTES):
                yield self.rest()
            self._rows.append(row)
            self._bytes += size_bytes

    def rest(self) -> list[Row]:
        """The rows of the last chunk; may be none."""
        rows, self._rows, self._bytes = self._rows, [], 0
        return rows


def open_reader(kind: FileKind, text: Text, rules: Rules) -> Reader:
    """A reader at the start of a file."""
    match kind:
        case "push":
            return PushReader(text)
        case "profile":
            return ProfileReader(text, rules.attributes, ZoneInfo(rules.timezone))
        case _:
            assert_never(kind)


def stream_of(kind: FileKind) -> Stream:
    """The stream that holds the rows of such files."""
    return subjects.PUSH if kind == "push" else subjects.PROFILE_UPDATES


def subject_of(kind: FileKind, app_key: str, file_id: str) -> str:
    """The subject that holds the rows of one file and nothing else."""
    return subjects.push_send(app_key, file_id) if kind == "push" else subjects.profile_update(app_key, file_id)


def batch_of(app_key: str, file_id: str, file_name: str, rows: Sequence[Row]) -> PushBatch | ProfileBatch:
    """The message of one chunk. All rows are of one kind, because one reader made them."""
    first_line, last_line = rows[0].line, rows[-1].line
    if isinstance(rows[0], PushRow):
        return PushBatch(
            app_key=app_key,
            file_id=file_id,
            file_name=file_name,
            first_line=first_line,
            last_line=last_line,
            rows=tuple(row for row in rows if isinstance(row, PushRow)),
        )
    return ProfileBatch(
        app_key=app_key,
        file_id=file_id,
        file_name=file_name,
        first_line=first_line,
        last_line=last_line,
        rows=tuple(row for row in rows if isinstance(row, ProfileRow)),
    )
