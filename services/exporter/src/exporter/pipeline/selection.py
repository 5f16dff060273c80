"""The selection of an export's events: by type, and by the lists of its configuration. Pure."""

from typing import Final, Literal

from msgspec import Struct

from exporter.pipeline.events import RowEvent, Value
from shared.contracts.messages import EventType

ID_DIGITS: Final = 20
"""The most digits of an id as text. Python reads no number of thousands of them."""

Data = Literal["clicks", "conversions", "events"]

EVENT_TYPES: dict[Data, EventType | None] = {"clicks": "click", "conversions": "conversion", "events": None}
"""The type of the events that are rows; None is every type."""

ADVERTISER_ATTRIBUTES = ("supplier_id", "advertiser_id")
"""Affise's API calls the advertiser `supplier_id`, its panel `advertiser`. The first one present counts."""


class EventSelection(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """
    The kind of an export's events. Where lists are given, an event must match each of them.

    `affiliates` are Affise's whole numbers (`partner_id`), `advertisers` its 24 hexadecimal digits. `types` are
    exported types, or names of schemas, which hold all codes of a type.
    """

    data: Data
    affiliates: tuple[int, ...] = ()
    advertisers: tuple[str, ...] = ()
    types: tuple[str, ...] = ()

    @property
    def event_type(self) -> EventType | None:
        """The type of the events that are rows of this export; None is every type."""
        return EVENT_TYPES[self.data]

    def matches(self, event: RowEvent) -> bool:
        """Return whether an event of the right type passes the lists."""
        attributes = event.attributes
        if self.affiliates and _number(attributes.get("partner_id")) not in self.affiliates:
            return False
        if not self.advertisers:
            return True
        advertiser = next(
            (attributes[name] for name in ADVERTISER_ATTRIBUTES if attributes.get(name) is not None), None
        )
        return isinstance(advertiser, str) and advertiser.lower() in self.advertisers


def _number(value: Value) -> int | None:
    """An id as a number. A publisher may send it as text."""
    if isinstance(value, str) and len(value) <= ID_DIGITS and value.isascii() and value.isdigit():
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None
