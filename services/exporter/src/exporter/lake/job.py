"""The export of an app's lake, which nobody configures."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from typing import Final

from exporter.destinations.store_destination import StoreDestination
from exporter.exports.job import ExportJob
from exporter.exports.schedule import schedule_of
from exporter.lake.lists import LakeLists
from exporter.layouts.lake import LakeLayout
from exporter.pipeline.content import Content
from exporter.pipeline.ports import Destination, Format
from exporter.pipeline.selection import EventSelection
from shared.contracts.keys import LAKE_EXPORT
from shared.objects.store import ObjectStore

EVERY_S: Final = 300.0
CONTENT: Final = Content(selection=EventSelection(data="events"), layout="lake", format="parquet")

OpenLake = Callable[[], AbstractAsyncContextManager[ObjectStore]]
"""Opens the store of the lake."""


def lake_job(app_key: str, lists: LakeLists, open_lake: OpenLake, location: str, parquet: Format) -> ExportJob:
    """
    The job of an app's lake.

    Args:
        location: Names the store: a window that was planned for another one is built again.
    """
    layout = LakeLayout(app_key)

    @asynccontextmanager
    async def open_destination() -> AsyncIterator[Destination]:
        async with open_lake() as store:
            yield StoreDestination(store)

    return ExportJob(
        app_key=app_key,
        export_id=LAKE_EXPORT,
        revision=0,
        content=CONTENT,
        schedule=schedule_of(f"{app_key}.{LAKE_EXPORT}", EVERY_S),
        layout_of=lambda content: layout,
        format_of=lambda content: parquet,
        location=location,
        directory="",
        open_destination=open_destination,
        operator="platform",
        record=partial(lists.add, app_key),
    )
