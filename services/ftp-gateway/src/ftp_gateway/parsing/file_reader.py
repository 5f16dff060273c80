"""
The two passes over a file: `validate` finds out whether it is accepted and counts its rows, `chunks` yields the good
rows.

Nothing is published before the first pass ends, so a refused file has no effect. Memory is bounded: row errors up to
`MAX_REPORTED`, external ids up to `MAX_COUNTED_IDS`, one bit a line where unknown users are refused.

All calls are synchronous and run in the parser process (`parsing.worker`).
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from itertools import compress
from typing import Final

from msgspec import Struct

from ftp_gateway.model.outcome import MAX_REPORTED, RowError
from ftp_gateway.model.rules import FileKind, FileRules
from ftp_gateway.parsing.formats import ChunkBuilder, Reader, message_of, open_reader
from ftp_gateway.parsing.text import FileScan, Parsed, RefusedError, Text, excerpt

MAX_COUNTED_IDS: Final = 300_000
"""
Some 18 MB, and the rows of the largest file that the product asks customers to send. Duplicates of later ids are not
seen, and the count says "at least".
"""

Blocks = Callable[[], Iterator[bytes]]
"""Yields the blocks of the file from its start."""
UnknownUsers = Callable[[Sequence[str]], set[str]]
"""Returns those of these external ids that have no profile."""


class LineSet:
    """Numbers of lines, one bit each."""

    def __init__(self) -> None:
        self._bits = bytearray()

    def add(self, line: int) -> None:
        if line >> 3 >= len(self._bits):
            self._bits.extend(bytes(max(64, (line >> 3) - len(self._bits) + 1)))
        self._bits[line >> 3] |= 1 << (line & 7)

    def __contains__(self, line: int) -> bool:
        return line >> 3 < len(self._bits) and bool(self._bits[line >> 3] & 1 << (line & 7))


class Refusal(Struct, frozen=True):
    """Refusal of a whole file; the fields of a `RefusedError`."""

    reason: str
    message: str
    line: int


class ValidationResult(Struct, kw_only=True):
    """Result of the first pass. `refused` is None for a file that is accepted."""

    file_id: str = ""
    size_bytes: int = 0
    refused: Refusal | None = None
    ok: int = 0
    bad: int = 0
    last_line: int = 0
    errors: list[RowError] = []
    duplicates: int = 0
    duplicates_at_least: bool = False
    warnings: tuple[str, ...] = ()


class RowChunk(Struct, frozen=True):
    """A message of rows as it is published, and its range of lines."""

    first_line: int
    last_line: int
    data: bytes


class FileReader:
    """
    One file, from its validation to its last chunk.

    Args:
        blocks: Opens the file; each block may have any size.
        unknown_users: Called where the app refuses unknown users.
        again: The name under which a customer sends content again on purpose; part of the file id.
    """

    def __init__(
        self,
        app_key: str,
        kind: FileKind,
        rules: FileRules,
        blocks: Blocks,
        unknown_users: UnknownUsers,
        *,
        again: str = "",
    ) -> None:
        self._app_key = app_key
        self._kind: FileKind = kind
        self._rules = rules
        self._again = again
        self._blocks = blocks
        self._find_unknown = unknown_users if kind == "profile" and rules.unknown_users == "reject" else None
        self._text: Text | None = None
        self._ids: set[int] = set()
        self._unknown = LineSet()

    def validate(self) -> ValidationResult:
        """Read the whole file twice: for its id and encoding, then for its rows. Raises what `unknown_users` raises."""
        validation = ValidationResult()
        scan = FileScan(self._app_key, self._kind, self._again)
        for block in self._blocks():
            scan.feed(block)
            validation.size_bytes += len(block)
        validation.file_id = scan.file_id
        try:
            self._text = scan.result(self._rules.fallback_encoding)
            validation.warnings = self._text.warnings
            self._read_rows(validation, open_reader(self._kind, self._text, self._rules, count_only=True))
        except RefusedError as refusal:
            validation.refused = Refusal(refusal.reason, refusal.message, refusal.line)
        self._ids.clear()
        return validation

    def chunks(self, file_name: str, after: int) -> Iterator[RowChunk]:
        """The good rows of a file that is not refused, without those up to line `after`."""
        assert self._text is not None, "a file is validated before it is published"
        reader = open_reader(self._kind, self._text, self._rules)
        chunks = ChunkBuilder()
        for block in self._blocks():
            for lines, rows in self._add(chunks, reader.feed(block), after):
                yield self._chunk(file_name, lines, rows)
        for lines, rows in self._add(chunks, reader.finish(), after):
            yield self._chunk(file_name, lines, rows)
        lines, rows = chunks.rest()
        if rows:
            yield self._chunk(file_name, lines, rows)

    def _add(self, chunks: ChunkBuilder, parsed: Parsed, after: int) -> Iterator[tuple[list[int], list[bytes]]]:
        lines, rows = parsed.lines, parsed.rows
        if lines and (lines[0] <= after or self._find_unknown is not None):
            selected = [line > after and line not in self._unknown for line in lines]
            lines = list(compress(lines, selected))
            rows = list(compress(rows, selected))
        return chunks.add(lines, rows)

    def _chunk(self, file_name: str, lines: Sequence[int], rows: Sequence[bytes]) -> RowChunk:
        assert self._text is not None
        data = message_of(self._kind, self._app_key, self._text.file_id, file_name, lines, rows)
        return RowChunk(lines[0], lines[-1], data)

    def _read_rows(self, validation: ValidationResult, reader: Reader) -> None:
        for block in self._blocks():
            self._count(validation, reader.feed(block))
        self._count(validation, reader.finish())
        if reader.cut_off:
            message = "the last line has no line end and is not a whole row: the upload was cut off"
            raise RefusedError("truncated", message, line=validation.errors[-1].line if validation.errors else 0)
        if validation.ok + validation.bad == 0:
            raise RefusedError("empty", "the file has no rows")
        if reader.ends_within_a_line:
            validation.warnings += ("no_line_end",)
        if self._rules.all_or_nothing and validation.bad:
            message = f"{validation.bad} rows cannot be taken, and the app takes a file whole or not at all"
            raise RefusedError("all_or_nothing", message)

    def _count(self, validation: ValidationResult, parsed: Parsed) -> None:
        lines, ext_ids, errors = parsed.lines, parsed.ext_ids, parsed.errors
        if self._find_unknown is not None and lines:
            names = [ext_id.decode() for ext_id in ext_ids]
            if unknown := self._find_unknown(names):
                known = [name not in unknown for name in names]
                strange = [line for line, name in zip(lines, names, strict=True) if name in unknown]
                for line in strange:
                    self._unknown.add(line)
                errors = sorted([*errors, *_unknown_users(parsed, strange)], key=_line)
                lines, ext_ids = list(compress(lines, known)), list(compress(ext_ids, known))
        validation.bad += len(errors)
        validation.errors += errors[: MAX_REPORTED - len(validation.errors)]
        if lines:
            validation.ok += len(lines)
            validation.last_line = lines[-1]
            self._count_ids(validation, ext_ids)

    def _count_ids(self, validation: ValidationResult, ext_ids: Collection[bytes]) -> None:
        seen = self._ids
        before = len(seen)
        hashes = list(map(hash, ext_ids))
        if before + len(hashes) <= MAX_COUNTED_IDS:
            seen.update(hashes)
            validation.duplicates += len(hashes) - (len(seen) - before)
            return
        for identity in hashes:
            if identity in seen:
                validation.duplicates += 1
            elif len(seen) < MAX_COUNTED_IDS:
                seen.add(identity)
            else:
                validation.duplicates_at_least = True


def _unknown_users(parsed: Parsed, lines: Sequence[int]) -> list[RowError]:
    message = "the app has no user of this external id"
    rows = parsed.data.split(b"\n")
    return [
        RowError(
            line=line, code="unknown_user", message=message, excerpt=excerpt(rows[line - parsed.first_line].decode())
        )
        for line in lines
    ]


def _line(error: RowError) -> int:
    return error.line
