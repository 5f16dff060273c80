"""Routes of hooks. They parse, call and answer; no rules."""

from datetime import datetime

import msgspec
from msgspec import Struct

from hooks.config import HOOKS
from hooks.matching.hook import EventCode, Hook, check_sizes
from hooks.matching.rule import Rule
from hooks.partitions.previews import Preview, PreviewForm
from hooks.state import State
from shared.config.form import form_type
from shared.config.registry import ConfigEntry
from shared.contracts.connection_report import ConnectionReport
from shared.contracts.messages import decode
from shared.errors import InvalidError
from shared.http.resources import resource_routes
from shared.http.routes import Route
from shared.http.server import Call

LAST = 10
"""Events that a preview renders where the form names neither an event nor a number."""


HookForm = form_type(
    "HookForm",
    HOOKS.type,
    """\
    The form of Test Connection of a hook: a field that is left out has its saved value.

    A webhook is posted one marked message. The stream of another hook is tested with the saved connector, and with
    `test_record` one marked record is put into it.
    """,
    event_code=EventCode | tuple[EventCode, ...],
    test_record=(bool, False),
)


class HookStatus(Struct, frozen=True, kw_only=True):
    """
    The work of this process for a hook since the process began. `failed` counts attempts, `replayed` dead letters that
    went through later. `waits_because` is the failure that stops delivery at present. `advice` names the
    setup that needs a correction, whether records are sent or not.

    `waiting` counts its records that are matched and not confirmed; `lag_s` is the age of the oldest of their events,
    since it was stored. Events that its partitions have not read yet are counted by `millrace_bus_lag_messages` alone.
    `detached`: the stream was blocked, and is `lag` events behind without holding up others.
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


async def check_hook(call: Call[State], value: Hook, old: Hook | None) -> Hook:
    """Check a hook before it is saved."""
    saved = call.registry.view(HOOKS).of_app(call.app_key)
    check_sizes(value, old, [entry.value for entry in saved if entry.id != call.path["id"]])
    return call.state.sinks.check_hook(call.app_key, value)


async def test_hook(call: Call[State]) -> ConnectionReport:
    """Test Connection of a hook's target, with the values of the form over the saved ones."""
    values = msgspec.to_builtins(decode(await call.read_json() or b"{}", HookForm))
    test_record = values.pop("test_record", False)
    hook = await call.registry.form_over_saved(HOOKS, call.app_key, values, call.path["id"])
    hook = call.state.sinks.check_hook(call.app_key, hook)
    return await call.state.sinks.test_hook(call.app_key, hook, test_record=test_record)


async def get_status(call: Call[State]) -> HookStatus:
    """The numbers of one hook."""
    entry = await call.registry.get(HOOKS, call.app_key, call.path["id"])
    counted = call.state.counters.of(entry.app_key, entry.id)
    rule = _rule(entry)
    lag = call.state.backlog_readers.lag_of(entry.app_key, entry.id)
    missing = call.state.sinks.missing_for(rule)
    idle = missing if entry.value.active else "the hook is inactive"
    waiting = call.state.targets.waiting(entry.app_key).get((entry.app_key, entry.id))
    lag_s = call.state.clock().timestamp() - waiting.oldest_ns / 1e9 if waiting is not None else 0.0
    return HookStatus(
        active=entry.value.active,
        connector_active=missing is None,
        matched=counted.matched,
        sent=counted.sent,
        failed=counted.failed,
        dead_lettered=counted.dead_lettered,
        skipped_inactive=counted.skipped_inactive,
        replayed=counted.replayed,
        waiting=waiting.records if waiting is not None else 0,
        lag_s=round(max(0.0, lag_s), 3),
        last_error=counted.last_error,
        last_error_at=counted.last_error_at,
        waits_because=call.state.targets.waits_because(rule.target),
        advice=f"nothing is sent, because {idle}" if idle else call.state.advice.of(rule.target),
        detached=lag is not None,
        lag=lag or 0,
    )


def _rule(entry: ConfigEntry[Hook]) -> Rule:
    return Rule(app_key=entry.app_key, hook_id=entry.id, revision=entry.revision, hook=entry.value)


async def preview(call: Call[State]) -> Preview:
    """The records that the hook would send."""
    form = decode(await call.read_json() or b"{}", PreviewForm)
    if form.event is not None and form.last is not None:
        raise InvalidError("expected an event or a number, not both", field="last")
    entry = await call.registry.get(HOOKS, call.app_key, call.path["id"])
    rule = _rule(entry)
    if form.event is not None:
        return await call.state.previews.of_event(rule, form.event)
    return await call.state.previews.of_last(rule, LAST if form.last is None else form.last)


ROUTES: tuple[Route, ...] = (
    *resource_routes(HOOKS, "/v1/apps/{app_key}/hooks", "a hook", check=check_hook),
    Route(
        "GET",
        "/v1/apps/{app_key}/hooks/{id}/status",
        get_status,
        "Status of a hook: the counts of its events, and its lag",
        reply=HookStatus,
    ),
    Route(
        "POST",
        "/v1/apps/{app_key}/hooks/{id}/test",
        test_hook,
        "Test Connection of the hook's target, on the posted values; a value that is left out is the saved one",
        body=HookForm,
        reads_body=True,
        body_required=False,
        reply=ConnectionReport,
    ),
    Route(
        "POST",
        "/v1/apps/{app_key}/hooks/{id}/preview",
        preview,
        "Render the records that the hook would send for an event, or for the last ones that match; sends nothing",
        body=PreviewForm,
        reads_body=True,
        body_required=False,
        reply=Preview,
    ),
)
