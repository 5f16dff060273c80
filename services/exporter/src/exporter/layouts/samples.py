"""
Test events: one of each type that an export has chosen, so that its loader can be tried before anything happens.

Values are placeholders of the right type. The id begins with `test-`, the user is `test`, and an attribute `test` is
true.
"""

from collections.abc import Iterator
from typing import Any, Final

from exporter.layouts.currents.event_types import sample_of, schema_name, type_of
from exporter.layouts.currents.layout import COLUMNS_AFTER, COLUMNS_BEFORE
from exporter.layouts.currents.schemas import newest_schema, schemas
from exporter.pipeline.selection import EventSelection
from shared.contracts.messages import Event, EventType, make_attributes
from shared.errors import InvalidError
from shared.ids import make_ulid

USER: Final = "test"
TEXT: Final = "test"
NUMBERS: Final = {"double": 1.5, "int": 1, "long": 1}


def sample_events(selection: EventSelection, app_key: str, at_ms: int) -> list[Event]:
    """
    One event of each chosen type, which passes the lists of the selection.

    Raises:
        InvalidError: No event has the type that is chosen.
    """
    return [
        Event(
            id=f"test-{make_ulid(at_ms)}",
            app_key=app_key,
            type=event_type,
            code=code,
            user_id=USER,
            occurred_at=at_ms,
            attributes=make_attributes({"test": True} | attributes),
        )
        for event_type, code, attributes in _samples(selection)
    ]


def _samples(selection: EventSelection) -> Iterator[tuple[EventType, str, dict[str, Any]]]:
    if selection.event_type is not None:
        lists: dict[str, Any] = {"sub1": TEXT}
        if selection.affiliates:
            lists["partner_id"] = selection.affiliates[0]
        if selection.advertisers:
            lists["supplier_id"] = selection.advertisers[0]
        yield selection.event_type, "TEST", lists
        return
    for place, chosen in enumerate(selection.types or sorted(schemas())):
        sample = sample_of(chosen)
        if sample is None or chosen not in (type_of(*sample), schema_name(type_of(*sample))):
            raise InvalidError(f"no event is exported as {chosen}", field=f"types[{place}]")
        columns = newest_schema(schema_name(chosen))[1].columns[COLUMNS_BEFORE:-COLUMNS_AFTER]
        yield *sample, {column.name: NUMBERS.get(column.type, TEXT) for column in columns}
