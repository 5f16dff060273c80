"""HTTP: parse -> call -> answer. No rules."""

from datetime import datetime
from typing import Literal

import msgspec
from aiohttp import web
from msgspec import Struct

from hooks.assignment.status import PartitionsStanding
from hooks.config import HOOKS, KINESIS, read_kinesis
from hooks.events.admission import PostedEvent, split_array, split_lines
from hooks.events.publisher import EventsReply
from hooks.matching.hook import Batch, EventCode, Hook, HookType, StreamName, TriggerType
from hooks.matching.rule import Rule
from hooks.previews import Preview, PreviewForm
from hooks.routes.dead_letters import LETTER_ROUTES
from hooks.sinks.kinesis.sink import KinesisConfig
from hooks.sinks.webhook.sink import WebhookConfig
from hooks.state import State
from shared.contracts.connection_report import ConnectionReport
from shared.contracts.messages import decode
from shared.errors import InvalidError, TooLargeError
from shared.http.resources import resource_routes
from shared.http.routes import Route
from shared.http.server import Call

BODY_BYTES = 16 << 20
"""Of a request with events, counted while it is read and after it is unpacked."""

LAST = 10
"""Events that a preview renders where nothing is asked."""

NDJSON = ("application/x-ndjson", "application/ndjson", "application/jsonl")


