"""
Configuration of exports: the fields, the checks beyond their types, and the step to an `ExportJob`. No I/O.
"""

from typing import Annotated

from msgspec import Meta, Struct

from exporter.destinations import DestinationConfig
from exporter.destinations.platform import Platform
from exporter.exports.job import ExportJob
from exporter.exports.schedule import Schedule, schedule_of
from exporter.formats import FORMATS, FormatName
from exporter.layouts import LAYOUTS, LayoutName
from exporter.pipeline.content import Content
from exporter.pipeline.selection import Data, EventSelection
from shared.config.registry import ConfigEntry, Kind
from shared.errors import ConflictError, InvalidError

Affiliate = Annotated[int, Meta(ge=1, le=2**53)]
Advertiser = Annotated[str, Meta(pattern=r"^[0-9a-fA-F]{24}$(?!\n)")]


class Export(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """
    A continuous export: the clicks or the conversions of an app, as files, every `frequency` minutes.

    It begins with the events that are published after it was created. `affiliates` (`partner_id`) and `advertisers`
    (`supplier_id`) select events; where both are given, an event must match both. `frequency_s`, in seconds, takes
    precedence over `frequency`. While `active` is false nothing is sent, and events wait for as long as `EVENTS` keeps
    them.
    """

    data: Data
    destination: DestinationConfig
    frequency: Annotated[int, Meta(ge=1, le=1440)] = 15
    frequency_s: Annotated[float, Meta(ge=1, le=86400)] | None = None
    layout: LayoutName = "affise"
    format: FormatName = "csv.gz"
    affiliates: Annotated[tuple[Affiliate, ...], Meta(max_length=10_000)] = ()
    advertisers: Annotated[tuple[Advertiser, ...], Meta(max_length=10_000)] = ()
    active: bool = True

    def schedule(self, app_key: str, export_id: str) -> Schedule:
        """The times of its runs."""
        return schedule_of(f"{app_key}.{export_id}", self.frequency_s or self.frequency * 60.0)

    def check(self, *, allow_private: bool) -> None:
        """
        Check what the types do not express.

        Raises:
            InvalidError: A field is wrong; names it.
        """
        for field, values in (("affiliates", self.affiliates), ("advertisers", self.advertisers)):
            if len(set(values)) < len(values):
                raise InvalidError("expected each one once", field=field)
        self.destination.check(allow_private=allow_private)


EXPORTS = Kind(prefix="exports", type=Export)


def check_directory_unused(entries: list[ConfigEntry[Export]], export_id: str, export: Export) -> None:
    """
    Check that no other export of the same app writes to the directory: readers could not tell their files apart.

    An export of another app is no hindrance. Who names a directory has not shown that it is theirs, and files of two
    writers never replace one another: each takes a name that is free.

    Args:
        entries: The exports of the app.

    Raises:
        ConflictError: Names the other export.
    """
    for entry in entries:
        location = entry.value.destination.location(entry.app_key)
        if entry.id != export_id and location == export.destination.location(entry.app_key):
            message = f"the export {entry.id} writes to this directory; expected one that is this export's alone"
            raise ConflictError(message, field="destination.directory")


def content_of(export: Export) -> Content:
    """The content of an export's files."""
    selection = EventSelection(
        data=export.data,
        affiliates=export.affiliates,
        advertisers=tuple(advertiser.lower() for advertiser in export.advertisers),
    )
    return Content(selection=selection, layout=export.layout, format=export.format)


def job_of(entry: ConfigEntry[Export], platform: Platform) -> ExportJob:
    """The job of an export at its current revision."""
    export = entry.value
    return ExportJob(
        app_key=entry.app_key,
        export_id=entry.id,
        revision=entry.revision,
        content=content_of(export),
        schedule=export.schedule(entry.app_key, entry.id),
        layout_of=lambda content: LAYOUTS[content.layout](entry.app_key, content),
        format_of=lambda content: FORMATS[content.format],
        location=export.destination.location(entry.app_key),
        directory=export.destination.folder,
        open_destination=lambda: export.destination.open(entry.app_key, platform),
    )
