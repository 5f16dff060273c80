"""
Which hooks fire for an event, and what is sent for it. Pure: no clock, no network, no configuration store.

The JSON that leaves is `hook.event.v1`, described by `docs/schemas/hook.event.v1.json`. Its names are camel case, as
the platform's own are (`userId`, `extId`); a field may be added under this version, none may change or go.
"""

from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import Annotated, Final, Literal, NamedTuple

import msgspec
from msgspec import Meta, Raw, Struct

from shared.errors import InvalidError
from shared.messages import Attributes, EventType, Identities
from shared.secret_store import Secret

SCHEMA: Literal["hook.event.v1"] = "hook.event.v1"
ANY = "*"

HookType = Literal["KINESIS", "WEBHOOK"]
TriggerType = Literal["EVENT", "MESSAGE_LOG", "PUSH_CLICK", "GEOFENCE"]
TRIGGERS: Mapping[EventType, TriggerType] = {"event": "EVENT", "message_log": "MESSAGE_LOG"}
"""What an event of a type pulls. Types that are not here pull nothing."""
NARROWER: Mapping[EventType, tuple[TriggerType, tuple[str, ...]]] = {
    "message_log": ("PUSH_CLICK", ("PUSH_CLICK", "PUSH_OPEN")),
    "event": ("GEOFENCE", ("GEOFENCE",)),
}
"""
What an event pulls besides when its code, in capitals, begins like one of these. The product tells the two triggers and
not their codes: a click on a push is something that happens to a message, and is called "push open" among its events;
entering and leaving a geofence are events. The type `click` is a tracking link's, and no push's.
"""

MATCHES_REMEMBERED: Final = 4096
"""Codes come from outside, so there is no end of them."""
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
    region and keys are the connector's. A webhook has `url` and `secret` instead, and no connector. A record over
    `max_record_bytes`, its key included, is a dead letter or goes without attributes. An inactive hook matches nothing.
    """

    name: Annotated[str, Meta(min_length=1, max_length=128)]
    type: HookType = "KINESIS"
    stream_name: Annotated[str, Meta(pattern=r"^[a-zA-Z0-9_.-]{0,128}$(?!\n)")] = ""
    url: Annotated[str, Meta(max_length=2048)] = ""
    secret: Secret = msgspec.field(default_factory=lambda: Secret(""))
    trigger_type: TriggerType
    event_code: EventCode | Annotated[tuple[EventCode, ...], Meta(min_length=1, max_length=100)]
    batch: Batch = Batch()
    max_record_bytes: Annotated[int, Meta(ge=1024, le=10 * MIB)] = MIB
    oversize: Literal["dead_letter", "strip"] = "dead_letter"
    active: bool = True

    @property
    def codes(self) -> frozenset[str]:
        """The codes as a set, with `*` for any."""
        return frozenset((self.event_code,) if isinstance(self.event_code, str) else self.event_code)

    def checked(self) -> "Hook":
        """
        The hook as it may be saved. What `url` and `secret` have to be is told by the sink.

        Raises:
            InvalidError: The fields do not fit the type; names the field.
        """
        webhook = self.type == "WEBHOOK"
        needed, other = ("url", "stream_name") if webhook else ("stream_name", "url")
        if not getattr(self, needed):
            raise InvalidError(f"expected one, because the hook is a {self.type}", field=needed)
        if getattr(self, other):
            raise InvalidError(f"expected none, because the hook is a {self.type}", field=other)
        # A secret that is left out of a form is the saved one, here that of the webhook which this one was before.
        return self if webhook or not self.secret else msgspec.structs.replace(self, secret=Secret(""))


class Target(NamedTuple):
    """
    Where records go: one stream of one app's account, or one webhook. Two apps that name the same stream have a target
    each, and so have two webhooks with the same address.

    A webhook's `stream_name` is the id of its hook: the address may hold what must not stand in a log.
    """

    app_key: str
    stream_name: str
    sink: HookType = "KINESIS"

    @property
    def connector(self) -> str:
        """The name of what opens it: the app's connector, or the hook itself."""
        return self.app_key if self.sink == "KINESIS" else f"{self.app_key}/{self.stream_name}"


class Rule(Struct, frozen=True, kw_only=True, dict=True, eq=False):
    """A hook as it stands at one revision of the configuration."""

    app_key: str
    hook_id: str
    revision: int
    hook: Hook

    @cached_property
    def target(self) -> Target:
        """Where its records go. Asked for with every event."""
        if self.hook.type == "WEBHOOK":
            return Target(self.app_key, self.hook_id, "WEBHOOK")
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
        self._narrower = {(rule.app_key, rule.hook.trigger_type) for rule in self.rules.values()}
        self._matches: dict[tuple[str, EventType, str], tuple[Rule, ...]] = {}
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
        asked = (event.app_key, event.type, event.code)
        found = self._matches.get(asked)
        if found is None:
            if len(self._matches) >= MATCHES_REMEMBERED:
                self._matches.clear()
            found = self._matches[asked] = self._match(*asked)
        return found

    def _match(self, app_key: str, event_type: EventType, code: str) -> tuple[Rule, ...]:
        trigger = TRIGGERS.get(event_type)
        if trigger is None:
            return ()
        narrower, codes = NARROWER[event_type]
        if (app_key, narrower) not in self._narrower or not code.upper().startswith(codes):
            return self._find(app_key, trigger, code)
        return self._find(app_key, trigger, code) + self._find(app_key, narrower, code)

    def _find(self, app_key: str, trigger: TriggerType, code: str) -> tuple[Rule, ...]:
        found = self._by_code.get((app_key, trigger, code))
        return self._any.get((app_key, trigger), ()) if found is None else found


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


class HookEventBody(Struct, frozen=True, gc=False):
    """What happened; `ts` is in milliseconds since the epoch."""

    code: str
    ts: int
    attributes: Raw


class HookEventUser(Struct, frozen=True, rename="camel", gc=False):
    """To whom it happened, by the platform's own id. The attributes are the event's, completed from the profile."""

    user_id: str
    attributes: Raw | Attributes


class HookEventIdentities(Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """How others know the user. What is not known is left out."""

    ext_id: str | None = None
    email: str | None = None
    msisdn: str | None = None
    device_tokens: tuple[str, ...] = ()


class HookEvent(Struct, frozen=True, rename="camel", gc=False):
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
    # By position: the names would cost a quarter of all that is done here.
    record = HookEvent(
        SCHEMA,
        event.id,
        rule.hook_id,
        rule.revision,
        source,
        rule.hook.trigger_type,
        event.app_key,
        HookEventBody(event.code, event.occurred_at, event.attributes),
        HookEventUser(event.user_id, attributes),
        _identities(event),
    )
    return _encoder.encode(record)


def _identities(event: RoutedEvent) -> HookEventIdentities:
    known = event.identities
    if known is None:
        return HookEventIdentities(ext_id=event.ext_id) if event.ext_id is not None else _NOBODY
    return HookEventIdentities(
        ext_id=event.ext_id, email=known.email, msisdn=known.msisdn, device_tokens=known.device_tokens
    )


def strip(data: bytes) -> bytes:
    """A rendered record without the attributes of its event and its user, marked as `stripped`."""
    record = msgspec.json.decode(data)
    record["event"]["attributes"] = {}
    record["user"]["attributes"] = {}
    return _encoder.encode(record | {"stripped": True})