class KinesisForm(Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """
    What Test Connection is asked with: values of the form, each left-out one as it is saved.

    With `stream_name` the stream is looked at as well, and with `test_record` one marked record is put into it.
    """

    region: str | None = None
    api_key: str | None = None
    secret_key: str | None = None
    role_arn: str | None = None
    external_id: str | None = None
    endpoint_url: str | None = None
    active: bool | None = None
    stream_name: StreamName | None = None
    test_record: bool = False


class HookForm(Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """
    What Test Connection of a hook is asked with: values of the form, each left-out one as it is saved.

    A webhook is posted one marked message. The stream of another hook is looked at with the saved connector, and with
    `test_record` one marked record is put into it.
    """

    name: str | None = None
    type: HookType | None = None
    stream_name: str | None = None
    url: str | None = None
    secret: str | None = None
    trigger_type: TriggerType | None = None
    event_code: EventCode | tuple[EventCode, ...] | None = None
    batch: Batch | None = None
    max_record_bytes: int | None = None
    oversize: Literal["dead_letter", "strip"] | None = None
    active: bool | None = None
    test_record: bool = False


class HookStatus(Struct, frozen=True, kw_only=True):
    """
    What this process did for a hook since it began. `failed` counts attempts, `replayed` dead letters that went through
    later. `waits_because` tells why nothing goes to its stream at present, `advice` what should be mended, although
    records go there or because none do.

    `waiting` are its records that are matched and not confirmed, `lag_s` is the time since the oldest one's event was
    stored. What its partitions have not taken yet is not among them: `millrace_bus_lag_messages` counts it. `detached`:
    the stream was blocked, and is `lag` events behind without holding up others.
    """

    active: bool
    connector_active: bool
    matched: int
    sent: int
    failed: int
    dead_lettered: int
    skipped_inactive: int
    replayed: int
    waiting: int
    lag_s: float
    last_error: str | None
    last_error_at: datetime | None
    waits_because: str | None
    advice: str | None
    detached: bool
    lag: int


async def post_events(call: Call[State]) -> web.Response:
    """The entrance for events."""
    body = await _read(call.request)
    content_type = call.request.content_type
    if content_type in NDJSON:
        posted = split_lines(body)
    elif content_type == "application/json":
        posted = split_array(body)
    else:
        raise InvalidError("expected application/json or application/x-ndjson", field="Content-Type")
    if not posted:
        raise InvalidError("expected at least one event")
    reply = await call.state.publishing.take(call.app_key, posted)
    status = 202 if reply.accepted else 400
    return web.Response(body=msgspec.json.encode(reply), status=status, content_type="application/json")


async def test_kinesis(call: Call[State]) -> ConnectionReport:
    """Test Connection, on the values of the form over the saved ones."""
    form = decode(await call.request.read() or b"{}", KinesisForm)
    values = msgspec.to_builtins(msgspec.structs.replace(form, stream_name=None, test_record=False))
    allow_private = call.state.allow_private_endpoints
    config = await read_kinesis(call.registry, call.app_key, values, allow_private=allow_private)
    return await call.state.test_connector(config, form.stream_name, form.test_record)


async def check_kinesis(call: Call[State], value: KinesisConfig, _: KinesisConfig | None) -> KinesisConfig:
    """What a connector must be before it is saved."""
    return value.checked(allow_private=call.state.allow_private_endpoints, app_key=call.app_key)


async def check_hook(call: Call[State], value: Hook, _: Hook | None) -> Hook:
    """What a hook must be before it is saved."""
    value = value.checked()
    if value.type == "WEBHOOK":
        WebhookConfig(url=value.url, secret=value.secret).check(allow_private=call.state.allow_private_endpoints)
    return value


async def test_hook(call: Call[State]) -> ConnectionReport:
    """Test Connection of where a hook's records go, on the values of the form over the saved ones."""
    state, app_key = call.state, call.app_key
    form = decode(await call.request.read() or b"{}", HookForm)
    values = msgspec.to_builtins(msgspec.structs.replace(form, test_record=False))
    hook = await check_hook(call, await call.registry.form_over_saved(HOOKS, app_key, values, call.path["id"]), None)
    if hook.type == "WEBHOOK":
        return await state.test_webhook(WebhookConfig(url=hook.url, secret=hook.secret))
    connector = await read_kinesis(call.registry, app_key, {}, allow_private=state.allow_private_endpoints)
    return await state.test_connector(connector, hook.stream_name, form.test_record)


async def get_status(call: Call[State]) -> HookStatus:
    """Numbers of one hook."""
    entry = await call.registry.get(HOOKS, call.app_key, call.path["id"])
    tally = call.state.tallies.of(entry.app_key, entry.id)
    rule = Rule(app_key=entry.app_key, hook_id=entry.id, revision=entry.revision, hook=entry.value)
    lag = call.state.catch_ups.lag_of(entry.app_key, entry.id)
    error = call.state.destinations.error_of(rule.target)
    waiting = call.state.destinations.waiting(entry.app_key).get((entry.app_key, entry.id))
    lag_s = call.state.clock().timestamp() - waiting.oldest_ns / 1e9 if waiting is not None else 0.0
    return HookStatus(
        active=entry.value.active,
        connector_active=call.state.destinations.serves(rule.target),
        matched=tally.matched,
        sent=tally.sent,
        failed=tally.failed,
        dead_lettered=tally.dead_lettered,
        skipped_inactive=tally.skipped_inactive,
        replayed=tally.replayed,
        waiting=waiting.records if waiting is not None else 0,
        lag_s=round(max(0.0, lag_s), 3),
        last_error=tally.last_error,
        last_error_at=tally.last_error_at,
        waits_because=error.message if error is not None else None,
        advice=_why_nothing_is_sent(call, rule) or call.state.advice.of(rule.target),
        detached=lag is not None,
        lag=lag or 0,
    )


def _why_nothing_is_sent(call: Call[State], rule: Rule) -> str | None:
    if not rule.hook.active:
        return "nothing is sent, because the hook is inactive"
    if call.state.destinations.serves(rule.target):
        return None
    connector = call.registry.view(KINESIS).get(rule.app_key)
    what = "there is no Kinesis connector" if connector is None else "the Kinesis connector is inactive"
    return f"nothing is sent, because {what}"


async def preview(call: Call[State]) -> Preview:
    """What the hook would send."""
    form = decode(await call.request.read() or b"{}", PreviewForm)
    if form.event is not None and form.last is not None:
        raise InvalidError("expected an event or a number, not both", field="last")
    entry = await call.registry.get(HOOKS, call.app_key, call.path["id"])
    rule = Rule(app_key=entry.app_key, hook_id=entry.id, revision=entry.revision, hook=entry.value)
    if form.event is not None:
        return await call.state.previews.of_event(rule, form.event)
    return await call.state.previews.of_last(rule, LAST if form.last is None else form.last)


async def get_partitions(call: Call[State]) -> PartitionsStanding:
    """Who reads which partition."""
    return await call.state.standing.look()


async def _read(request: web.Request) -> bytes:
    """The body, unpacked by aiohttp where `Content-Encoding` says so."""
    pieces: list[bytes] = []
    size = 0
    try:
        async for piece in request.content.iter_any():
            size += len(piece)
            if size > BODY_BYTES:
                raise TooLargeError(f"expected at most {BODY_BYTES} bytes")
            pieces.append(piece)
    except web.RequestPayloadError:
        raise InvalidError("the body cannot be unpacked, or ends too early") from None
    return b"".join(pieces)


ROUTES: tuple[Route, ...] = (
    Route(
        "POST",
        "/v1/apps/{app_key}/events",
        post_events,
        "Take events, as an array or as NDJSON; answers once they are stored. 400 where none is good",
        body=list[PostedEvent],
        reads_body=True,
        reply=EventsReply,
        status=202,
        also={400: EventsReply},
    ),
    *resource_routes(HOOKS, "/v1/apps/{app_key}/hooks", "a hook", check=check_hook),
    Route(
        "GET", "/v1/apps/{app_key}/hooks/{id}/status", get_status, "What became of a hook's events", reply=HookStatus
    ),
    Route(
        "POST",
        "/v1/apps/{app_key}/hooks/{id}/test",
        test_hook,
        "Test Connection of where the hook's records go, on the posted values, each left-out one as it is saved",
        body=HookForm,
        reads_body=True,
        body_required=False,
        reply=ConnectionReport,
    ),
    Route(
        "POST",
        "/v1/apps/{app_key}/hooks/{id}/preview",
        preview,
        "Render what the hook would send for an event, or for the last ones that match; sends nothing",
        body=PreviewForm,
        reads_body=True,
        body_required=False,
        reply=Preview,
    ),
    *LETTER_ROUTES,
    Route(
        "GET",
        "/v1/partitions",
        get_partitions,
        "The replicas, the owner of each partition, and how far it is",
        reply=PartitionsStanding,
        scope="admin",
    ),
    *resource_routes(KINESIS, "/v1/apps/{app_key}/connectors/kinesis", "the Kinesis connector", check=check_kinesis),
    Route(
        "POST",
        "/v1/apps/{app_key}/connectors/kinesis/test",
        test_kinesis,
        "Test Connection on the posted values, each left-out one as it is saved",
        body=KinesisForm,
        reads_body=True,
        reply=ConnectionReport,
    ),
)
