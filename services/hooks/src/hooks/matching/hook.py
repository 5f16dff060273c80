"""Configuration of a hook: its trigger, its codes and how its records are batched."""

from collections.abc import Collection, Mapping
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta, Struct

from shared.config.secret import Secret
from shared.contracts.messages import EventType
from shared.errors import InvalidError

ANY = "*"

DEFAULT_TYPE: Final = "KINESIS"
"""The sink of a hook that names none."""
SINK_FIELDS: Final = ("stream_name", "url", "secret")
"""Fields of a hook that only some sinks need."""
TriggerType = Literal["EVENT", "MESSAGE_LOG", "PUSH_CLICK", "GEOFENCE"]
TRIGGERS: Mapping[EventType, TriggerType] = {"event": "EVENT", "message_log": "MESSAGE_LOG"}
"""The trigger that an event of a type fires. Other types fire none."""
NARROWER: Mapping[EventType, tuple[TriggerType, tuple[str, ...]]] = {
    "message_log": ("PUSH_CLICK", ("PUSH_CLICK", "PUSH_OPEN")),
    "event": ("GEOFENCE", ("GEOFENCE",)),
}
"""
A second trigger that an event fires where its code, in capitals, begins like one of these.

The product documents the two triggers and not their codes. A click on a push happens to a message, and is called "push
open" among its events. Entering and leaving a geofence are events. The type `click` is a tracking link's, not a push's.
"""
MIB = 1 << 20
HOOKS_PER_APP: Final = 1000
CODES_PER_APP: Final = 10_000
"""Most hooks of an app, and most codes in all of them. A change of one arranges them anew, in some 10 ms."""
EventCode = Annotated[str, Meta(min_length=1, max_length=128)]
# In Python `$` also matches before a last line feed; a JSON Schema reader has no `\Z`.
STREAM: Final = r"[a-zA-Z0-9_.-]{1,128}|arn:aws[a-z-]*:kinesis:[a-z0-9-]{1,32}:[0-9]{12}:stream/[a-zA-Z0-9_.-]{1,128}"
"""Name of a stream of the connector's account, or the ARN of any (PutRecords, StreamARN)."""
StreamName = Annotated[str, Meta(pattern=rf"^({STREAM})$(?!\n)")]


class BatchSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """
    The batching of a hook's records: the most that one call holds, and how long the first record waits for others.

    `format` puts one event into a record, or several of one user as a JSON array or as lines.
    """

    max_records: Annotated[int, Meta(ge=1, le=500)] = 500
    max_bytes: Annotated[int, Meta(ge=1, le=10 * MIB)] = 10 * MIB
    linger_ms: Annotated[int, Meta(ge=0, le=60_000)] = 20
    format: Literal["single", "json_array", "ndjson"] = "single"


class Hook(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """
    The events that an app sends, and their target.

    `event_code` is one code, several, or `*` for every code of the trigger type. `stream_name` is the hook's own, a
    name or an ARN; region and keys are the connector's. A webhook has `url` and `secret` instead, and no connector. A
    record over `max_record_bytes`, its key included, is a dead letter or goes without attributes. An inactive hook
    matches nothing.
    """

    name: Annotated[str, Meta(min_length=1, max_length=128)]
    type: str = DEFAULT_TYPE
    stream_name: Annotated[str, Meta(pattern=rf"^({STREAM})?$(?!\n)")] = ""
    url: Annotated[str, Meta(max_length=2048)] = ""
    secret: Secret = msgspec.field(default_factory=lambda: Secret(""))
    trigger_type: TriggerType
    event_code: EventCode | Annotated[tuple[EventCode, ...], Meta(min_length=1, max_length=100)]
    batch: BatchSettings = BatchSettings()
    max_record_bytes: Annotated[int, Meta(ge=1024, le=10 * MIB)] = MIB
    oversize: Literal["dead_letter", "strip"] = "dead_letter"
    active: bool = True

    @property
    def codes(self) -> frozenset[str]:
        """The codes as a set, with `*` for any."""
        return frozenset((self.event_code,) if isinstance(self.event_code, str) else self.event_code)

    def checked(self, needed: Collection[str]) -> "Hook":
        """
        The hook as it may be saved. The sink checks what `url` and `secret` hold.

        Args:
            needed: Those of `SINK_FIELDS` that the hook's sink needs.

        Raises:
            InvalidError: The fields do not fit the type; names the field.
        """
        for code in self.codes:
            if ANY in code and code != ANY:
                message = f"expected codes as they are, or {ANY!r} alone for every code; {code[:128]!r} is a pattern"
                raise InvalidError(message, field="event_code")
        for field in SINK_FIELDS:
            if field in needed and field != "secret" and not getattr(self, field):
                raise InvalidError(f"required for {self.type} hooks", field=field)
        for field in SINK_FIELDS:
            if field not in needed and field != "secret" and getattr(self, field):
                raise InvalidError(f"expected none for {self.type} hooks", field=field)
        # A form that leaves the secret out has the saved one, which was the hook's with another type.
        unused = "secret" not in needed and self.secret
        return msgspec.structs.replace(self, secret=Secret("")) if unused else self


def check_sizes(hook: Hook, old: Hook | None, others: Collection[Hook]) -> None:
    """
    Check that an app may save a hook beside its `others`. What is there already may stay and become smaller.

    Raises:
        InvalidError: The app would have too many hooks, or too many codes in them.
    """
    if old is None and len(others) >= HOOKS_PER_APP:
        raise InvalidError(f"expected at most {HOOKS_PER_APP} hooks of an app, found {len(others)} others", field="id")
    codes = len(hook.codes)
    if old is None or codes > len(old.codes):
        most = CODES_PER_APP - sum(len(other.codes) for other in others)
        if codes > most:
            message = (
                f"expected at most {CODES_PER_APP} codes in all hooks of an app, so {max(0, most)} here, got {codes}"
            )
            raise InvalidError(message, field="event_code")
