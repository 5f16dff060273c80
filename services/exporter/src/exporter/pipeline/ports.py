"""Ports of the pipeline: the messages that it reads, and the layout, format and destination of files."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import BinaryIO, Literal, NamedTuple, Protocol

from msgspec import Struct

from exporter.pipeline.lane import WHOLE, Lane
from exporter.pipeline.tables import Row, Table

Operator = Literal["customer", "provider", "platform"]
"""The operator of a store: the customer, a provider such as AWS, or this platform."""


class EventMessage(Protocol):
    """A message of `EVENTS`: a JSON array of events, and the time when the stream stored it."""

    @property
    def sequence(self) -> int: ...

    @property
    def at_ns(self) -> int: ...

    @property
    def data(self) -> bytes: ...


class Reading(NamedTuple):
    """
    The rows of a message, by part. A part is a file of its own in each window: one type of events.

    `rows_in` counts the events of the export's kind. `dropped` counts items that are no event, or one of another app;
    a message that is no array counts as one. `reason` is that of the first.
    """

    parts: Mapping[str, Sequence[Row]]
    rows_in: int
    dropped: int = 0
    reason: str = ""


class WindowLimits(Struct, frozen=True, kw_only=True):
    """
    The size at which a window ends. No message is split, so one message may exceed each of them.

    `rows` and `size_bytes` are those of one file; `rows_behind` holds for windows of an export that is behind. `parts`
    is the largest number of files. `period_s` ends a window with the period in which its messages were stored, counted
    from the epoch: 3600 with the UTC hour. 0 has no such end.
    """

    rows: int = 100_000
    rows_behind: int = 100_000
    size_bytes: int = 64 << 20
    parts: int = 200
    period_s: int = 0


class FileName(Struct, frozen=True, kw_only=True):
    """
    Facts for the name of a file.

    `named_at` is the time of the run, in whole seconds that no other file of the export has. `queued_at` is the time
    when the stream stored the window's first message with rows, and `first_sequence` the position of that message.
    `last_sequence` is that of the window's last message, and `lane` what the window was read from.
    """

    part: str
    named_at: datetime
    queued_at: datetime
    first_sequence: int
    last_sequence: int = 0
    lane: Lane = WHOLE


class Layout(Protocol):
    """
    Rows, columns and names of exported files.

    Pure: the same message gives the same rows in every release, or a planned file could not be built again.
    """

    @property
    def limits(self) -> WindowLimits:
        """The limits of its windows."""
        ...

    @property
    def is_named_by_second(self) -> bool:
        """Whether another writer may have used a name; then the file takes that of the next second."""
        ...

    def read(self, data: bytes, sequence: int) -> Reading:
        """The rows of a message at a position of the stream. Must not raise: one odd event would stop its export."""
        ...

    def table(self, part: str) -> Table:
        """The columns of a part."""
        ...

    def name(self, name: FileName) -> str:
        """The name of a file below the export's directory, without the suffix of its format."""
        ...


class Encoder(Protocol):
    """Rows to the bytes of one file. The same rows give the same bytes, however they are split into calls."""

    @property
    def size_bytes(self) -> int:
        """Bytes written so far; may lag the rows."""
        ...

    def write(self, rows: Iterable[Row]) -> None:
        """Append rows, each as long as the table has columns."""
        ...

    def finish(self) -> str:
        """
        Write the rest.

        Returns:
            The SHA-256 of the whole file in hexadecimal digits.
        """
        ...


class Format(Struct, frozen=True, kw_only=True):
    """
    A format of files.

    `open` gives an encoder on a binary file. Its last argument is a text that is the same whenever the file is built,
    and another one for each file: formats that need a random marker derive it from there.
    """

    suffix: str
    content_type: str
    open: Callable[[BinaryIO, Table, str], Encoder]


class Destination(Protocol):
    """
    A store that exported files are written to.

    The caller retries retryable errors and fails the run on any other. A cancelled call may have taken effect.
    """

    async def put(self, key: str, data: bytes, content_type: str) -> str:
        """
        Create an object.

        Returns:
            The etag that the store gave; empty where it gave none.

        Raises:
            ConflictError: There is an object of this key; it is unchanged.
            MillraceError: The store failed or refused.
        """
        ...

    async def read(self, key: str, size_bytes: int) -> bytes | None:
        """
        Read an object, to distinguish one that the exporter wrote from another writer's.

        Returns:
            The object, or None when there is none of this size.
        """
        ...
