"""
The first pass over a file: whether it is taken at all, which of its rows are good, and what to tell of the others.

Nothing is published before this is done, so a file that is refused has had no effect. Memory is bounded: row errors
up to `MAX_REPORTED`, external ids up to `MAX_COUNTED_IDS`, one bit for a line where unknown users are refused.
"""

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing

from ftp_gateway.formats import FileKind, Reader, Row, Rules, open_reader
from ftp_gateway.lines import FileScan, RefusedError, RowError, Text
from ftp_gateway.reports import MAX_REPORTED
from shared.messages import ProfileRow

MAX_COUNTED_IDS = 200_000
"""Above it a duplicate of an id that came later than this is not seen, and the count says "at least"."""

Blocks = Callable[[], AsyncGenerator[bytes, None]]
"""Opens the file from its start. Each block is small enough to be parsed without holding up the loop for long."""
UnknownUsers = Callable[[str, Sequence[str]], Awaitable[set[str]]]
"""Which of these external ids of an app have no profile."""


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


class Survey:
    """What the first pass found. `refused` is why the file is refused whole, or None."""

    def __init__(self) -> None:
        self.file_id = ""
        self.size_bytes = 0
        self.text: Text | None = None
        self.refused: RefusedError | None = None
        self.ok = 0
        self.bad = 0
        self.last_line = 0
        self.errors: list[RowError] = []
        self.duplicates = 0
        self.duplicates_at_least = False
        self.warnings: tuple[str, ...] = ()
        self.unknown = LineSet()
        self._ids: set[int] = set()

    def take(self, row: Row | RowError) -> None:
        """Count a row."""
        if isinstance(row, RowError):
            self.bad += 1
            if len(self.errors) < MAX_REPORTED:
                self.errors.append(row)
            return
        self.ok += 1
        self.last_line = row.line
        identity = hash(row.ext_id)
        if identity in self._ids:
            self.duplicates += 1
        elif len(self._ids) < MAX_COUNTED_IDS:
            self._ids.add(identity)
        else:
            self.duplicates_at_least = True

    def done(self) -> None:
        """Let go of what only counting needed."""
        self._ids.clear()


async def make_survey(
    app_key: str, kind: FileKind, rules: Rules, blocks: Blocks, unknown_users: UnknownUsers, again: str = ""
) -> Survey:
    """Read a whole file twice: for its id and encoding, then for its rows. Raises what `unknown_users` raises."""
    survey = Survey()
    scan = FileScan(app_key, kind, again)
    async with aclosing(blocks()) as opened:
        async for block in opened:
            scan.feed(block)
            survey.size_bytes += len(block)
    survey.file_id = scan.file_id
    try:
        survey.text = scan.result(rules.fallback_encoding)
        survey.warnings = survey.text.warnings
        lookup = unknown_users if kind == "profile" and rules.unknown_users == "reject" else None
        await _rows(survey, app_key, open_reader(kind, survey.text, rules), blocks, lookup)
    except RefusedError as refusal:
        survey.refused = refusal
    survey.done()
    return survey


async def _rows(survey: Survey, app_key: str, reader: Reader, blocks: Blocks, lookup: UnknownUsers | None) -> None:
    async with aclosing(blocks()) as opened:
        async for block in opened:
            await _take(survey, app_key, reader.feed(block), lookup)
    await _take(survey, app_key, reader.finish(), lookup)
    if reader.cut_off:
        message = "the last line has no line end and is not a whole row: the upload was cut off"
        raise RefusedError("truncated", message, line=survey.errors[-1].line if survey.errors else 0)
    if survey.ok + survey.bad == 0:
        raise RefusedError("empty", "the file has no rows")
    if reader.ends_within_a_line:
        survey.warnings += ("no_line_end",)


async def _take(
    survey: Survey, app_key: str, parsed: Sequence[tuple[int, Row | RowError]], lookup: UnknownUsers | None
) -> None:
    unknown: set[str] = set()
    if lookup is not None:
        unknown = await lookup(app_key, [row.ext_id for _, row in parsed if isinstance(row, ProfileRow)])
    for _, row in parsed:
        if isinstance(row, ProfileRow) and row.ext_id in unknown:
            survey.unknown.add(row.line)
            message = "the app has no user of this external id"
            survey.take(RowError(line=row.line, code="unknown_user", message=message, excerpt=row.ext_id))
        else:
            survey.take(row)
