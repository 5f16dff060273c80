"""
Messages that cross NATS: frozen Structs, and their encoding as JSON. No behaviour, and no type of one service alone.

Requests are imperative and their answers are `<Request>Reply`; events are in the past tense. A publisher in another
language needs `Event` and `shared.contracts.subjects.partition_of`, nothing else.
"""

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Final, Literal, TypeVar

import msgspec
from msgspec import Meta, Raw, Struct

from shared.contracts.choices import KEY, with_choices
from shared.errors import InvalidError

T = TypeVar("T")

EventType = Literal["event", "message_log", "click", "conversion"]
Attributes = Annotated[Raw, Meta(extra_json_schema={"type": "object"})]
"""
A JSON object of names and values of any kind, to `ATTRIBUTE_LEVELS`. It stays the text that was sent, so a number keeps
its digits: `1.10`, or twenty of them. `shared.events.attributes` checks it.
"""
NO_ATTRIBUTES: Final = Raw(b"{}")
ATTRIBUTE_LEVELS: Final = 32
"""Levels of objects and lists in one attribute."""
ProfileAttributes = dict[str, Raw]
"""Attributes of a profile, which change one by one. A value is JSON text."""

EventId = Annotated[str, Meta(min_length=1, max_length=128)]
Code = Annotated[str, Meta(min_length=1, max_length=128)]
UserId = Annotated[str, Meta(min_length=1, max_length=1024)]
ExtId = Annotated[str, Meta(max_length=1024)]
Address = Annotated[str, Meta(max_length=1024)]
"""An e-mail address (254 characters, RFC 5321) or a telephone number."""
OccurredAt = Annotated[int, Meta(ge=0, le=(1 << 63) - 1)]
"""Milliseconds since the epoch."""
DeviceTokens = Annotated[tuple[Annotated[str, Meta(max_length=4096)], ...], Meta(max_length=1000)]
"""Push tokens; a web push subscription has the longest."""


