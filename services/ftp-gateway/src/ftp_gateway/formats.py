"""
The kinds of file that an app may upload, seen alike: how each is read, and what its rows are published as.

A kind is one reader (`push_csv`, `profile_txt`), one message and one subject. Which names are of which kind is told by
`paths`. A third kind is a third reader and a branch in each function here.
"""

from collections.abc import Iterator, Sequence
from typing import Literal, Protocol, assert_never, cast
from zoneinfo import ZoneInfo

from msgspec import Struct

from ftp_gateway.lines import Fallback, Parsed, Text
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
CHUNK_CHARS = 128 * 1024
"""Of the file's lines. JSON makes six bytes of a control character, so a chunk stays under the usual `max_payload`."""


class Rules(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """
    How an app's files are read. Frozen when a file is claimed, so that it is read alike after a restart.

    `attributes` empty accepts any attribute; `unknown_users` says whether a profile file may make new profiles;
    `all_or_nothing` refuses a file of which any row is bad.
    """

    settle_s: float = 5.0
    completion: Completion = "settle"
    fallback_encoding: Fallback | None = None
    attributes: dict[str, AttributeType] = {}
    timezone: str = "UTC"
    unknown_users: Literal["create", "reject"] = "create"
    all_or_nothing: bool = False


class Reader(Protocol):
    """
    One pass over one file. The caller feeds blocks in their order and calls `finish` once, at the end.

    `feed` and `finish` give what became whole. They raise `RefusedError` when the file is to be refused whole, and
    nothing else.
    """

    ends_within_a_line: bool
    cut_off: bool

    def feed(self, block: bytes) -> Parsed[PushRow] | Parsed[ProfileRow]: ...

    def finish(self) -> Parsed[PushRow] | Parsed[ProfileRow]: ...


class Chunks:
    """Good rows as the messages they go out in. Deterministic: the same file gives the same chunks."""

    def __init__(self) -> None:
        self._rows: list[Row] = []
        self._sizes: list[int] = []

    def add(self, rows: Sequence[Row], sizes: Sequence[int]) -> Iterator[list[Row]]:
        """Take rows with the lengths of their lines; gives each chunk once a row came that does not fit into it."""
        self._rows += rows
        self._sizes += sizes
        begin = 0
        while (end := self._end(begin)) < len(self._rows):
            yield self._rows[begin:end]
            begin = end
        del self._rows[:begin], self._sizes[:begin]

    def rest(self) -> list[Row]:
        """The rows of the last chunk; may be none."""
        rows, self._rows, self._sizes = self._rows, [], []
        return rows

    def _end(self, begin: int) -> int:
        """Where the chunk ends that begins there, if no more rows come."""
        end = min(begin + CHUNK_ROWS, len(self._rows))
        chars = sum(self._sizes[begin:end])
        while chars > CHUNK_CHARS and end > begin + 1:
            end -= 1
            chars -= self._sizes[end]
        return end


def open_reader(kind: FileKind, text: Text, rules: Rules, *, count_only: bool = False) -> Reader:
    """A reader at the start of a file. With `count_only` it may count rows instead of making them."""
    match kind:
        case "push":
            return PushReader(text, count_only=count_only)
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


def batch_of(
    kind: FileKind, app_key: str, file_id: str, file_name: str, rows: Sequence[Row]
) -> PushBatch | ProfileBatch:
    """The message of one chunk. Its rows are of the kind's own type, because its reader made them."""
    first_line, last_line = rows[0].line, rows[-1].line
    if kind == "push":
        return PushBatch(
            app_key=app_key,
            file_id=file_id,
            file_name=file_name,
            first_line=first_line,
            last_line=last_line,
            rows=tuple(cast(Sequence[PushRow], rows)),
        )
    return ProfileBatch(
        app_key=app_key,
        file_id=file_id,
        file_name=file_name,
        first_line=first_line,
        last_line=last_line,
        rows=tuple(cast(Sequence[ProfileRow], rows)),
    )
