"""Events become rows of their type, in files that are named as Braze's are."""

from datetime import UTC, datetime
from io import BytesIO
from typing import Any

import fastavro
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.formats.avro import AvroFile
from exporter.layouts.currents import CurrentsLayout
from exporter.layouts.currents.event_types import schema_name, type_of
from exporter.layouts.currents.layout import MAX_EVENT_BYTES, MAX_INT
from exporter.pipeline.content import Content
from exporter.pipeline.lane import Lane
from exporter.pipeline.origin import Origin
from exporter.pipeline.ports import FileName
from exporter.pipeline.selection import EventSelection
from shared.contracts.messages import Event, User, encode, make_attributes

ORIGIN = Origin(app_key="shop", export_id="all", cluster="prod-03", zone="prod-03")
IZMIR = "2baa66f3094b4398b7b39357c6dde9b182eda6407c7ec600cf4ec44f46f584e2"
CUSTOM = "users.behaviors.CustomEvent"


def content(*types: str, **fields: Any) -> Content:
    return Content(selection=EventSelection(data="events", types=types), layout="currents", format="avro", **fields)


def event(**fields: Any) -> Event:
    values: dict[str, Any] = {
        "id": "e1",
        "app_key": "shop",
        "code": "VIEW",
        "user_id": "u1",
        "occurred_at": 1_795_314_667_123,
    }
    return Event(**values | fields)


def records(*events: Event, content: Content = content()) -> dict[str, list[dict[str, Any]]]:  # noqa: B008
    """The records of the files of a message, as fastavro reads them, by type."""
    layout = CurrentsLayout(ORIGIN, content)
    found: dict[str, list[dict[str, Any]]] = {}
    for part, rows in layout.read(encode(list(events))).parts.items():
        out = BytesIO()
        file = AvroFile(out, layout.table(part), part)
        file.write(rows)
        file.finish()
        found[part] = [record for record in fastavro.reader(BytesIO(out.getvalue())) if isinstance(record, dict)]
    return found


def record(one: Event, **fields: Any) -> dict[str, Any]:
    ((found,),) = records(one, content=content(**fields)).values()
    return found


@pytest.mark.parametrize(
    ("kind", "code", "exported"),
    [
        ("event", "VIEW", CUSTOM),
        ("event", "PURCHASE", "users.behaviors.Purchase"),
        ("message_log", "PUSH_SENT", "users.messages.pushnotification.Send"),
        ("message_log", "PUSH_OPENED", "users.messages.pushnotification.Open"),
        ("message_log", "PUSH_FAILED", "users.messages.pushnotification.Bounce"),
        ("message_log", "INBOX_READ", "millrace.message_log.INBOX_READ"),
        ("click", "CLICK", "millrace.click.CLICK"),
        ("conversion", "a/b c=ğ", "millrace.conversion.a_b_c__"),
    ],
)
def test_type_is_brazes_where_one_fits(kind: str, code: str, exported: str) -> None:
    assert exported == type_of(kind, code)


@given(kind=st.sampled_from(["event", "message_log", "click", "conversion"]), code=st.text(min_size=1, max_size=128))
def test_any_type_has_a_schema_and_a_name_that_is_a_key(kind: str, code: str) -> None:
    exported = type_of(kind, code)

    assert CurrentsLayout(ORIGIN, content()).table(exported).columns
    assert exported.isascii()
    assert not set(exported) & set("/ =+\\")
    assert schema_name(exported)


def test_name_has_connector_type_hour_schema_zone_shard_and_sequence() -> None:
    at = datetime(2026, 11, 22, 2, 59, tzinfo=UTC)
    name = FileName(part=CUSTOM, named_at=at, queued_at=at, first_sequence=35465, lane=Lane(shards=4, shard=2))

    assert (
        "dataexport.prod-03.S3.integration.all/event_type=users.behaviors.CustomEvent/date=2026-11-22-02/1/prod-03/"
        "dataexport.prod-03.S3.integration.all+2+0000035465"
    ) == CurrentsLayout(ORIGIN, content()).name(name)


