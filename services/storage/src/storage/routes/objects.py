"""Routes of stored objects: list, show, delete, and serve those of the local directory."""

from typing import Annotated, Final

from aiohttp import web
from msgspec import Meta

from shared.contracts.messages import MediaKind
from shared.http.routes import Binary, Query, Route
from shared.http.server import Call
from storage.state import State
from storage.uploads.records import ObjectPage, ObjectRecord

PAGE_OBJECTS: Final = 100
MAX_OBJECTS: Final = 1000

CDN_HEADERS: Final = {
    "X-Content-Type-Options": "nosniff",
    # An object that is opened by itself may run no script, whatever its type.
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; sandbox",
    "Access-Control-Allow-Origin": "*",
    "Cross-Origin-Resource-Policy": "cross-origin",
}
"""Headers of local objects. Browsers load fonts with CORS, so every origin may read."""


async def get_objects(call: Call[State]) -> ObjectPage:
    """A page of the objects of an app."""
    asked = call.query_values
    return await call.state.records.page(
        call.app_key, kind=asked["kind"], after=int(asked["after"]), limit=asked["limit"]
    )


async def get_object(call: Call[State]) -> ObjectRecord:
    """The record of an object."""
    return await call.state.records.get(call.app_key, call.path["id"])


async def delete_object(call: Call[State]) -> None:
    """Delete an object."""
    await call.state.uploads.delete(call.app_key, call.path["id"])


async def get_local_object(call: Call[State]) -> web.StreamResponse:
    """Serve an object of the local directory, whole or in part. Only keys of uploads are found."""
    found = await call.state.local.find(call.path["key"])
    headers = {
        "Content-Type": found.headers.content_type,
        "Content-Disposition": found.headers.content_disposition,
        "Cache-Control": found.headers.cache_control,
    }
    return await call.send_file(found.path, headers | CDN_HEADERS)


ROUTES: tuple[Route, ...] = (
    Route(
        "GET",
        "/v1/apps/{app_key}/objects",
        get_objects,
        "List the objects of the app, the least recently changed first",
        reply=ObjectPage,
        query={
            "kind": Query("Only those of this kind", MediaKind),
            "limit": Query("The largest number of objects", Annotated[int, Meta(ge=1, le=MAX_OBJECTS)], PAGE_OBJECTS),
            "after": Query("`next` of the previous page", Annotated[str, Meta(pattern=r"^[0-9]{1,18}$")], "0"),
        },
    ),
    Route("GET", "/v1/apps/{app_key}/objects/{id}", get_object, "Show the locations of an object", reply=ObjectRecord),
    Route(
        "DELETE",
        "/v1/apps/{app_key}/objects/{id}",
        delete_object,
        "Delete an object at each of its locations; its URLs then end",
        status=204,
    ),
)

LOCAL_ROUTES: tuple[Route, ...] = (
    Route(
        "GET",
        "/cdn/{key:.+}",
        get_local_object,
        "An object of the local directory",
        scope="open",
        reply=Binary,
        produces="*/*",
        also={206: None, 304: None, 416: None},
    ),
)