class User(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Attributes of the user at the time of the event."""

    attributes: Attributes = NO_ATTRIBUTES


class Identities(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Addresses of the user."""

    email: Address | None = None
    msisdn: Address | None = None
    device_tokens: DeviceTokens = ()


NO_USER: Final = User()
NO_IDENTITIES: Final = Identities()


class Event(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """
    One thing that happened to one user.

    `user_id` is the platform's own id and decides the partition; `ext_id` is the customer's, and an empty one is none.
    `occurred_at` is in milliseconds since the epoch. `id` lets every receiver drop a duplicate.
    """

    id: EventId
    app_key: Annotated[str, Meta(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
    type: EventType = "event"
    code: Code
    user_id: UserId
    ext_id: ExtId | None = None
    occurred_at: OccurredAt
    attributes: Attributes = NO_ATTRIBUTES
    user: User = NO_USER
    identities: Identities = NO_IDENTITIES


class PushRow(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One push to one user. `id` is `<file id>:<physical line>`; a line break in `text` is a real one."""

    id: str
    line: int
    ext_id: str
    text: str
    deeplink: str = ""


class PushBatch(Struct, frozen=True, kw_only=True):
    """Rows of a push file in their order, on `push.send.<app>.<file_id>`. Every push goes to the inbox as well."""

    app_key: str
    file_id: str
    file_name: str
    first_line: int
    last_line: int
    inbox: bool = True
    rows: tuple[PushRow, ...]


class ProfileRow(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """New values for one profile. An absent value stays as it is."""

    id: str
    line: int
    ext_id: str
    email: str | None = None
    device_token: str | None = None
    attributes: ProfileAttributes = {}


class ProfileBatch(Struct, frozen=True, kw_only=True):
    """Rows of a profile file in their order, on `profile.update.<app>.<file_id>`."""

    app_key: str
    file_id: str
    file_name: str
    first_line: int
    last_line: int
    rows: tuple[ProfileRow, ...]


class FileChanged(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """
    A change of an uploaded file's state, on `ftp.file.<app>.<state>`.

    `rows_ok` counts the rows that are published, or that will be while the file is `received`. It includes
    `duplicates`, rows whose external id came before. `seconds` is the time from the upload to the end.
    """

    app_key: str
    file_id: str
    file_name: str
    kind: Literal["push", "profile"]
    state: Literal["received", "partial", "completed", "failed", "duplicate"]
    at: datetime
    size_bytes: int = 0
    rows: int = 0
    rows_ok: int = 0
    rows_bad: int = 0
    duplicates: int = 0
    seconds: float = 0.0
    reason: str | None = None


MediaKind = Literal["message-image", "widget-image", "attachment", "file"]


class StoredObject(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An object in a provider. `url` is permanent and needs no credential."""

    key: str
    url: str
    content_type: str
    size_bytes: int
    sha256: str
    width: int | None = None
    height: int | None = None


class StoreMedia(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Store a small body; `content` is Base64 in JSON. A body over the server's `max_payload` goes by HTTP."""

    app_key: str
    kind: MediaKind = "message-image"
    file_name: str = ""
    content: bytes


class StoreMediaReply(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """
    Addresses of the original and, for an image, of its thumbnails.

    `id` is `<kind>-<half of a hash>`, of content and name. `thumbnail` has the first configured size,
    `other_thumbnails` the others. `failed_over` says that a provider with precedence failed.
    """

    id: str
    app_key: str
    kind: MediaKind
    provider: str
    original: StoredObject
    thumbnail: StoredObject | None = None
    other_thumbnails: tuple[StoredObject, ...] = ()
    failed_over: bool = False


class ResolveMedia(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Ask for an object's address, whichever provider is active now."""

    app_key: str
    id: str


ObjectStored = StoreMediaReply
"""`storage.object.<app>.stored` carries the reply that the uploader got."""


class Alert(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Notice to an operator, on `alerts.<service>.<app>.<kind>`. Holds no secret."""

    service: str
    app_key: str
    kind: str
    subject: str
    message: str
    at: datetime


class DeadLetter(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """
    A record that cannot be delivered, on `dlq.<service>.<app>.<owner_id>.<reason>`.

    `key` is the partition key of the record, which keeps the order when it is sent again. `cut` says that the body is
    not whole.
    """

    service: str
    app_key: str
    owner_id: str
    reason: str
    message: str
    at: datetime
    source: str
    attempts: int = 1
    key: str = ""
    cut: bool = False
    body: str = ""


NAME_CHARS = 100
"""Most characters of an unknown field's name in an error."""
_NAMED_FIELD = re.compile(r"Object (?:contains unknown|missing required) field `(.*)`", re.DOTALL)

_encoder = msgspec.json.Encoder()


def encode(message: Struct | tuple[Struct, ...] | list[Event]) -> bytes:
    """One message, or an array of them, as JSON."""
    return _encoder.encode(message)


def make_attributes(values: Mapping[str, object]) -> Attributes:
    """Values of any kind that JSON has, as the attributes of an event."""
    return Raw(_encoder.encode(values))


def make_profile_attributes(values: Mapping[str, object]) -> ProfileAttributes:
    """Values of any kind that JSON has, as the attributes of a profile."""
    return {name: Raw(_encoder.encode(value)) for name, value in values.items()}


def decode(data: bytes, kind: type[T]) -> T:
    """A message of this type. Raises `InvalidError`, naming the path and what was expected there."""
    try:
        return msgspec.json.decode(data, type=kind)
    except msgspec.ValidationError as error:
        raise invalid_error(error, kind) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidError(f"expected JSON: {error}") from None


def invalid_error(error: msgspec.ValidationError, kind: Any) -> InvalidError:
    """
    `InvalidError` for a value that is no `kind`: msgspec's sentence, with the choices where there are some, and its
    path as field (`Expected `int`, got `str` - at `$.rows[3].line``).

    A field that is missing or unknown is part of the sentence, and belongs to the path: `Object contains unknown field
    `Email` - at `$.identities``.
    """
    message, _, path = str(error).partition(" - at ")
    message = with_choices(message, path, kind)
    field = path.removeprefix(KEY).strip("`").removeprefix("$").removeprefix(".")
    if found := _NAMED_FIELD.match(message):
        name = found[1] if len(found[1]) <= NAME_CHARS else f"{found[1][:NAME_CHARS]}…"
        field = f"{field}.{name}" if field else name
        message = message.replace(found[1], name)
    return InvalidError(message, field=field or None)
