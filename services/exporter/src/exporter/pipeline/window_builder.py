"""
Builder of one window: the events of a range of sequences, as one file for each part. No I/O but its spools.

The same messages give the same bytes, however they are split into calls, so a window can be built again after a crash.
"""

import tempfile
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import BinaryIO, Final, cast

import structlog

from exporter.pipeline.ports import EventMessage, Format, Layout, Reading, WindowLimits
from exporter.pipeline.tables import Row

log = structlog.get_logger()

SPOOL_MEMORY_BYTES: Final = 256 << 10
"""A file up to this size stays in memory. A larger one goes to an unnamed file, of which a crash leaves nothing."""
WAITING_BYTES: Final = 64 << 10
"""Messages of this size are encoded together: many of one event cost little more than one of many."""
SECOND_NS: Final = 10**9


class PartFile:
    """The file of one part. `sha256` is empty until `finish`."""

    def __init__(self, layout: Layout, form: Format, part: str, marker: str) -> None:
        self._spool = cast(BinaryIO, tempfile.SpooledTemporaryFile(SPOOL_MEMORY_BYTES))  # noqa: SIM115
        self._encoder = form.open(self._spool, layout.table(part), marker)
        self._waiting: list[Row] = []
        self.rows = 0
        self.sha256 = ""

    @property
    def size_bytes(self) -> int:
        """The size of the file; exact after `finish`."""
        return self._encoder.size_bytes

    def write(self, rows: Sequence[Row]) -> None:
        """Append rows. They wait for `encode` or `finish`."""
        self._waiting += rows
        self.rows += len(rows)

    def encode(self) -> None:
        """Encode the rows that wait."""
        if self._waiting:
            self._encoder.write(self._waiting)
            self._waiting = []

    def finish(self) -> None:
        """Close the file. Nothing can be written afterwards."""
        self.encode()
        self.sha256 = self._encoder.finish()

    def read(self) -> bytes:
        """The whole file."""
        self._spool.seek(0)
        return self._spool.read()

    def close(self) -> None:
        """Release the spool."""
        self._spool.close()


class WindowBuilder:
    """
    Builds the files of one window. `add` and `finish` use much CPU time: call them in a thread.

    `files` are those of the parts that have rows. `rows_in` and `rows_dropped` count as `Reading` does.
    `first_sequence` is that of the first message with rows, 0 before there is one, and `queued_at` the time when the
    stream stored it. `last_sequence` is that of the last message.

    Args:
        name: Identifies the export, for the markers of its files.
        behind: The export is behind, so files are larger.
        limits: None for a window that is planned already: it holds all that is added.
    """

    def __init__(
        self, name: str, layout: Layout, form: Format, *, limits: WindowLimits | None, behind: bool = False
    ) -> None:
        self._name = name
        self._layout = layout
        self._format = form
        self._limits = limits
        self._most_rows = (limits.rows_behind if behind else limits.rows) if limits else 0
        self._files: dict[str, PartFile] = {}
        self._first_at_ns = 0
        self._waiting_bytes = 0
        self.full = False
        self.first_sequence = 0
        self.last_sequence = 0
        self.rows_in = 0
        self.rows_dropped = 0

    @property
    def files(self) -> Mapping[str, PartFile]:
        """The files by part, in the order of their first rows."""
        return self._files

    @property
    def rows_out(self) -> int:
        """The events that became rows."""
        return sum(file.rows for file in self._files.values())

    @property
    def queued_at(self) -> datetime:
        """The time when the stream stored the first message with rows."""
        return datetime.fromtimestamp(self._first_at_ns // SECOND_NS, UTC)

    def add(self, messages: Sequence[EventMessage]) -> int:
        """Add messages in their order until the window is full. Returns the number of added messages."""
        accepted = 0
        for message in messages:
            if self.full or not self._add(message):
                self.full = True
                break
            accepted += 1
        return accepted

    def finish(self) -> None:
        """Close the files. Nothing can be added afterwards."""
        for file in self._files.values():
            file.finish()

    def close(self) -> None:
        """Release the spools."""
        for file in self._files.values():
            file.close()

    def _add(self, message: EventMessage) -> bool:
        if self._is_other_period(message):
            return False
        reading = self._layout.read(message.data, message.sequence)
        if self._would_exceed(reading):
            return False
        if reading.dropped:
            log.warning(
                "events_dropped", sequence=message.sequence, events=reading.dropped, first_message=reading.reason
            )
            self.rows_dropped += reading.dropped
        self.last_sequence = message.sequence
        self.rows_in += reading.rows_in
        for part, rows in reading.parts.items():
            if rows:
                if not self._files:
                    self.first_sequence, self._first_at_ns = message.sequence, message.at_ns
                self._file(part).write(rows)
        self._waiting_bytes += len(message.data)
        if self._waiting_bytes >= WAITING_BYTES:
            self._encode()
        return True

    def _encode(self) -> None:
        self._waiting_bytes = 0
        for file in self._files.values():
            file.encode()
            if self._limits is not None and file.size_bytes >= self._limits.size_bytes:
                self.full = True

    def _is_other_period(self, message: EventMessage) -> bool:
        if self._limits is None or not self._limits.period_s or not self._files:
            return False
        period_ns = self._limits.period_s * SECOND_NS
        return message.at_ns // period_ns != self._first_at_ns // period_ns

    def _would_exceed(self, reading: Reading) -> bool:
        if self._limits is None or not self._files:
            return False
        parts = [part for part, rows in reading.parts.items() if rows]
        if len(self._files.keys() | parts) > self._limits.parts:
            return True
        return any(
            part in self._files and self._files[part].rows + len(reading.parts[part]) > self._most_rows
            for part in parts
        )

    def _file(self, part: str) -> PartFile:
        file = self._files.get(part)
        if file is None:
            marker = f"{self._name} {part} {self.first_sequence}"
            file = self._files[part] = PartFile(self._layout, self._format, part, marker)
        return file