def test_record_has_the_fields_of_the_event() -> None:
    one = event(
        ext_id="c-7",
        attributes=msgspec.Raw(b'{"price": 1.10, "cart": [{"sku": "a"}]}'),
        user=User(attributes=make_attributes({"tier": "gold"})),
    )

    assert {
        "id": "e1",
        "user_id": "u1",
        "app_id": "shop",
        "name": "VIEW",
        "time": 1_795_314_667,
        "external_user_id": "c-7",
        "occurred_at": 1_795_314_667_123,
        "properties": '{"price": 1.10, "cart": [{"sku": "a"}]}',
        "user_properties": '{"tier":"gold"}',
    } == record(one)


def test_absent_values_are_null() -> None:
    found = record(event())

    assert [None] * 3 == [found[name] for name in ("external_user_id", "properties", "user_properties")]


def test_time_that_is_no_int_is_the_largest_one_and_exact_in_milliseconds() -> None:
    found = record(event(occurred_at=2**62))

    assert (MAX_INT, 2**62) == (found["time"], found["occurred_at"])


def test_push_has_the_attributes_of_its_message() -> None:
    one = event(
        type="message_log",
        code="PUSH_SENT",
        attributes=make_attributes({"campaign_id": 7, "campaign_name": "Sale", "device": "d1", "platform": None}),
    )

    found = record(one)

    assert ("7", "Sale", "d1", None) == tuple(
        found[name] for name in ("campaign_id", "campaign_name", "device_id", "platform")
    )


@pytest.mark.parametrize(
    ("attributes", "price"),
    [
        ({"price": 1.5}, 1.5),
        ({"revenue": 3}, 3.0),
        ({"price": "2.25"}, 2.25),
        ({"price": "much"}, None),
        ({"price": [1]}, None),
        ({}, None),
    ],
)
def test_purchase_has_a_price_where_there_is_a_number(attributes: dict[str, object], price: float | None) -> None:
    found = record(event(code="PURCHASE", attributes=make_attributes(attributes)))

    assert price == found["price"]


def test_events_of_each_type_are_a_part_of_their_own_in_their_order() -> None:
    found = records(event(id="1"), event(id="2", code="PURCHASE"), event(id="3"), event(id="4", type="click", code="C"))

    assert {
        CUSTOM: ["1", "3"],
        "users.behaviors.Purchase": ["2"],
        "millrace.click.C": ["4"],
    } == {part: [one["id"] for one in rows] for part, rows in found.items()}


@pytest.mark.parametrize("types", [("millrace.click.C",), ("millrace.click",)])
def test_only_chosen_types_are_exported(types: tuple[str, ...]) -> None:
    layout = CurrentsLayout(ORIGIN, content(*types))

    reading = layout.read(encode([event(), event(type="click", code="C")]))

    assert (["millrace.click.C"], 2) == (list(reading.parts), reading.rows_in)


def test_event_over_the_limit_is_refused_and_counted_alone() -> None:
    large = event(id="large", attributes=make_attributes({"text": "x" * MAX_EVENT_BYTES}))
    reading = CurrentsLayout(ORIGIN, content()).read(encode([event(id="small"), large]))

    assert (1, 1) == (reading.rows_in, reading.dropped)
    assert ["small"] == [row[0] for row in reading.parts[CUSTOM]]
    assert "900000" in reading.reason


def test_removed_fields_are_redacted_and_hashed_ones_hashed_wherever_they_are() -> None:
    one = event(
        ext_id="c-7",
        attributes=msgspec.Raw(b'{"email":"a@b.example","price":1.10,"city":"Izmir"}'),
        user=User(attributes=make_attributes({"email": "a@b.example"})),
    )

    found = record(one, remove=("email",), hash=("external_user_id", "city"))

    assert '{"email":"[REDACTED]"}' == found["user_properties"]
    assert f'{{"email":"[REDACTED]","price":1.10,"city":"{IZMIR}"}}' == found["properties"]
    assert "ab6a0ce6317bd862e4e6e49cf88faa58f3504efe78cb8934f3ee3b4d800f0257" == found["external_user_id"]
