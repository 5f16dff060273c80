"""
Which hooks fire for an event, and what is sent for it. Pure: no clock, no network, no configuration store.

The JSON that leaves is `hook.event.v1`, described by `docs/schemas/hook.event.v1.json`. Its names are camel case, as
the platform's own are (`userId`, `extId`); a field may be added under this version, none may change or go.
"""

from collections.abc import Iterable, Mapping
from typing import Annotated, Literal, NamedTuple

import msgspec
from msgspec import Meta, Struct

from shared.messages import Attributes, Event, EventType

SCHEMA: Literal["hook.event.v1"] = "hook.event.v1"
ANY = "*"

HookType = Literal["KINESIS"]
TriggerType = Literal["EVENT", "MESSAGE_LOG"]
TRIGGERS: Mapping[EventType, TriggerType] = {"event": "EVENT", "message_log": "MESSAGE_LOG"}
"""What an event of a type pulls. Types that are not here pull nothing."""

MIB = 1 << 20
EventCode = Annotated[str, Meta(min_length=1, max_length=128)]
# In Python `$` also matches before a last line feed; a JSON Schema reader has no `\Z`.
StreamName = Annotated[str, Meta(pattern=r"^[a-zA-Z0-9_.-]{1,128}$(?!\n)")]


class Batch(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """
    How a hook's records are gathered: what one call holds at most, and how long the first of them waits for others.

    `format` puts one event into a record, or several of one user as a JSON array or as lines.
    """

    max_records: Annotated[int, Meta(ge=1, le=500)] = 500
    max_bytes: Annotated[int, Meta(ge=1, le=10 * MIB)] = 10 * MIB
    linger_ms: Annotated[int, Meta(ge=0, le=60_000)] = 20
    format: Literal["single", "json_array", "ndjson"] = "single"


class Hook(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """
    What an app wants sent, and where to.

    `event_code` is one code, several, or `*` for every code of the trigger type. `stream_name` is the hook's own;
    region and keys are the connector's. An inactive hook matches nothing.
    """

    name: Annotated[str, Meta(min_length=1, max_length=128)]
    type: HookType = "KINESIS"
    stream_name: StreamName
    trigger_type: TriggerType
    event_code: EventCode | Annotated[tuple[EventCode, ...], Meta(min_length=1, max_length=100)]
    batch: Batch = Batch()
    active: bool = True

    @property
    def codes(self) -> frozenset[str]:
        """The codes as a set, with `*` for any."""
        return frozenset((self.event_code,) if isinstance(self.event_code, str) else self.event_code)


class Target(NamedTuple):
    """Where records go: one stream of one app's account. Two apps that name the same stream have a target each."""

    app_key: str
    stream_name: str


class Rule(Struct, frozen=True, kw_only=True):
    """A hook as it stands at one revision of the configuration."""

    app_key: str
    hook_id: str
    revision: int
    hook: Hook

    @property
    def target(self) -> Target:
        return Target(self.app_key, self.hook.stream_name)


class Index:
    """
    Every active hook of every app, arranged for matching. Immutable: a change of the configuration makes a new one, and
    whoever holds the old one sees all of the old configuration.
    """

    def __init__(self, rules: Iterable[Rule] = ()) -> None:
        self.rules: Mapping[tuple[str, str], Rule] = {
            (rule.app_key, rule.hook_id): rule for rule in rules if rule.hook.active
        }
        self._any: dict[tuple[str, str], tuple[Rule, ...]] = {}
        self._by_code: dict[tuple[str, str, str], tuple[Rule, ...]] = {}
        coded: list[tuple[str, Rule]] = []
        for rule in self.rules.values():
            codes = rule.hook.codes
            if ANY in codes:
                pair = (rule.app_key, rule.hook.trigger_type)
                self._any[pair] = (*self._any.get(pair, ()), rule)
            else:
                coded += [(code, rule) for code in codes]
        for code, rule in coded:
            pair = (rule.app_key, rule.hook.trigger_type)
            self._by_code[*pair, code] = (*self._by_code.get((*pair, code), self._any.get(pair, ())), rule)

    def match(self, event: Event) -> tuple[Rule, ...]:
        """The hooks that fire."""
        trigger = TRIGGERS.get(event.type)
        if trigger is None:
            return ()
        found = self._by_code.get((event.app_key, trigger, event.code))
        return self._any.get((event.app_key, trigger), ()) if found is None else found


class HookEventBody(Struct, frozen=True, kw_only=True):
    """What happened; `ts` is in milliseconds since the epoch."""

    code: str
    ts: int
    attributes: Attributes


class HookEventUser(Struct, frozen=True, kw_only=True, rename="camel"):
    """To whom it happened, by the platform's own id. The attributes are the event's, completed from the profile."""

    user_id: str
    attributes: Attributes


class HookEventIdentities(Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """How others know the user. What is not known is left out."""

    ext_id: str | None = None
    email: str | None = None
    msisdn: str | None = None
    device_tokens: tuple[str, ...] = ()


class HookEvent(Struct, frozen=True, kw_only=True, rename="camel"):
    """
    `hook.event.v1`.

    `id` is the event's, so `id` and `hookId` together let a reader drop a repetition. `source` is the event's place in
    the mesh, `<stream>:<sequence>:<index>`, for whoever compares the two ends.
    """

    schema: Literal["hook.event.v1"]
    id: str
    hook_id: str
    hook_revision: int
    source: str
    trigger_type: TriggerType
    app_key: str
    event: HookEventBody
    user: HookEventUser
    identities: HookEventIdentities


_encoder = msgspec.json.Encoder()


def render(rule: Rule, event: Event, source: str, profile: Attributes | None = None) -> bytes:
    """
    The record that `rule` sends for `event`.

    Args:
        source: `<stream>:<sequence>:<index>`.
        profile: Stored attributes of the user; what the event says itself goes before them.
    """
    attributes = event.user.attributes
    identities = event.identities
    record = HookEvent(
        schema=SCHEMA,
        id=event.id,
        hook_id=rule.hook_id,
        hook_revision=rule.revision,
        source=source,
        trigger_type=rule.hook.trigger_type,
        app_key=event.app_key,
        event=HookEventBody(code=event.code, ts=event.occurred_at, attributes=event.attributes),
        user=HookEventUser(user_id=event.user_id, attributes={**profile, **attributes} if profile else attributes),
        identities=HookEventIdentities(
            ext_id=event.ext_id,
            email=identities.email,
            msisdn=identities.msisdn,
            device_tokens=identities.device_tokens,
        ),
    )
    return _encoder.encode(record)
