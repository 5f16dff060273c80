"""Routes of files: their list, and the state and counts of one."""

from datetime import datetime
from typing import Annotated

from msgspec import Meta, Struct

from ftp_gateway.processing.history import FileEntry, FileFilter, ListedState
from ftp_gateway.state import State
from shared.http.routes import Query, Route
from shared.http.server import Call

MAX_FILES = 500


class FileList(Struct, frozen=True, kw_only=True):
    """Files of the app, newest first."""

    files: tuple[FileEntry, ...]


async def list_files(call: Call[State]) -> FileList:
    """List waiting and processed files."""
    file_filter = FileFilter(
        most=call.query_values["limit"], state=call.query_values["state"], before=call.query_values["before"]
    )
    return FileList(files=tuple(await call.state.history.newest(call.app_key, file_filter)))


async def show_file(call: Call[State]) -> FileEntry:
    """Show one file. The same content may have come more than once."""
    return await call.state.history.find(call.app_key, call.path["file_id"])


ROUTES: tuple[Route, ...] = (
    Route(
        "GET",
        "/v1/apps/{app_key}/files",
        list_files,
        "List the app's files with their state and counts",
        reply=FileList,
        query={
            "limit": Query("How many", Annotated[int, Meta(ge=1, le=MAX_FILES)], 50, formerly="most"),
            "state": Query("Only those in this state", ListedState),
            "before": Query("Only those before this moment, for the next page", Annotated[datetime, Meta(tz=True)]),
        },
    ),
    Route(
        "GET",
        "/v1/apps/{app_key}/files/{file_id}",
        show_file,
        "Show what became of a file when its content came last",
        reply=FileEntry,
    ),
)
