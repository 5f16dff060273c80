"""Configuration of a hook: its trigger, its codes and how its records are batched."""

from collections.abc import Mapping
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from shared.config.secret import Secret
from shared.contracts.messages import EventType
from shared.errors import InvalidError

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
