"""The rows and names of a window of events."""

from datetime import UTC
from typing import Final

import msgspec
from msgspec import Raw

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
        self._columns: dict[str, tuple[tuple[Column, ...], tuple[Column, ...]]] = {}

    def read(self, data: bytes, sequence: int = 0) -> Reading:
        """The rows of a message, by type."""
        decoded = read_message(data, self._origin.app_key)
        is_large = len(data) > MAX_EVENT_BYTES
        parts: dict[str, list[Row]] = {}
        refused = 0
        for event in decoded.events:
            if is_large and len(msgspec.json.encode(event)) > MAX_EVENT_BYTES:
                refused += 1
                continue
            part = type_of(event.type, event.code)
            if not self._types or part in self._types or schema_name(part) in self._types:
                parts.setdefault(part, []).append(self._row(part, event))
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

    def _row(self, part: str, event: AnyEvent) -> Row:
        columns, of_attributes = self._columns.get(part) or self._look_up(part)
        row = (
            event.id,
            event.user_id,
            event.app_key,
            event.code,
            min(event.occurred_at // 1000, MAX_INT),
            event.ext_id or None,
            event.occurred_at,
            *(_attribute_cells(of_attributes, event.attributes) if of_attributes else ()),
            _object(event.attributes),
            None if event.user is NO_USER else _object(event.user.attributes),
        )
        return [*map(self._transforms.apply, columns, row)] if self._transforms else row

    def _look_up(self, part: str) -> tuple[tuple[Column, ...], tuple[Column, ...]]:
        columns = self.table(part).columns
        self._columns[part] = columns, columns[COLUMNS_BEFORE:-COLUMNS_AFTER]
        return self._columns[part]


def _object(attributes: Raw) -> Raw | None:
    return attributes if attributes is not NO_ATTRIBUTES and bytes(attributes) != _EMPTY else None


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
