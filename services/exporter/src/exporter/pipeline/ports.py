"""Ports of the pipeline: the messages that it reads, and the layout, encoder and destination of a file."""

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import BinaryIO, Protocol

from exporter.pipeline.events import ExportedEvent


class EventMessage(Protocol):
    """A message of `EVENTS`: a JSON array of events."""

    @property
    def sequence(self) -> int: ...

    @property
    def data(self) -> bytes: ...


class Layout(Protocol):
    """
    Columns, cells and names of exported files.

    Pure: the same event gives the same cells in every release, or a planned file could not be built again.
    """

    @property
    def columns(self) -> Sequence[str]:
        """The header."""
        ...

    def row(self, event: ExportedEvent) -> list[str]:
        """The cells of an event, as many as `columns`. Must not raise: one odd event would stop its export."""
        ...

    def name(self, at: datetime) -> str:
        """The name, below the export's directory, of a file that is written at `at`. Each second has its own name."""
        ...


class Encoder(Protocol):
    """Rows to the bytes of one file. The same rows give the same bytes, however they are split into calls."""

    @property
    def size_bytes(self) -> int:
        """Bytes written so far; may lag the rows."""
        ...

    def write(self, rows: Iterable[Sequence[str]]) -> None:
        """Append rows, each as long as the header."""
        ...

    def finish(self) -> str:
        """
        Write the rest.

        Returns:
            The SHA-256 of the whole file in hexadecimal digits.
        """
        ...


OpenEncoder = Callable[[BinaryIO, Sequence[str]], Encoder]
"""Opens an encoder on a binary file, with the header of its columns."""


class Destination(Protocol):
    """
    A store that exported files are written to.

    The caller retries retryable errors and fails the run on any other. A cancelled call may have taken effect.
    """

    async def put(self, key: str, data: bytes) -> None:
        """
        Create an object.

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
