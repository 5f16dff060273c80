"""The job of a run: one export at one revision, with the layout, format and destination of its files."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from datetime import datetime

from msgspec import Struct

from exporter.exports.schedule import Schedule
from exporter.pipeline.ports import Destination, Layout, OpenEncoder
from exporter.pipeline.selection import Data, EventSelection


class ExportJob(Struct, frozen=True, kw_only=True):
    """
    An export as the domain sees it: its configuration at one revision.

    `location` identifies the destination, without secrets; `directory` has no slash at its ends and may be empty.
    """

    app_key: str
    export_id: str
    revision: int
    selection: EventSelection
    schedule: Schedule
    layout: Callable[[Data], Layout]
    open_encoder: OpenEncoder
    location: str
    directory: str
    open_destination: Callable[[], AbstractAsyncContextManager[Destination]]

    def key(self, at: datetime) -> str:
        """The key of a file written at `at`."""
        name = self.layout(self.selection.data).name(at)
        return f"{self.directory}/{name}" if self.directory else name
