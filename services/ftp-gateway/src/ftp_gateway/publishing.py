"""
The rows of a file into the stream, each once, whatever happens in between.

Every file has a subject of its own, and its chunks are published one after the other, each expecting to follow the one
before. So what the stream holds is always a beginning of the file, and its last message tells where to go on: after a
crash, after an answer that never came, or after another upload of the same content. No window of time is involved.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import aclosing
from datetime import datetime, timedelta

import msgspec
from msgspec import Struct

from ftp_gateway.formats import Chunks, FileKind, Row, batch_of, open_reader, stream_of, subject_of
from ftp_gateway.lines import RowError
from ftp_gateway.survey import Blocks, Survey
from ftp_gateway.tickets import Ticket
from shared.bus import Bus, Message
from shared.errors import ConflictError
from shared.messages import encode
from shared.retry import Backoff, retry

UPLOAD_ID = "Millrace-Upload-Id"
"""The header that tells which upload a chunk came from."""
DUPLICATE_WINDOW = timedelta(hours=24)
"""The same content is sent again only when its upload came later than this after the last time."""

IN_PLACE_S = 30.0
"""How long one chunk is tried before the file is put back and looked at anew."""
BACKOFF = Backoff(first_s=0.2, max_s=5.0)


class _LastLine(Struct, frozen=True):
    last_line: int


class Point(Struct, frozen=True, kw_only=True):
    """Where the stream is: rows up to `line` are there, and `sequence` is that of the subject's last message."""

    line: int = 0
    sequence: int = 0
    duplicate: bool = False


async def find_point(bus: Bus, kind: FileKind, upload_id: str, ticket: Ticket, survey: Survey) -> Point:
    """
    Where to go on with a file.

    `duplicate` says that another upload has brought all of this content within the window: there is nothing to send.
    """
    last = await bus.last_message(stream_of(kind), subject_of(kind, ticket.app_key, survey.file_id))
    if last is None:
        return Point()
    line = _last_line(last)
    if last.headers.get(UPLOAD_ID) == upload_id:
        return Point(line=line, sequence=last.sequence)
    if _closed_at(ticket) - last.at >= DUPLICATE_WINDOW:
        return Point(sequence=last.sequence)
    return Point(line=line, sequence=last.sequence, duplicate=line >= survey.last_line)


async def publish_rows(
    bus: Bus,
    kind: FileKind,
    upload_id: str,
    ticket: Ticket,
    survey: Survey,
    blocks: Blocks,
    point: Point,
    on_rows: Callable[[int], None],
) -> None:
    """
    Publish the good rows after the point, in their order. `on_rows` gets how many more are in the stream.

    Raises:
        ConflictError: Somebody else has published rows of this file meanwhile. Find the point anew.
        BusyError, UnavailableError: The stream takes no more, for longer than `IN_PLACE_S`.
    """
    if survey.text is None or ticket.rules is None:
        raise ConflictError("only a file that was surveyed can be published")
    sender = _Sender(bus, kind, upload_id, ticket, survey.file_id, point)
    reader = open_reader(kind, survey.text, ticket.rules)
    chunks = Chunks()
    async with aclosing(blocks()) as opened:
        async for block in opened:
            for rows in chunks.add(_good(reader.feed(block), survey)):
                await sender.send(rows)
                on_rows(len(rows))
    for rows in [*chunks.add(_good(reader.finish(), survey)), chunks.rest()]:
        await sender.send(rows)
        on_rows(len(rows))


def _good(parsed: Sequence[tuple[int, Row | RowError]], survey: Survey) -> Iterator[tuple[int, Row]]:
    for size_bytes, row in parsed:
        if not isinstance(row, RowError) and row.line not in survey.unknown:
            yield size_bytes, row


class _Sender:
    """One file's subject, from the point on."""

    def __init__(self, bus: Bus, kind: FileKind, upload_id: str, ticket: Ticket, file_id: str, point: Point) -> None:
        self._bus = bus
        self._stream = stream_of(kind)
        self._subject = subject_of(kind, ticket.app_key, file_id)
        self._upload_id = upload_id
        self._ticket = ticket
        self._file_id = file_id
        self._after = point.line
        self._sequence = point.sequence

    async def send(self, rows: list[Row]) -> None:
        rows = [row for row in rows if row.line > self._after]
        if not rows:
            return
        data = encode(batch_of(self._ticket.app_key, self._file_id, self._ticket.name, rows))
        message_id = f"{self._file_id}:{rows[0].line}-{rows[-1].line}"
        last_line = rows[-1].line
        self._sequence = await retry(
            lambda: self._attempt(data, message_id, last_line), backoff=BACKOFF, deadline_s=IN_PLACE_S
        )

    async def _attempt(self, data: bytes, message_id: str, last_line: int) -> int:
        try:
            return await self._bus.publish(
                self._subject,
                data,
                message_id=message_id,
                headers={UPLOAD_ID: self._upload_id},
                expect_last_sequence=self._sequence,
            )
        except ConflictError:
            last = await self._bus.last_message(self._stream, self._subject)
            if last is None or last.headers.get(UPLOAD_ID) != self._upload_id or _last_line(last) != last_line:
                raise
            # It was stored at an earlier attempt, and only the answer was lost.
            return last.sequence


def _last_line(message: Message) -> int:
    return msgspec.json.decode(message.data, type=_LastLine).last_line


def _closed_at(ticket: Ticket) -> datetime:
    return ticket.closed_at or ticket.opened_at
