"""Types of events in files, as Braze names them where one fits. Pure."""

import re
from typing import Final

from shared.contracts.messages import EventType

CUSTOM_EVENT: Final = "users.behaviors.CustomEvent"
PURCHASE: Final = "users.behaviors.Purchase"
PUSH: Final = "users.messages.pushnotification"

PURCHASE_CODES: Final = frozenset({"PURCHASE", "IN_APP_PURCHASE", "nm:purchase"})
"""Codes of events by which a user pays."""

_BY_CODE: Final = {
    **{("event", code): PURCHASE for code in PURCHASE_CODES},
    ("message_log", "PUSH_SENT"): f"{PUSH}.Send",
    ("message_log", "PUSH_OPENED"): f"{PUSH}.Open",
    ("message_log", "PUSH_FAILED"): f"{PUSH}.Bounce",
}
_BY_TYPE: Final[dict[str, tuple[EventType, str]]] = {
    CUSTOM_EVENT: ("event", "TEST"),
    PURCHASE: ("event", "PURCHASE"),
    f"{PUSH}.Send": ("message_log", "PUSH_SENT"),
    f"{PUSH}.Open": ("message_log", "PUSH_OPENED"),
    f"{PUSH}.Bounce": ("message_log", "PUSH_FAILED"),
}
_OURS: Final[dict[str, EventType]] = {"message_log": "message_log", "click": "click", "conversion": "conversion"}
_UNSAFE = re.compile(r"[^A-Za-z0-9_-]")


def type_of(event_type: str, code: str) -> str:
    """
    The type under which an event is exported: `millrace.click.CLICK` where Braze has none.

    A character of the code that a key of an object should not hold becomes `_`, so codes may share a type. The event's
    `name` is its code.
    """
    if found := _BY_CODE.get((event_type, code)):
        return found
    if event_type == "event":
        return CUSTOM_EVENT
    return f"millrace.{event_type}.{_UNSAFE.sub('_', code)}"


def sample_of(exported_type: str) -> tuple[EventType, str] | None:
    """The type and the code of an event that is exported as this type; None where it may be that none is."""
    if not exported_type.startswith("millrace."):
        return _BY_TYPE.get(exported_type)
    _, name, *codes = exported_type.split(".", 2)
    event_type = _OURS.get(name)
    return None if event_type is None else (event_type, codes[0] if codes else "TEST")


def schema_name(exported_type: str) -> str:
    """The name of a type's schema: types of ours share one, whatever the code."""
    if exported_type.startswith("millrace."):
        return ".".join(exported_type.split(".")[:2])
    return exported_type
