"""
HTTP: parse -> call -> answer. No rules.

A body is counted while it is read, because aiohttp's own limit does not hold for `multipart()` (aiohttp#3702).
"""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Annotated, Any, Final
from urllib.parse import unquote

from aiohttp import BodyPartReader, web
from aiohttp.http_exceptions import HttpProcessingError
from msgspec import Meta, Struct

from shared.config.registry import Kind
from shared.contracts.connection_report import ConnectionReport
from shared.contracts.messages import MediaKind, StoreMediaReply
from shared.errors import InvalidError, TooLargeError
from shared.http.resources import read_form, resource_routes
from shared.http.routes import Binary, Query, Route
from shared.http.server import Call
from storage.config import AMAZON_STORAGE, AZURE_STORAGE
from storage.content.body import Body, TransferRate
from storage.placement.selection import ProviderStatus
from storage.state import State
from storage.uploads.records import KINDS, ObjectPage, ObjectRecord
from storage.widgets.widget import StoreWidgetReply

PIECE_BYTES: Final = 64 * 1024
WORD_BYTES: Final = 64
AROUND_BYTES: Final = 64 * 1024
"""What a multipart body may have beside its file."""
PAGE_OBJECTS: Final = 100
MOST_OBJECTS: Final = 1000

CDN_HEADERS: Final = {
    "X-Content-Type-Options": "nosniff",
    # Whatever an object is, opened by itself it may run nothing (reference: storage.md, 3.23).
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; sandbox",
    "Access-Control-Allow-Origin": "*",
    "Cross-Origin-Resource-Policy": "cross-origin",
}
"""What objects of the local directory are served with. Fonts are loaded with CORS, so everybody may read."""


class MediaForm(Struct, forbid_unknown_fields=True):
    """The fields of an upload as a form."""

    file: Binary
    kind: MediaKind = "message-image"


class WidgetForm(Struct, forbid_unknown_fields=True):
    """The field of a page as a form. The page is UTF-8."""

    file: str


class ProviderStatuses(Struct, frozen=True, kw_only=True):
    """The providers of an app, in the order of their precedence."""

    providers: tuple[ProviderStatus, ...]


async def post_media(call: Call[State]) -> StoreMediaReply:
    """Store one file of a form."""
    kind: MediaKind | None = None
    file_name = ""
    body: Body | None = None
    async with AsyncExitStack() as stack:
        async with _reading(call.request, max(call.state.uploads.limits.max_bytes.values())) as rate:
            async for part in await call.request.multipart():
                if not isinstance(part, BodyPartReader) or part.name not in {"file", "kind"}:
                    name = part.name if isinstance(part, BodyPartReader) else None
                    raise InvalidError("expected the fields 'file' and 'kind' only", field=name or "body")
                if part.name == "kind":
                    if kind is not None:
                        raise InvalidError("expected it once", field="kind")
                    kind = await _read_kind(call, part, rate)
                elif body is not None:
                    raise InvalidError("expected one file", field="file")
                else:
                    # Clients write a quote or a line break in a name as %22 or %0A (HTML, multipart/form-data).
                    file_name = unquote(part.filename or "")
                    pieces = _part_pieces(part, rate, "file")
                    body = await stack.enter_async_context(call.state.bodies.receive(pieces, _max_bytes(call, kind)))
        if body is None:
            raise InvalidError("expected a file", field="file")
        return await call.state.uploads.store(call.app_key, kind or "message-image", body, file_name=file_name)


async def put_media(call: Call[State]) -> StoreMediaReply:
    """Store the body as it is."""
    kind: MediaKind = call.asked["kind"]
    async with AsyncExitStack() as stack:
        async with TransferRate() as rate:
            body = await stack.enter_async_context(_raw_body(call, rate, _max_bytes(call, kind), "body"))
        return await call.state.uploads.store(call.app_key, kind, body, file_name=call.asked["file_name"])


