"""An event of `EVENTS`, decoded as far as matching and rendering need it."""

from msgspec import UNSET, Raw, Struct, UnsetType

from shared.contracts.messages import NO_ATTRIBUTES, Code, EventId, EventType, ExtId, Identities, OccurredAt, UserId


class RoutedUser(Struct, frozen=True, gc=False, forbid_unknown_fields=True):
    """See `shared.contracts.messages.User`."""

    attributes: Raw = NO_ATTRIBUTES


class RoutedIdentities(Identities, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """See `shared.contracts.messages.Identities`."""


class RoutedEvent(Struct, frozen=True, kw_only=True, gc=False, forbid_unknown_fields=True):
    """
    `shared.contracts.messages.Event`, as matching and rendering need it. `hooks.events.decoding` checks what is JSON
    still, and reads an event with unknown fields as well.
    """

    id: EventId
    app_key: str
    type: EventType = "event"
    code: Code
    user_id: UserId
    ext_id: ExtId | None = None
    occurred_at: OccurredAt
    attributes: Raw = NO_ATTRIBUTES
    user: RoutedUser = RoutedUser()
    identities: RoutedIdentities | UnsetType = UNSET
