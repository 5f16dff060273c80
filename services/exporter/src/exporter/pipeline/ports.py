"""Ports of the pipeline: what a destination and a layout offer to whoever writes files."""

from datetime import datetime
from typing import Protocol

from exporter.pipeline.file_builder import Layout


class Destination(Protocol):
    """
    Where files go. The runtime tries again what raises a retryable error, and fails the run on any other.

    A call that was cancelled may have taken effect.
    """

    async def put(self, key: str, data: bytes) -> None:
        """Create an object. Raises `ConflictError`, and changes nothing, when there is one of this key."""
        ...

    async def read(self, key: str, size_bytes: int) -> bytes | None:
        """The object of a key, or None when there is none of this size. Tells an object of ours from a stranger's."""
        ...


class NamedLayout(Layout, Protocol):
    """A layout also tells names."""

    def name(self, at: datetime) -> str:
        """The name below the export's directory of a file that is written at `at`; another one for every second."""
        ...
