"""The job of a run: one export at one revision, with the layout, format and destination of its files."""

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager

from msgspec import Struct

from exporter.exports.progress import WindowPlan
from exporter.exports.schedule import Schedule
from exporter.pipeline.content import Content
from exporter.pipeline.lane import WHOLE, Lane, Shards
from exporter.pipeline.ports import Destination, FileName, Format, Layout


class ExportJob(Struct, frozen=True, kw_only=True):
    """
    An export as the domain sees it: its configuration at one revision.

    `location` identifies the destination, without secrets; `directory` has no slash at its ends and may be empty.
    `layout_of` and `format_of` give those of a content: that of this revision, or of a window that is planned.
    `shards` is the number of lanes that the configuration wants, and `lane` the one that this job is for.
    `record` is called with each window whose files are stored, and after a crash again with the same one.
    """

    app_key: str
    export_id: str
    revision: int
    content: Content
    schedule: Schedule
    layout_of: Callable[[Content], Layout]
    format_of: Callable[[Content], Format]
    location: str
    directory: str
    open_destination: Callable[[], AbstractAsyncContextManager[Destination]]
    shards: Shards = 1
    lane: Lane = WHOLE
    record: Callable[[Lane, WindowPlan], Awaitable[None]] | None = None

    def key(self, content: Content, name: FileName) -> str:
        """The key of a file of the content."""
        file_name = self.layout_of(content).name(name) + self.format_of(content).suffix
        return f"{self.directory}/{file_name}" if self.directory else file_name