async def get_objects(call: Call[State]) -> ObjectPage:
    """A page of the objects of an app."""
    asked = call.asked
    return await call.state.records.page(
        call.app_key, kind=asked["kind"], after=int(asked["after"]), limit=asked["limit"]
    )


async def get_object(call: Call[State]) -> ObjectRecord:
    """What is known of an object."""
    return await call.state.records.get(call.app_key, call.path["id"])


async def delete_object(call: Call[State]) -> None:
    """Take an object away."""
    await call.state.uploads.delete(call.app_key, call.path["id"])


async def get_providers(call: Call[State]) -> ProviderStatuses:
    """How the providers of an app do."""
    return ProviderStatuses(providers=call.state.selection.statuses(call.app_key))


async def post_widget(call: Call[State]) -> StoreWidgetReply:
    """Store the pictures inside a widget's HTML."""
    request = call.request
    max_bytes = call.state.widget_bytes
    body: Body | None = None
    async with AsyncExitStack() as stack:
        if request.content_type == "text/html":
            async with TransferRate() as rate:
                body = await stack.enter_async_context(_raw_body(call, rate, max_bytes, "html"))
        elif request.content_type == "multipart/form-data":
            async with _reading(request, max_bytes) as rate:
                async for part in await request.multipart():
                    if not isinstance(part, BodyPartReader) or part.name != "file" or body is not None:
                        raise InvalidError("expected one field, 'file'", field="body")
                    pieces = _part_pieces(part, rate, "file")
                    body = await stack.enter_async_context(call.state.bodies.receive(pieces, max_bytes))
        else:
            raise InvalidError("expected text/html, or multipart/form-data with a field 'file'", field="Content-Type")
        if body is None:
            raise InvalidError("expected a file", field="file")
        return await call.state.widgets.store(call.app_key, body, strict=call.asked["strict"])


async def get_local_object(call: Call[State]) -> web.FileResponse:
    """An object of the local directory, whole or in part. Only what uploads have named is found."""
    found = await call.state.local.find(call.path["key"])
    headers = {
        "Content-Type": found.headers.content_type,
        "Content-Disposition": found.headers.content_disposition,
        "Cache-Control": found.headers.cache_control,
    }
    return web.FileResponse(found.path, chunk_size=PIECE_BYTES, headers=headers | CDN_HEADERS)


@asynccontextmanager
async def _reading(request: web.Request, max_bytes: int) -> AsyncIterator[TransferRate]:
    """aiohttp's complaints about a multipart body, which have no kind of their own, as `InvalidError`."""
    if request.content_type != "multipart/form-data":
        raise InvalidError("expected multipart/form-data", field="Content-Type")
    _check_length(request, max_bytes + AROUND_BYTES, "file")
    try:
        async with TransferRate() as rate:
            yield rate
    except (ValueError, AssertionError, RuntimeError, HttpProcessingError) as error:
        raise InvalidError(f"the multipart body is broken: {error}", field="body") from None


def _raw_body(call: Call[State], rate: TransferRate, max_bytes: int, field: str) -> Any:
    _check_length(call.request, max_bytes, field)

    async def pieces() -> AsyncIterator[bytes]:
        async for piece in call.request.content.iter_any():
            rate.add(len(piece))
            yield piece

    return call.state.bodies.receive(pieces(), max_bytes, field=field)


def _check_length(request: web.Request, max_bytes: int, field: str) -> None:
    # What a client announces is refused before it is sent. What it sends is counted all the same.
    if (request.content_length or 0) > max_bytes:
        raise TooLargeError(f"expected at most {max_bytes} bytes", field=field)


def _max_bytes(call: Call[State], kind: MediaKind | None) -> int:
    max_bytes = call.state.uploads.limits.max_bytes
    return max_bytes[kind] if kind is not None else max(max_bytes.values())


async def _part_pieces(part: BodyPartReader, rate: TransferRate, field: str) -> AsyncIterator[bytes]:
    encodings = {part.headers.get(name, "binary").lower() for name in ("Content-Encoding", "Content-Transfer-Encoding")}
    if not encodings <= {"binary", "8bit", "7bit", "identity"}:
        raise InvalidError("expected the bytes as they are, in no encoding", field=field)
    while piece := await part.read_chunk(PIECE_BYTES):
        rate.add(len(piece))
        yield piece


