"""
The record that a hook sends for an event: `hook.event.v1`, described by `docs/schemas/hook.event.v1.json`.

Its names are camel case, as the platform's own are (`userId`, `extId`). A field may be added under this version; none
may change or go. Pure: no clock, no network, no configuration store.
"""

from typing import Final, Literal

import msgspec
from msgspec import UNSET, Raw, Struct

from hooks.matching.hook import TriggerType
from hooks.matching.routed_event import RoutedEvent
from hooks.matching.rule import Rule
from shared.contracts.messages import NO_ATTRIBUTES, ProfileAttributes

SCHEMA: Literal["hook.event.v1"] = "hook.event.v1"


class HookEventBody(Struct, frozen=True, gc=False):
    """The event; `ts` is in milliseconds since the epoch."""

    code: str
    ts: int
    attributes: Raw


class HookEventUser(Struct, frozen=True, rename="camel", gc=False):
    """The event's user, by the platform's own id. The attributes are the event's, completed from the profile."""

    user_id: str
    attributes: Raw | ProfileAttributes


class HookEventIdentities(Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """Other names of the user. Unknown ones are left out."""

    ext_id: str | None = None
    email: str | None = None
    msisdn: str | None = None
    device_tokens: tuple[str, ...] = ()


class HookEvent(Struct, frozen=True, rename="camel", gc=False):
    """
    `hook.event.v1`.

    `id` is the event's, so `id` and `hookId` together let a reader drop a repetition. `source` is the event's position
    in the mesh, `<stream>:<sequence>:<index>`, for a comparison of the two ends.
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
_members = msgspec.json.Decoder(dict[str, Raw])
_NO_IDENTITIES: Final = HookEventIdentities()


def render(rule: Rule, event: RoutedEvent, source: str, profile: ProfileAttributes | None = None) -> bytes:
    """
    The record that `rule` sends for `event`.

    Args:
        source: `<stream>:<sequence>:<index>`.
        profile: Stored attributes of the user; attributes of the event take precedence.
    """
    attributes: Raw | ProfileAttributes = event.user.attributes
    if profile:
        attributes = {**profile, **_members.decode(event.user.attributes)}
    # By position: keyword arguments would cost a quarter of the whole function.
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
    identities = event.identities
    if identities is UNSET:
        return HookEventIdentities(ext_id=event.ext_id) if event.ext_id else _NO_IDENTITIES
    return HookEventIdentities(
        ext_id=event.ext_id or None,
        email=identities.email,
        msisdn=identities.msisdn,
        device_tokens=identities.device_tokens,
    )


def strip(data: bytes) -> bytes:
    """A rendered record without the attributes of its event and its user, marked as `stripped`."""
    record: dict[str, object] = {**_members.decode(data)}
    for name in ("event", "user"):
        record[name] = _members.decode(msgspec.json.encode(record[name])) | {"attributes": NO_ATTRIBUTES}
    return _encoder.encode(record | {"stripped": True})
