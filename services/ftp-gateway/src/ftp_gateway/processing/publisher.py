"""
Publishing of a file's rows, each once.

Every file has a subject of its own. Its chunks are published in packs, which the stream stores whole or not at all
(NATS ADR-50). Each pack expects the sequence of the one before. So the stream always holds a beginning of the file, and
its last chunk is the resume point: after a crash, after a lost answer, or after another upload of the same content. No
time window is involved. What any user of NATS can put behind it (docs/adr/0027) is passed over.
"""

from collections.abc import AsyncIterator
from contextlib import aclosing
from datetime import datetime, timedelta
from typing import Final

from msgspec import Struct

from ftp_gateway.model.rules import FileKind
from ftp_gateway.parsing.file_reader import RowChunk, ValidationResult
from ftp_gateway.parsing.formats import stream_of, subject_of
from ftp_gateway.spool.upload_info import UploadInfo
from shared.contracts.streams import Stream
from shared.errors import ConflictError
from shared.messaging.bus import Bus
from shared.messaging.message import Message, OutgoingMessage
from shared.messaging.reverse_scan import newest_first
from shared.runtime.retry import Backoff, retry

UPLOAD_ID = "Millrace-Upload-Id"
"""Header with the upload of a chunk."""
DUPLICATE_WINDOW = timedelta(hours=24)
"""Time after which the same content is published again."""

PACK_CHUNKS: Final = 20
PACK_BYTES: Final = 2 << 20
"""A full pack has either. The wait for an ack costs little by then, and the server holds a pack in memory."""

RETRY_S = 30.0
"""Seconds that one pack is retried, before the file goes back and is validated anew."""
BACKOFF = Backoff(first_s=0.2, max_s=5.0)


class _LastLine(Struct, frozen=True):
    last_line: int


class _Chunk(Struct, frozen=True):
    last_line: int
    upload_id: str
    at: datetime


class ResumePoint(Struct, frozen=True, kw_only=True):
    """State of the stream: it has the rows up to `line`; `sequence` is that of the subject's last message."""

    line: int = 0
    sequence: int = 0
    duplicate: bool = False


async def find_resume_point(
    bus: Bus, kind: FileKind, upload_id: str, info: UploadInfo, validation: ValidationResult
) -> ResumePoint:
    """
    Return the resume point of a file.

    `duplicate` says that another upload published all of this content within `DUPLICATE_WINDOW`.
    """
    stream, subject = stream_of(kind), subject_of(kind, info.app_key, validation.file_id)
    last = await bus.last_message(stream, subject)
    if last is None:
        return ResumePoint()
    chunk = await _newest_chunk(bus, stream, subject, last)
    if chunk is None:
        return ResumePoint(sequence=last.sequence)
    if chunk.upload_id == upload_id:
        return ResumePoint(line=chunk.last_line, sequence=last.sequence)
    if _closed_at(info) - chunk.at >= DUPLICATE_WINDOW:
        return ResumePoint(sequence=last.sequence)
    duplicate = chunk.last_line >= validation.last_line
    return ResumePoint(line=chunk.last_line, sequence=last.sequence, duplicate=duplicate)


async def published_line(bus: Bus, kind: FileKind, app_key: str, file_id: str, upload_id: str) -> int:
    """Return the last line of an upload that the stream has; 0 for none."""
    stream, subject = stream_of(kind), subject_of(kind, app_key, file_id)
    last = await bus.last_message(stream, subject)
    chunk = await _newest_chunk(bus, stream, subject, last) if last is not None else None
    return chunk.last_line if chunk is not None and chunk.upload_id == upload_id else 0


async def publish_rows(
    bus: Bus,
    kind: FileKind,
    upload_id: str,
    info: UploadInfo,
    validation: ValidationResult,
    chunks: AsyncIterator[RowChunk],
    point: ResumePoint,
) -> None:
    """
    Publish the good rows after the point, in their order. `chunks` begins there.

    Raises:
        ConflictError: Another replica has published rows of this file meanwhile. Find the resume point anew.
        BusyError, UnavailableError: The stream accepts nothing for longer than `RETRY_S`.
    """
    sender = _Sender(bus, kind, upload_id, info.app_key, validation.file_id, point.sequence)
    pack: list[RowChunk] = []
    pack_bytes = 0
    async for chunk in chunks:
        pack.append(chunk)
        pack_bytes += len(chunk.data)
        if len(pack) == PACK_CHUNKS or pack_bytes >= PACK_BYTES:
            await sender.send(pack)
            pack, pack_bytes = [], 0
    if pack:
        await sender.send(pack)


class _Sender:
    """Publishes to one file's subject, from the resume point on."""

    def __init__(self, bus: Bus, kind: FileKind, upload_id: str, app_key: str, file_id: str, sequence: int) -> None:
        self._bus = bus
        self._stream = stream_of(kind)
        self._subject = subject_of(kind, app_key, file_id)
        self._upload_id = upload_id
        self._sequence = sequence

    async def send(self, pack: list[RowChunk]) -> None:
        messages = [
            OutgoingMessage(
                self._subject,
                chunk.data,
                headers={UPLOAD_ID: self._upload_id},
                expect_last_sequence=self._sequence if chunk is pack[0] else None,
            )
            for chunk in pack
        ]
        self._sequence = await retry(
            lambda: self._attempt(messages, pack[-1].last_line), backoff=BACKOFF, deadline_s=RETRY_S
        )

    async def _attempt(self, messages: list[OutgoingMessage], last_line: int) -> int:
        try:
            return await self._bus.publish_together(messages)
        except ConflictError:
            last = await self._bus.last_message(self._stream, self._subject)
            chunk = _chunk(self._bus, self._stream, last) if last is not None else None
            if last is None or chunk is None or (chunk.upload_id, chunk.last_line) != (self._upload_id, last_line):
                raise
            # An earlier attempt stored it, and only the answer was lost.
            return last.sequence


async def _newest_chunk(bus: Bus, stream: Stream, subject: str, last: Message) -> _Chunk | None:
    """The newest chunk of a file; `last` is the newest message of its subject."""
    chunk = _chunk(bus, stream, last)
    if chunk is None:
        async with aclosing(newest_first(bus, stream, subject)) as messages:
            async for message in messages:
                if message.sequence < last.sequence and (chunk := _chunk(bus, stream, message)) is not None:
                    break
    return chunk


def _chunk(bus: Bus, stream: Stream, message: Message) -> _Chunk | None:
    """A message as a chunk; None for what is none: every chunk has the header, and no answer of NATS has it."""
    upload_id = message.headers.get(UPLOAD_ID, "")
    found = bus.decoded(stream, message.sequence, message.data if upload_id else b"", _LastLine)
    return _Chunk(found.last_line, upload_id, message.at) if found is not None else None


def _closed_at(info: UploadInfo) -> datetime:
    return info.closed_at or info.opened_at
