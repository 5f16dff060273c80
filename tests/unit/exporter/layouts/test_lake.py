"""Rows of the lake hold what was published, and names tell the day and the sequences."""

from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from msgspec import Raw

from exporter.layouts.lake import TABLE, LakeLayout, day_of_key
from exporter.pipeline.ports import FileName
from shared.contracts.messages import Event, Identities, User

LAYOUT = LakeLayout("shop")


def event(attributes: str = "{}", **changes: Any) -> Event:
    fields: dict[str, Any] = {"id": "e1", "app_key": "shop", "code": "SALE", "user_id": "u1", "occurred_at": 7}
    return Event(**fields | {"attributes": Raw(attributes.encode())} | changes)


def cells(*events: Event) -> dict[str, Any]:
    """The cells of the only row, by column."""
    reading = LAYOUT.read(msgspec.json.encode(events), 41)
    ((row,),) = reading.parts.values()
    return dict(zip(TABLE.header, row, strict=True))


def test_row_has_the_fields_of_the_event_and_its_position() -> None:
    row = cells(
        event(
            '{"message_id":"m","campaign_id":17,"device":"phone","platform":"IOS","revenue":1.10,"x":[1]}',
            ext_id="c9",
            user=User(attributes=Raw(b'{"age":33}')),
            identities=Identities(email="a@b.c"),
        )
    )

    assert row == {
        "sequence": 41,
        "id": "e1",
        "code": "SALE",
        "user_id": "u1",
        "ext_id": "c9",
        "occurred_at": 7,
        "message_id": "m",
        "campaign_id": "17",
        "device": "phone",
        "platform": "IOS",
        "revenue": "1.10",
        "attributes": '{"message_id":"m","campaign_id":17,"device":"phone","platform":"IOS","revenue":1.10,"x":[1]}',
        "user": '{"age":33}',
        "identities": '{"email":"a@b.c"}',
    }


def test_absent_fields_are_null() -> None:
    row = cells(event(ext_id=""))

    assert {"sequence", "id", "code", "user_id", "occurred_at"} == {
        name for name, cell in row.items() if cell is not None
    }


@pytest.mark.parametrize(
    ("published", "revenue"),
    [
        ("12.5", "12.5"),
        ('"12.5"', "12.5"),
        ("-0.0", "-0.0"),
        ("1e-7", "1e-7"),
        ("1e400", "1e400"),
        ("123456789012345678901234567890", "123456789012345678901234567890"),
        ('""', None),
        ('" 5"', None),
        ('"1_000"', None),
        ('"٣"', None),
        ('"0x10"', None),
        ("true", None),
        ("[1]", None),
        ("null", None),
    ],
)
def test_revenue_is_a_number_as_it_was_published(published: str, revenue: str | None) -> None:
    assert revenue == cells(event(f'{{"revenue":{published}}}'))["revenue"]


@pytest.mark.parametrize(
    ("published", "device"),
    [
        ('"a\\u0000\\r\\n"', "a\0\r\n"),
        ("1.0", "1.0"),
        ('{"a": 1.10}', '{"a": 1.10}'),
        ("[1, 2]", "[1, 2]"),
        ("true", "true"),
    ],
)
def test_attribute_that_is_no_text_is_its_json(published: str, device: str) -> None:
    row = cells(event(f'{{"device":{published}}}'))

    assert device == row["device"]
    assert f'{{"device":{published}}}' == row["attributes"]


def test_file_holds_one_type_and_a_bad_event_costs_itself() -> None:
    clicks = [event(type="click"), event(type="click", id="e2")]
    events = [event(), *clicks, event(app_key="other"), event('{"x":"\\ud800"}')]

    reading = LAYOUT.read(msgspec.json.encode(events), 1)

    assert {"event": 1, "click": 2} == {part: len(rows) for part, rows in reading.parts.items()}
    assert (3, 2) == (reading.rows_in, reading.dropped)


def test_name_tells_the_day_queued_and_the_sequences() -> None:
    at = datetime(2026, 11, 30, 23, 59, 59, tzinfo=UTC)
    later = datetime(2026, 12, 1, 0, 5, tzinfo=UTC)
    name = FileName(part="click", named_at=later, queued_at=at, first_sequence=17, last_sequence=5_000)

    key = LAYOUT.name(name)

    assert "app=shop/type=click/date=2026-11-30/0000000017-0000005000" == key
    assert "2026-11-30" == day_of_key(key)


def test_window_ends_with_the_day() -> None:
    assert 24 * 3600 == LAYOUT.limits.period_s