async def _read_kind(call: Call[State], part: BodyPartReader, rate: TransferRate) -> MediaKind:
    async with call.state.bodies.receive(_part_pieces(part, rate, "kind"), WORD_BYTES, field="kind") as word:
        value = word.read().decode("ascii", "replace").strip()
    for kind in KINDS:
        if value == kind:
            return kind
    raise InvalidError(f"expected one of {', '.join(KINDS)}", field="kind")


def _connector_routes(kind: Kind[Any], name: str, title: str) -> tuple[Route, ...]:
    """The routes of one connector: what is saved, and Test Connection."""

    async def check(call: Call[State], value: Any, _: Any) -> Any:
        return call.state.connectors[name].check(value, app_key=call.app_key)

    async def test(call: Call[State]) -> ConnectionReport:
        """Test Connection, on the values of the form or, without a body, on the saved ones."""
        if await call.request.read():
            config = await read_form(kind, call)
        else:
            config = (await call.registry.get(kind, call.app_key)).value
        return await call.state.connectors[name].test(config, app_key=call.app_key)

    path = f"/v1/apps/{{app_key}}/connectors/{name}"
    return (
        *resource_routes(kind, path, f"the {title} connector", check=check),
        Route(
            "POST",
            f"{path}/test",
            test,
            "Test Connection on the posted values, or on the saved ones when there is no body",
            body=kind.type,
            reads_body=True,
            body_required=False,
            reply=ConnectionReport,
        ),
    )


ROUTES: tuple[Route, ...] = (
    Route(
        "POST",
        "/v1/apps/{app_key}/media",
        post_media,
        "Store a file of a form",
        reply=StoreMediaReply,
        status=201,
        consumes={"multipart/form-data": MediaForm},
    ),
    Route(
        "PUT",
        "/v1/apps/{app_key}/media",
        put_media,
        "Store the body as it is",
        reply=StoreMediaReply,
        status=201,
        consumes={"application/octet-stream": Binary},
        query={
            "kind": Query("What it is", MediaKind, "message-image"),
            "file_name": Query("How a download of it is called", Annotated[str, Meta(max_length=255)], ""),
        },
    ),
    Route(
        "GET",
        "/v1/apps/{app_key}/objects",
        get_objects,
        "List the objects of the app, the one that changed longest ago first",
        reply=ObjectPage,
        query={
            "kind": Query("Only those of this kind", MediaKind),
            "limit": Query("How many at most", Annotated[int, Meta(ge=1, le=MOST_OBJECTS)], PAGE_OBJECTS),
            "after": Query("`next` of the page before", Annotated[str, Meta(pattern=r"^[0-9]{1,18}$")], "0"),
        },
    ),
    Route("GET", "/v1/apps/{app_key}/objects/{id}", get_object, "Tell where an object is", reply=ObjectRecord),
    Route(
        "DELETE",
        "/v1/apps/{app_key}/objects/{id}",
        delete_object,
        "Delete an object wherever it lies; its URLs then lead nowhere",
        status=204,
    ),
    Route(
        "POST",
        "/v1/apps/{app_key}/widgets",
        post_widget,
        "Store the Base64 pictures of a page and give the page with their URLs",
        reply=StoreWidgetReply,
        consumes={"text/html": None, "multipart/form-data": WidgetForm},
        query={"strict": Query("Refuse the whole page where a picture cannot be stored", bool, False)},
    ),
    Route(
        "GET", "/v1/apps/{app_key}/providers", get_providers, "Tell how the app's providers do", reply=ProviderStatuses
    ),
    *_connector_routes(AMAZON_STORAGE, "amazon-storage", "Amazon Storage"),
    *_connector_routes(AZURE_STORAGE, "azure-storage", "Azure Storage"),
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
