"""
A draft: the events of a stretch of the stream as one compressed file that nobody was sent yet. No I/O but its spool.

The same messages give the same bytes, however they are cut into calls: a file can be drafted again after a crash.
"""

import tempfile
from collections.abc import Sequence
from typing import BinaryIO, cast

import msgspec
import structlog
from msgspec import Struct

from exporter.pipeline.ports import EventMessage, Layout, OpenEncoder
from exporter.pipeline.selection import EventSelection
from shared.contracts.messages import Event

log = structlog.get_logger()

SPOOL_MEMORY_BYTES = 256 << 10
"""A draft up to this size stays in memory; a larger one goes to an unnamed file, which a crash leaves no trace of."""

_decoder = msgspec.json.Decoder(list[Event])


class FileLimits(Struct, frozen=True, kw_only=True):
    """When a file is full. A message is never cut, so `size_bytes` is passed by at most what one message adds."""

    rows: int = 100_000
    size_bytes: int = 64 << 20


class ExportFile:
    """
    One file in the making. `add` and `finish` work hard: call them in a thread.

    `rows_in` counts the events of the selection's type, `rows_out` those that became rows, and `rows_dropped` the
    messages that hold no events. `last_sequence` is the last message that was taken, 0 before the first.
    """

    def __init__(
        self, selection: EventSelection, layout: Layout, open_encoder: OpenEncoder, limits: FileLimits | None = None
    ) -> None:
        self._selection = selection
        self._layout = layout
        self._limits = limits
        self._spool = cast(BinaryIO, tempfile.SpooledTemporaryFile(SPOOL_MEMORY_BYTES))  # noqa: SIM115
        self._encoder = open_encoder(self._spool, layout.columns)
        self.full = False
        self.first_sequence = 0
        self.last_sequence = 0
        self.rows_in = 0
        self.rows_out = 0
        self.rows_dropped = 0
        self.sha256 = ""

    @property
    def size_bytes(self) -> int:
        """The size of the file; exact after `finish`."""
        return self._encoder.size_bytes

    def add(self, messages: Sequence[EventMessage]) -> int:
        """Take messages in their order until the file is full. Gives how many were taken."""
        accepted = 0
        for message in messages:
            if self.full or not self._add(message):
                self.full = True
                break
            accepted += 1
        return accepted

    def finish(self) -> None:
        """Close the file. Nothing can be added afterwards."""
        self.sha256 = self._encoder.finish()

    def read(self) -> bytes:
        """The whole file."""
        self._spool.seek(0)
        return self._spool.read()

    def close(self) -> None:
        """Give the spool back."""
        self._spool.close()

    def _add(self, message: EventMessage) -> bool:
        try:
            events = _decoder.decode(message.data)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            # Whoever published it was let to by NATS; it must not stop an export for good.
            log.error("events_unreadable", sequence=message.sequence, message=str(error))
            self.rows_dropped += 1
            events = []
        wanted = self._selection.event_type
        found = [event for event in events if event.type == wanted]
        chosen = [event for event in found if self._selection.matches(event)]
        if self._limits is not None and self.rows_out and self.rows_out + len(chosen) > self._limits.rows:
            return False
        self._encoder.write([self._layout.row(event) for event in chosen])
        self.first_sequence = self.first_sequence or message.sequence
        self.last_sequence = message.sequence
        self.rows_in += len(found)
        self.rows_out += len(chosen)
        if self._limits is not None and self.size_bytes >= self._limits.size_bytes:
            self.full = True
        return True
