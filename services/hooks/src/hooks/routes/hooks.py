"""HTTP for hooks: parse -> call -> answer. No rules."""

from datetime import datetime
from typing import Literal

import msgspec
from msgspec import Struct

from hooks.config import HOOKS, KINESIS, read_kinesis
from hooks.matching.hook import Batch, EventCode, Hook, HookType, TriggerType
from hooks.matching.rule import Rule
from hooks.previews import Preview, PreviewForm
from hooks.sinks.webhook.sink import WebhookConfig
from hooks.state import State
from shared.contracts.connection_report import ConnectionReport
from shared.contracts.messages import decode
from shared.errors import InvalidError
from shared.http.resources import resource_routes
from shared.http.routes import Route
from shared.http.server import Call

LAST = 10
"""Events that a preview renders where nothing is asked."""


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


ROUTES: tuple[Route, ...] = (
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
)
