"""Routes of media: store a file."""

import re
from contextlib import AsyncExitStack
from typing import Annotated, Final

from aiohttp import BodyPartReader
from msgspec import Meta, Struct

from shared.contracts.messages import MediaKind, StoreMediaReply
from shared.errors import InvalidError
from shared.http.bodies import TransferRate, multipart_reader
from shared.http.routes import Binary, Query, Route
from shared.http.server import Call
from storage.content.body import Body
from storage.routes.request_bodies import max_bytes_of, part_pieces, read_kind, read_multipart, receive_raw_body
from storage.state import State

_ESCAPED: Final = re.compile("%(22|0D|0A)")
"""The characters of a name that a browser escapes, and no other (HTML, "multipart/form-data encoding")."""


class MediaForm(Struct, forbid_unknown_fields=True):
    """The fields of an upload form."""

    file: Binary
    kind: MediaKind = "message-image"


async def post_media(call: Call[State]) -> StoreMediaReply:
    """Store the file of a form."""
    kind: MediaKind | None = None
    file_name = ""
    body: Body | None = None
    async with AsyncExitStack() as stack:
        async with read_multipart(call.request, max(call.state.uploads.limits.max_bytes.values())) as rate:
            async for part in await multipart_reader(call.request):
                if not isinstance(part, BodyPartReader) or part.name not in {"file", "kind"}:
                    name = part.name if isinstance(part, BodyPartReader) else None
                    raise InvalidError("expected the fields 'file' and 'kind' only", field=name or "body")
                if part.name == "kind":
                    if kind is not None:
                        raise InvalidError("expected one value", field="kind")
                    kind = await read_kind(call, part, rate)
                elif body is not None:
                    raise InvalidError("expected one file", field="file")
                else:
                    file_name = _ESCAPED.sub(_unescaped, part.filename or "")
                    pieces = part_pieces(part, rate, "file")
                    body = await stack.enter_async_context(
                        call.state.bodies.receive(call.app_key, pieces, max_bytes_of(call, kind))
                    )
        if body is None:
            raise InvalidError("expected a file", field="file")
        return await call.state.uploads.store(call.app_key, kind or "message-image", body, file_name=file_name)


def _unescaped(found: re.Match[str]) -> str:
    return chr(int(found[1], 16))


async def put_media(call: Call[State]) -> StoreMediaReply:
    """Store the request body as it is."""
    kind: MediaKind = call.query_values["kind"]
    async with AsyncExitStack() as stack:
        async with TransferRate() as rate:
            body = await stack.enter_async_context(receive_raw_body(call, rate, max_bytes_of(call, kind), "body"))
        return await call.state.uploads.store(call.app_key, kind, body, file_name=call.query_values["file_name"])


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
            "kind": Query("The kind of the object", MediaKind, "message-image"),
            "file_name": Query("The file name of its downloads", Annotated[str, Meta(max_length=255)], ""),
        },
    ),
)
