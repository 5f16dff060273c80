"""
Which hooks fire for an event, and what is sent for it. Pure: no clock, no network, no configuration store.

The JSON that leaves is `hook.event.v1`, described by `docs/schemas/hook.event.v1.json`. Its names are camel case, as
the platform's own are (`userId`, `extId`); a field may be added under this version, none may change or go.
"""

from collections.abc import Iterable, Mapping
from typing import Annotated, Final, Literal, NamedTuple

import msgspec
from msgspec import Meta, Raw, Struct

from shared.messages import Attributes, EventType, Identities

SCHEMA: Literal["hook.event.v1"] = "hook.event.v1"
ANY = "*"

HookType = Literal["KINESIS"]
TriggerType = Literal["EVENT", "MESSAGE_LOG"]
TRIGGERS: Mapping[EventType, TriggerType] = {"event": "EVENT", "message_log": "MESSAGE_LOG"}
"""What an event of a type pulls. Types that are not here pull nothing."""

EventCode = Annotated[str, Meta(min_length=1, max_length=128)]
# In Python `$` also matches before a last line feed; a JSON Schema reader has no `\Z`.
StreamName = Annotated[str, Meta(pattern=r"^[a-zA-Z0-9_.-]{1,128}$(?!\n)")]


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

    def match(self, event: "RoutedEvent") -> tuple[Rule, ...]:
        """The hooks that fire."""
        trigger = TRIGGERS.get(event.type)
        if trigger is None:
            return ()
        found = self._by_code.get((event.app_key, trigger, event.code))
        return self._any.get((event.app_key, trigger), ()) if found is None else found


EMPTY: Final = Raw(b"{}")


class RoutedUser(Struct, frozen=True, gc=False):
    """See `shared.messages.User`."""

    attributes: Raw = EMPTY


class RoutedEvent(Struct, frozen=True, kw_only=True, gc=False):
    """
    `shared.messages.Event`, read as far as matching and rendering need it. The rest stays the JSON that it is, which
    costs a third; whoever reads a message sees to it that it is right (`entrance.read_message`).
    """

    id: Annotated[str, Meta(min_length=1, max_length=128)]
    app_key: str
    type: EventType = "event"
    code: Annotated[str, Meta(min_length=1, max_length=128)]
    user_id: Annotated[str, Meta(min_length=1, max_length=1024)]
    ext_id: str | None = None
    occurred_at: Annotated[int, Meta(ge=0)]
    attributes: Raw = EMPTY
    user: RoutedUser = RoutedUser()
    identities: Identities | None = None


class HookEventBody(Struct, frozen=True, kw_only=True, gc=False):
    """What happened; `ts` is in milliseconds since the epoch."""

    code: str
    ts: int
    attributes: Raw


class HookEventUser(Struct, frozen=True, kw_only=True, rename="camel", gc=False):
    """To whom it happened, by the platform's own id. The attributes are the event's, completed from the profile."""

    user_id: str
    attributes: Raw | Attributes


class HookEventIdentities(Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """How others know the user. What is not known is left out."""

    ext_id: str | None = None
    email: str | None = None
    msisdn: str | None = None
    device_tokens: tuple[str, ...] = ()


class HookEvent(Struct, frozen=True, kw_only=True, rename="camel", gc=False):
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


_attributes = msgspec.json.Decoder(Attributes)
_NOBODY: Final = HookEventIdentities()


def render(rule: Rule, event: RoutedEvent, source: str, profile: Attributes | None = None) -> bytes:
    """
    The record that `rule` sends for `event`.

    Args:
        source: `<stream>:<sequence>:<index>`.
        profile: Stored attributes of the user; what the event says itself goes before them.
    """
    attributes: Raw | Attributes = event.user.attributes
    if profile:
        attributes = {**profile, **_attributes.decode(event.user.attributes)}
    record = HookEvent(
        schema=SCHEMA,
        id=event.id,
        hook_id=rule.hook_id,
        hook_revision=rule.revision,
        source=source,
        trigger_type=rule.hook.trigger_type,
        app_key=event.app_key,
        event=HookEventBody(code=event.code, ts=event.occurred_at, attributes=event.attributes),
        user=HookEventUser(user_id=event.user_id, attributes=attributes),
        identities=_identities(event),
    )
    return _encoder.encode(record)


def _identities(event: RoutedEvent) -> HookEventIdentities:
    known = event.identities
    if known is None:
        return HookEventIdentities(ext_id=event.ext_id) if event.ext_id is not None else _NOBODY
    return HookEventIdentities(
        ext_id=event.ext_id, email=known.email, msisdn=known.msisdn, device_tokens=known.device_tokens
    )
