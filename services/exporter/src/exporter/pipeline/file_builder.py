"""
Builder of one export file: the selected events of a sequence range, encoded. No I/O but its spool.

The same messages give the same bytes, however they are split into calls, so a file can be built again after a crash.
"""

import tempfile
from collections.abc import Sequence
from typing import BinaryIO, cast

import structlog
from msgspec import Struct

from exporter.pipeline.events import exported, read_message
from exporter.pipeline.ports import EventMessage, Layout, OpenEncoder
from exporter.pipeline.selection import EventSelection

log = structlog.get_logger()

SPOOL_MEMORY_BYTES = 256 << 10
"""A file up to this size stays in memory. A larger one goes to an unnamed file, of which a crash leaves nothing."""


class FileLimits(Struct, frozen=True, kw_only=True):
    """The size at which a file is full. No message is split, so one message may exceed `size_bytes`."""

    rows: int = 100_000
    size_bytes: int = 64 << 20


class ExportFileBuilder:
    """
    Builds one file of an app. `add` and `finish` use much CPU time: call them in a thread.

    `rows_in` counts the events of the selection's type, `rows_out` those that became rows, and `rows_dropped` what is
    no event, or one of another app; a message that is no array counts as one. `last_sequence` is that of the last
    message in the file, 0 before the first.
    """

    def __init__(
        self,
        app_key: str,
        selection: EventSelection,
        layout: Layout,
        open_encoder: OpenEncoder,
        limits: FileLimits | None = None,
    ) -> None:
        self._app_key = app_key
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
        """Add messages in their order until the file is full. Returns the number of added messages."""
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
        """Release the spool."""
        self._spool.close()

    def _add(self, message: EventMessage) -> bool:
        decoded = read_message(message.data, self._app_key)
        event_type = self._selection.event_type
        found = [exported(event) for event in decoded.events if event.type == event_type]
        chosen = [event for event in found if self._selection.matches(event)]
        if self._limits is not None and self.rows_out and self.rows_out + len(chosen) > self._limits.rows:
            return False
        if decoded.dropped:
            log.warning(
                "events_dropped", sequence=message.sequence, events=decoded.dropped, first_message=decoded.reason
            )
            self.rows_dropped += decoded.dropped
        self._encoder.write([self._layout.row(event) for event in chosen])
        self.first_sequence = self.first_sequence or message.sequence
        self.last_sequence = message.sequence
        self.rows_in += len(found)
        self.rows_out += len(chosen)
        if self._limits is not None and self.size_bytes >= self._limits.size_bytes:
            self.full = True
        return True
