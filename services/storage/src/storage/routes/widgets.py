"""Route of widgets: store the images inside HTML."""

from contextlib import AsyncExitStack

from aiohttp import BodyPartReader
from msgspec import Struct

from shared.errors import InvalidError
from shared.http.bodies import TransferRate, multipart_reader
from shared.http.routes import Query, Route
from shared.http.server import Call
from storage.content.body import Body
from storage.routes.request_bodies import part_pieces, read_multipart, receive_raw_body
from storage.state import State
from storage.widgets.widget import StoreWidgetReply


class WidgetForm(Struct, forbid_unknown_fields=True):
    """The field of a form with a page. The page is UTF-8."""

    file: str


async def post_widget(call: Call[State]) -> StoreWidgetReply:
    """Store the images inside a widget's HTML."""
    request = call.request
    max_bytes = call.state.widget_bytes
    body: Body | None = None
    async with AsyncExitStack() as stack:
        if request.content_type == "text/html":
            async with TransferRate() as rate:
                body = await stack.enter_async_context(receive_raw_body(call, rate, max_bytes, "html"))
        elif request.content_type == "multipart/form-data":
            async with read_multipart(request, max_bytes) as rate:
                async for part in await multipart_reader(request):
                    if not isinstance(part, BodyPartReader) or part.name != "file" or body is not None:
                        raise InvalidError("expected one field, 'file'", field="body")
                    pieces = part_pieces(part, rate, "file")
                    body = await stack.enter_async_context(call.state.bodies.receive(call.app_key, pieces, max_bytes))
        else:
            raise InvalidError("expected text/html, or multipart/form-data with a field 'file'", field="Content-Type")
        if body is None:
            raise InvalidError("expected a file", field="file")
        return await call.state.widgets.store(call.app_key, body, strict=call.query_values["strict"])


ROUTES: tuple[Route, ...] = (
    Route(
        "POST",
        "/v1/apps/{app_key}/widgets",
        post_widget,
        "Store the Base64 images of a page and return the page with their URLs",
        reply=StoreWidgetReply,
        consumes={"text/html": None, "multipart/form-data": WidgetForm},
        query={"strict": Query("Refuse the whole page when an image cannot be stored", bool, False)},
    ),
)
