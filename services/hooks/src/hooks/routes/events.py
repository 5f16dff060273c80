"""Routes of events. They parse, call and answer; no rules."""

import msgspec
from aiohttp import web

from hooks.events.admission import PostedEvent
from hooks.events.publisher import EventsReply
from hooks.state import State
from shared.errors import InvalidError
from shared.events.splitting import split_array, split_lines
from shared.http.bodies import read_body
from shared.http.routes import Route
from shared.http.server import Call

BODY_BYTES = 16 << 20
"""Limit on a request with events, counted while it is read, after it is unpacked."""

NDJSON = ("application/x-ndjson", "application/ndjson", "application/jsonl")


async def post_events(call: Call[State]) -> web.Response:
    """Accept events."""
    with call.state.publisher.bodies.counting(call.app_key) as count:
        return await _post(call, await read_body(call.request, BODY_BYTES, count=count))


async def _post(call: Call[State], body: bytes) -> web.Response:
    content_type = call.request.content_type
    if content_type in NDJSON:
        posted = await split_lines(body)
    elif content_type == "application/json":
        posted = await split_array(body)
    else:
        raise InvalidError("expected application/json or application/x-ndjson", field="Content-Type")
    if not posted:
        raise InvalidError("expected at least one event")
    reply = await call.state.publisher.accept(call.app_key, posted)
    status = 202 if reply.accepted or reply.duplicates else 400
    return web.Response(body=msgspec.json.encode(reply), status=status, content_type="application/json")


ROUTES: tuple[Route, ...] = (
    Route(
        "POST",
        "/v1/apps/{app_key}/events",
        post_events,
        "Accept events, as an array or as NDJSON; answers once they are stored. 400 where all are rejected",
        body=list[PostedEvent],
        reads_body=True,
        reply=EventsReply,
        status=202,
        also={400: EventsReply},
    ),
)
