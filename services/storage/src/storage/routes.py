"""
HTTP: parse -> call -> answer. No rules.

A body is counted while it is read, because aiohttp's own limit does not hold for `multipart()` (aiohttp#3702).
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final, get_args
from urllib.parse import unquote

from aiohttp import BodyPartReader, web
from aiohttp.http_exceptions import HttpProcessingError

from shared.connection_test import ConnectionReport
from shared.errors import InvalidError
from shared.http import Call
from shared.messages import MediaKind, StoreMediaReply
from shared.resources import read_form, resource_routes
from shared.routes import Route
from storage.config import AMAZON_STORAGE
from storage.data_uris import MAX_HTML_BYTES
from storage.providers.amazon import AmazonStorageConfig, checked
from storage.state import State
from storage.uploads import LIMIT_BYTES, MAX_BYTES, Content, Intake
from storage.widgets import StoreWidgetReply

KINDS: Final[tuple[MediaKind, ...]] = get_args(MediaKind)
PIECE_BYTES: Final = 64 * 1024
WORD_BYTES: Final = 64

CDN_HEADERS: Final = {
    "X-Content-Type-Options": "nosniff",
    # Whatever an object is, opened by itself it may run nothing (reference: storage.md, 3.23).
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; sandbox",
    "Access-Control-Allow-Origin": "*",
    "Cross-Origin-Resource-Policy": "cross-origin",
}
"""What objects of the local directory are served with. Fonts are loaded with CORS, so everybody may read."""


async def post_media(call: Call[State]) -> StoreMediaReply:
    """Store one file."""
    kind: MediaKind | None = None
    content: Content | None = None
    file_name = ""
    async with _reading(call.request):
        async for part in await call.request.multipart():
            if not isinstance(part, BodyPartReader) or part.name not in {"file", "kind"}:
                name = part.name if isinstance(part, BodyPartReader) else None
                raise InvalidError("expected the fields 'file' and 'kind' only", field=name or "body")
            if part.name == "kind":
                kind = _kind((await _read_part(part, WORD_BYTES, "kind")).data)
            elif content is not None:
                raise InvalidError("expected one file", field="file")
            else:
                # Clients write a quote or a line break in a name as %22 or %0A (HTML, multipart/form-data).
                file_name = unquote(part.filename or "")
                content = await _read_part(part, LIMIT_BYTES[kind] if kind else MAX_BYTES, "file")
    if content is None:
        raise InvalidError("expected a file", field="file")
    return await call.state.uploads.store(call.app_key, kind or "message-image", content, file_name=file_name)


async def get_media(call: Call[State]) -> StoreMediaReply:
    """Where an object is."""
    return await call.state.uploads.resolve(call.app_key, call.path["id"])


async def post_widget(call: Call[State]) -> StoreWidgetReply:
    """Store the pictures inside a widget's HTML."""
    request = call.request
    if request.content_type != "multipart/form-data":
        if request.content_type != "text/html":
            raise InvalidError("expected text/html, or multipart/form-data with a field 'file'", field="Content-Type")
        intake = Intake(MAX_HTML_BYTES, field="html")
        async for piece in request.content.iter_any():
            intake.add(piece)
        return await call.state.widgets.store(call.app_key, intake.content().data)
    page: Content | None = None
    async with _reading(request):
        async for part in await request.multipart():
            if not isinstance(part, BodyPartReader) or part.name != "file" or page is not None:
                raise InvalidError("expected one field, 'file'", field="body")
            page = await _read_part(part, MAX_HTML_BYTES, "file")
    if page is None:
        raise InvalidError("expected a file", field="file")
    return await call.state.widgets.store(call.app_key, page.data)


async def get_object(call: Call[State]) -> web.FileResponse:
    """An object of the local directory, whole or in part. Only what uploads have named is found."""
    found = await call.state.local.find(call.path["key"])
    headers = {
        "Content-Type": found.headers.content_type,
        "Content-Disposition": found.headers.content_disposition,
        "Cache-Control": found.headers.cache_control,
    }
    return web.FileResponse(found.path, chunk_size=PIECE_BYTES, headers=headers | CDN_HEADERS)


async def test_amazon_storage(call: Call[State]) -> ConnectionReport:
    """Test Connection, on the values of the form or, without a body, on the saved ones."""
    if await call.request.read():
        return await call.state.test_connector(await read_form(AMAZON_STORAGE, call))
    return await call.state.test_connector((await call.registry.get(AMAZON_STORAGE, call.app_key)).value)


async def check_amazon_storage(
    call: Call[State], value: AmazonStorageConfig, _: AmazonStorageConfig | None
) -> AmazonStorageConfig:
    """What a connector must be before it is saved."""
    return checked(value, allow_private=call.state.allow_private_endpoints)


@asynccontextmanager
async def _reading(request: web.Request) -> AsyncIterator[None]:
    """aiohttp's complaints about a multipart body, which have no kind of their own, as `InvalidError`."""
    if request.content_type != "multipart/form-data":
        raise InvalidError("expected multipart/form-data", field="Content-Type")
    try:
        yield
    except (ValueError, AssertionError, RuntimeError, HttpProcessingError) as error:
        raise InvalidError(f"the multipart body is broken: {error}", field="body") from None


async def _read_part(part: BodyPartReader, limit_bytes: int, field: str) -> Content:
    encodings = {part.headers.get(name, "binary").lower() for name in ("Content-Encoding", "Content-Transfer-Encoding")}
    if not encodings <= {"binary", "8bit", "7bit", "identity"}:
        raise InvalidError("expected the bytes as they are, in no encoding", field=field)
    intake = Intake(limit_bytes, field=field)
    while piece := await part.read_chunk(PIECE_BYTES):
        intake.add(piece)
    return intake.content()


def _kind(text: bytes) -> MediaKind:
    for kind in KINDS:
        if text.decode("ascii", "replace").strip() == kind:
            return kind
    raise InvalidError(f"expected one of {', '.join(KINDS)}", field="kind")


ROUTES: tuple[Route, ...] = (
    Route(
        "POST",
        "/v1/apps/{app_key}/media",
        post_media,
        "Store a file (field `file`, `kind` one of message-image, widget-image, attachment, file)",
        reply=StoreMediaReply,
        status=201,
        consumes="multipart/form-data",
    ),
    Route("GET", "/v1/apps/{app_key}/media/{id}", get_media, "Tell where a stored file is", reply=StoreMediaReply),
    Route(
        "POST",
        "/v1/apps/{app_key}/widgets",
        post_widget,
        "Store the Base64 pictures of a page and give the page with their URLs",
        reply=StoreWidgetReply,
        consumes="text/html",
    ),
    *resource_routes(
        AMAZON_STORAGE,
        "/v1/apps/{app_key}/connectors/amazon-storage",
        "the Amazon Storage connector",
        check=check_amazon_storage,
    ),
    Route(
        "POST",
        "/v1/apps/{app_key}/connectors/amazon-storage/test",
        test_amazon_storage,
        "Test Connection on the posted values, or on the saved ones when there is no body",
        body=AmazonStorageConfig,
        reads_body=True,
        reply=ConnectionReport,
    ),
    Route(
        "GET",
        "/cdn/{key:.+}",
        get_object,
        "An object of the local directory",
        scope="open",
        produces="application/octet-stream",
    ),
)
