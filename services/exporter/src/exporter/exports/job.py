"""The job of a run: one export at one revision, with the layout, format and destination of its files."""

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager

from msgspec import Struct
from msgspec.structs import replace

from exporter.exports.progress import ExportProgress, WindowPlan
from exporter.exports.schedule import Schedule
from exporter.pipeline.content import Content
from exporter.pipeline.lane import WHOLE, Lane, Shards
from exporter.pipeline.ports import Destination, FileName, Format, Layout, Operator
from shared.errors import ConflictError
from shared.messaging.bus import StreamState


class Span(Struct, frozen=True, kw_only=True):
    """The events of a job that ends: those of `EVENTS` from `first_sequence` to `last_sequence`."""

    first_sequence: int
    last_sequence: int

    def is_over(self, progress: ExportProgress) -> bool:
        """Return whether all of its events are delivered."""
        ended = progress.claim is None and progress.window is None
        return ended and progress.cursor >= self.last_sequence


class ExportJob(Struct, frozen=True, kw_only=True):
    """
    An export as the domain sees it: its configuration at one revision.

    `location` identifies the destination, without secrets; `directory` has no slash at its ends and may be empty.
    `layout_of` and `format_of` give those of a content: that of this revision, or of a window that is planned.
    `operator` runs the store of the destination, and `has_our_keys` says that the platform's keys open it, by a role of
    the customer. `shards` is the number of lanes that the configuration wants, and `lane` the one that this job is for.
    `span` is that of a replay; without it the job goes on with every new event.
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
    operator: Operator = "provider"
    has_our_keys: bool = False
    shards: Shards = 1
    lane: Lane = WHOLE
    span: Span | None = None
    record: Callable[[Lane, WindowPlan], Awaitable[None]] | None = None

    def within(self, state: StreamState) -> StreamState:
        """
        The state of the stream, as far as this job goes.

        Raises:
            ConflictError: The stream was made anew since the replay began.
        """
        if self.span is None:
            return state
        last = self.span.last_sequence
        if state.last_sequence < last:
            raise ConflictError(f"EVENTS was made anew and ends at {state.last_sequence}; delete this replay")
        return replace(state, first_sequence=min(state.first_sequence, last + 1), last_sequence=last)

    def is_done(self, progress: ExportProgress) -> bool:
        """Return whether a replay has delivered all of its events."""
        return self.span is not None and self.span.is_over(progress)

    def key(self, content: Content, name: FileName) -> str:
        """The key of a file of the content."""
        file_name = self.layout_of(content).name(name) + self.format_of(content).suffix
        return f"{self.directory}/{file_name}" if self.directory else file_name
