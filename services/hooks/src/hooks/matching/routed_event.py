"""An event of `EVENTS`, decoded as far as matching and rendering need it."""

from typing import Annotated, Final

from msgspec import Meta, Raw, Struct

from shared.contracts.messages import Code, EventId, EventType, ExtId, Identities, UserId

EMPTY: Final = Raw(b"{}")


class RoutedUser(Struct, frozen=True, gc=False):
    """See `shared.contracts.messages.User`."""

    attributes: Raw = EMPTY


class RoutedEvent(Struct, frozen=True, kw_only=True, gc=False):
    """
    `shared.contracts.messages.Event`, decoded as far as matching and rendering need it. The rest stays JSON, which
    costs a third of decoding it; `hooks.events.decoding.read_message` checks that it is valid.
    """

    id: EventId
    app_key: str
    type: EventType = "event"
    code: Code
    user_id: UserId
    ext_id: ExtId | None = None
    occurred_at: Annotated[int, Meta(ge=0)]
    attributes: Raw = EMPTY
    user: RoutedUser = RoutedUser()
    identities: Identities | None = None
