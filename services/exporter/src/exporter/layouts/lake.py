"""
Files of the lake: all events of an app by type and day, in columns that every type has. Parquet.

Considerations: the day is that in which the stream stored an event, so no event comes late into a folder. Attributes,
user and identities are JSON with the digits that were published. Columns are never renamed or moved.
"""

import re
from datetime import UTC
from typing import Final

import msgspec
from msgspec import Raw, Struct

from exporter.pipeline.events import AnyEvent, read_message
from exporter.pipeline.lane import WHOLE, Lane
from exporter.pipeline.ports import FileName, Reading, WindowLimits
from exporter.pipeline.tables import Column, Row, Table
from shared.contracts.messages import NO_ATTRIBUTES, NO_IDENTITIES
from shared.contracts.streams import DAY_S

TABLE: Final = Table(
    "lake",
    (
        Column("sequence", "long"),
        Column("id"),
        Column("code"),
        Column("user_id"),
        Column("ext_id"),
        Column("occurred_at", "long"),
        Column("message_id"),
        Column("campaign_id"),
        Column("device"),
        Column("platform"),
        Column("revenue", "decimal"),
        Column("attributes"),
        Column("user"),
        Column("identities"),
    ),
)
NUMBER: Final = re.compile(r"-?[0-9]{1,40}(\.[0-9]{1,400})?([eE][+-]?[0-9]{1,3})?")

_EMPTY: Final = bytes(NO_ATTRIBUTES)
_ABSENT: Final = Raw(b"null")
_NO_COLUMNS: Final = (None,) * 5


class LakeAttributes(Struct, frozen=True):
    """Attributes that are columns. The first four are texts in nearly all events."""

    message_id: str | None = None
    campaign_id: str | None = None
    device: str | None = None
    platform: str | None = None
    revenue: Raw = _ABSENT


class OddAttributes(Struct, frozen=True):
    """The same where one is no text."""

    message_id: Raw = _ABSENT
    campaign_id: Raw = _ABSENT
    device: Raw = _ABSENT
    platform: Raw = _ABSENT
    revenue: Raw = _ABSENT


_attributes = msgspec.json.Decoder(LakeAttributes)
_odd_attributes = msgspec.json.Decoder(OddAttributes)


class LakeLayout:
    """Satisfies `exporter.pipeline.ports.Layout`. A file holds the events of one type: `event`, `click` and so on."""

    limits: Final = WindowLimits(rows=15_000, rows_behind=100_000, period_s=int(DAY_S))
    is_named_by_second: Final = False

    def __init__(self, app_key: str) -> None:
        self._app_key = app_key

    def read(self, data: bytes, sequence: int) -> Reading:
        """The rows of a message, by type."""
        decoded = read_message(data, self._app_key)
        parts: dict[str, list[Row]] = {}
        for event in decoded.events:
            parts.setdefault(event.type, []).append(_row(event, sequence))
        return Reading(parts, len(decoded.events), decoded.dropped, decoded.reason)

    def table(self, part: str) -> Table:
        """The same columns for each type."""
        return TABLE

    def name(self, name: FileName) -> str:
        """The name of a type's file. The day is that in which the stream stored the window's first event."""
        day = name.queued_at.astimezone(UTC).date().isoformat()
        folder = day_folder(self._app_key, name.part, day)
        return f"{folder}/{range_name(name.first_sequence, name.last_sequence, name.lane)}"


def app_folder(app_key: str) -> str:
    """The folder of an app's files alone."""
    return f"app={app_key}"


def day_folder(app_key: str, event_type: str, day: str) -> str:
    """The folder of the files of one type and day, which is `YYYY-MM-DD`."""
    return f"{app_folder(app_key)}/type={event_type}/date={day}"


def day_of_key(key: str) -> str:
    """The day in the key of a file."""
    return key.split("/")[2].removeprefix("date=")


def range_name(first_sequence: int, last_sequence: int, lane: Lane = WHOLE) -> str:
    """The name of a file with the events of a range of sequences: all of them, or those of a lane."""
    name = f"{first_sequence:010}-{last_sequence:010}"
    return name if lane.is_whole else f"{name}+{lane.shard}"


def _row(event: AnyEvent, sequence: int) -> Row:
    attributes = bytes(event.attributes)
    user = bytes(event.user.attributes)
    return (
        sequence,
        event.id,
        event.code,
        event.user_id,
        event.ext_id or None,
        event.occurred_at,
        *(_columns(attributes) if attributes != _EMPTY else _NO_COLUMNS),
        attributes.decode() if attributes != _EMPTY else None,
        user.decode() if user != _EMPTY else None,
        msgspec.json.encode(event.identities).decode() if event.identities != NO_IDENTITIES else None,
    )


def _columns(attributes: bytes) -> tuple[str | None, ...]:
    try:
        usual = _attributes.decode(attributes)
    except msgspec.ValidationError:
        odd = _odd_attributes.decode(attributes)
        texts = map(_text, (odd.message_id, odd.campaign_id, odd.device, odd.platform))
        return *texts, _number(odd.revenue)
    return usual.message_id, usual.campaign_id, usual.device, usual.platform, _number(usual.revenue)


def _text(value: Raw) -> str | None:
    """A text as it is, null as none, and other values as their JSON."""
    data = bytes(value)
    if data == b"null":
        return None
    return msgspec.json.decode(data, type=str) if data[:1] == b'"' else data.decode()


def _number(value: Raw) -> str | None:
    if value is _ABSENT:
        return None
    text = _text(value)
    return text if text is not None and NUMBER.fullmatch(text) else None
