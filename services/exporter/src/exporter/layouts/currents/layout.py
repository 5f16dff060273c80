"""The rows and names of a window of events."""

from datetime import UTC
from typing import Final

import msgspec
from msgspec import Raw, Struct

from exporter.layouts.currents.event_types import schema_name, type_of
from exporter.layouts.currents.schemas import newest_schema
from exporter.pipeline.content import Content
from exporter.pipeline.events import AnyEvent, read_message
from exporter.pipeline.origin import Origin
from exporter.pipeline.ports import FileName, Reading, WindowLimits
from exporter.pipeline.tables import Cell, Column, Row, Table
from exporter.pipeline.transforms import Transforms
from shared.contracts.messages import NO_ATTRIBUTES, NO_USER

MAX_EVENT_BYTES: Final = 900_000
"""A larger event is refused and counted, as Braze does."""
MAX_INT: Final = (1 << 31) - 1
"""Avro's `int` has 32 bits."""
COLUMNS_BEFORE: Final = 7
COLUMNS_AFTER: Final = 2
"""Columns of every schema, before and after those that are attributes."""
ALIASES: Final = {"device_id": "device", "price": "revenue"}
"""Attributes of another name than their column, which count where there is none of the column's name."""

KINDS_KEPT: Final = 1000
"""A publisher may send any number of codes."""

_EMPTY: Final = bytes(NO_ATTRIBUTES)
_members = msgspec.json.Decoder(dict[str, Raw])


class CurrentsLayout:
    """Satisfies `exporter.pipeline.ports.Layout`. A file holds the events of one type."""

    limits: Final = WindowLimits(rows=15_000, rows_behind=100_000, period_s=3600)
    is_named_by_second: Final = False

    def __init__(self, origin: Origin, content: Content) -> None:
        self._origin = origin
        self._types = frozenset(content.selection.types)
        self._transforms = Transforms(content.remove, content.hash)
        self._kinds: dict[tuple[str, str], _Kind] = {}

    def read(self, data: bytes, sequence: int = 0) -> Reading:
        """The rows of a message, by type."""
        decoded = read_message(data, self._origin.app_key)
        is_large = len(data) > MAX_EVENT_BYTES
        parts: dict[str, list[Row]] = {}
        refused = 0
        kinds = self._kinds
        for event in decoded.events:
            if is_large and len(msgspec.json.encode(event)) > MAX_EVENT_BYTES:
                refused += 1
                continue
            kind = kinds.get((event.type, event.code)) or self._kind(event.type, event.code)
            if kind.is_chosen:
                row = _row(event, kind.of_attributes)
                rows = parts.get(kind.part)
                if rows is None:
                    rows = parts[kind.part] = []
                rows.append([*map(self._transforms.apply, kind.columns, row)] if kind.is_transformed else row)
        reason = decoded.reason or (f"expected at most {MAX_EVENT_BYTES} bytes" if refused else "")
        return Reading(parts, len(decoded.events) - refused, decoded.dropped + refused, reason)

    def table(self, part: str) -> Table:
        """The columns of a type, from its schema."""
        return newest_schema(schema_name(part))[1]

    def name(self, name: FileName) -> str:
        """The name of a type's file. The hour is that in which the stream stored the window's first event."""
        origin = self._origin
        connector = f"dataexport.{origin.cluster}.{origin.destination}.integration.{origin.export_id}"
        number, _ = newest_schema(schema_name(name.part))
        hour = name.queued_at.astimezone(UTC).strftime("%Y-%m-%d-%H")
        folder = f"{connector}/event_type={name.part}/date={hour}/{number}/{origin.zone}"
        return f"{folder}/{connector}+{name.lane.shard}+{name.first_sequence:010}"

    def _kind(self, event_type: str, code: str) -> "_Kind":
        part = type_of(event_type, code)
        columns = self.table(part).columns
        kind = _Kind(
            part=part,
            is_chosen=not self._types or part in self._types or schema_name(part) in self._types,
            is_transformed=bool(self._transforms),
            columns=columns,
            of_attributes=columns[COLUMNS_BEFORE:-COLUMNS_AFTER],
        )
        if len(self._kinds) < KINDS_KEPT:
            self._kinds[event_type, code] = kind
        return kind


class _Kind(Struct, frozen=True, kw_only=True):
    """The form of the events of one type and code."""

    part: str
    is_chosen: bool
    is_transformed: bool
    columns: tuple[Column, ...]
    of_attributes: tuple[Column, ...]


def _row(event: AnyEvent, of_attributes: tuple[Column, ...]) -> Row:
    seconds = event.occurred_at // 1000
    attributes = event.attributes
    return (
        event.id,
        event.user_id,
        event.app_key,
        event.code,
        seconds if seconds < MAX_INT else MAX_INT,
        event.ext_id or None,
        event.occurred_at,
        *(_attribute_cells(of_attributes, attributes) if of_attributes else ()),
        attributes if attributes is not NO_ATTRIBUTES and bytes(attributes) != _EMPTY else None,
        None if event.user is NO_USER or bytes(event.user.attributes) == _EMPTY else event.user.attributes,
    )


def _attribute_cells(columns: tuple[Column, ...], attributes: Raw) -> tuple[Cell, ...]:
    """Cells of attributes by the names of their columns. One of another type than its column is null."""
    values = _members.decode(attributes)
    return tuple(
        _cell(column, values.get(column.name) or values.get(ALIASES.get(column.name, column.name)))
        for column in columns
    )


def _cell(column: Column, value: Raw | None) -> Cell:
    text = bytes(value) if value is not None else b"null"
    if column.type == "double":
        return _double(text)
    if text == b"null":
        return None
    return msgspec.json.decode(text, type=str) if text[:1] == b'"' else text.decode()


def _double(text: bytes) -> float | None:
    """A number, or a text that is one. None for what has no value as a double."""
    try:
        return msgspec.json.decode(text, type=float, strict=False)
    except msgspec.DecodeError:
        return None
