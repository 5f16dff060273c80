"""Names, folders and cells as Affise writes them."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from exporter.layouts.affise import CLICK_COLUMNS, CONVERSION_COLUMNS, AffiseLayout
from exporter.pipeline.content import Content
from exporter.pipeline.origin import Origin
from exporter.pipeline.ports import FileName
from exporter.pipeline.selection import Data, EventSelection
from shared.contracts.messages import Event, EventType, encode, make_attributes

scalars = (
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False)
)
texts = st.text('aE9ğ漢😀,"\r\n\0 =-.', max_size=12)
numbers = st.from_regex(rb"-?(0|[1-9][0-9]{0,30})(\.[0-9]{1,30})?([eE][+-]?[0-9]{1,25})?", fullmatch=True).map(Raw)
values = scalars | numbers | texts | st.lists(scalars | texts, max_size=3) | st.dictionaries(texts, scalars, max_size=3)


def event(kind: EventType, attributes: Mapping[str, object], occurred_at: int = 1_795_314_667_123) -> bytes:
    stored = Event(
        id="5fc0bb8e125d990001b7b4aa",
        app_key="app",
        type=kind,
        code=kind,
        user_id="88123",
        occurred_at=occurred_at,
        attributes=make_attributes(attributes),
    )
    return encode([stored])


def affise(data: Data) -> AffiseLayout:
    return AffiseLayout(Origin(app_key="app", export_id="clicks"), Content(selection=EventSelection(data=data)))


def name(at: datetime) -> str:
    return affise("clicks").name(FileName(part="clicks", named_at=at, queued_at=at, first_sequence=1))


def cells(kind: EventType, **attributes: object) -> dict[str, str]:
    data: Data = "clicks" if kind == "click" else "conversions"
    layout = affise(data)
    (row,) = layout.read(event(kind, attributes)).parts[data]
    return dict(zip(layout.table(data).header, map(str, row), strict=True))


@given(many=st.lists(st.dictionaries(st.sampled_from([*CLICK_COLUMNS, "idfa", "other"]), values), max_size=5))
def test_row_does_not_depend_on_the_rows_before_it(many: list[dict[str, object]]) -> None:
    layout = affise("clicks")

    together = [layout.read(event("click", attributes)).parts["clicks"] for attributes in [*many, *many]]

    assert [affise("clicks").read(event("click", attributes)).parts["clicks"] for attributes in many] * 2 == together


@pytest.mark.parametrize("columns", [CLICK_COLUMNS, CONVERSION_COLUMNS])
def test_no_column_is_named_twice(columns: tuple[str, ...]) -> None:
    assert len(columns) == len(set(columns))


def test_name_is_the_second_below_padded_folders() -> None:
    at = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)

    assert "2026/01/02/2026-01-02 03:04:05" == name(at)


def test_plain_name_has_neither_spaces_nor_colons() -> None:
    content = Content(selection=EventSelection(data="conversions"), plain_names=True)
    layout = AffiseLayout(Origin(app_key="app", export_id="conversions"), content)
    at = datetime(2026, 1, 2, 1, 4, 5, tzinfo=timezone(timedelta(hours=3)))

    named = layout.name(FileName(part="conversions", named_at=at, queued_at=at, first_sequence=1))

    assert "2026/01/01/2026-01-01_22-04-05" == named


def test_name_is_in_utc_when_the_clock_is_not() -> None:
    at = datetime(2026, 1, 2, 1, 0, 0, tzinfo=timezone(timedelta(hours=3)))

    assert "2026/01/01/2026-01-01 22:00:00" == name(at)


def test_cells_are_the_attributes_of_the_columns_names() -> None:
    row = cells("click", country="DE", partner_id=4, uniq=True, unheard_of="x")

    assert ("DE", "4", "true") == (row["country"], row["partner_id"], row["uniq"])
    assert "unheard_of" not in row


def test_click_has_the_events_id_and_time_and_user() -> None:
    row = cells("click")

    assert ["5fc0bb8e125d990001b7b4aa"] * 2 == [row["id"], row["click_id"]]
    assert "2026-11-22 02:31:07" == row["created_at"]
    assert "88123" == row["user_id"]


def test_click_keeps_its_own_id_when_it_has_one() -> None:
    row = cells("click", click_id="aa")

    assert ("5fc0bb8e125d990001b7b4aa", "aa") == (row["id"], row["click_id"])


def test_conversion_id_is_the_action_id_or_else_the_click_id() -> None:
    assert "act" == cells("conversion", action_id="act", clickid="cl")["conversion_id"]
    assert "cl" == cells("conversion", click_id="cl")["conversion_id"]
    assert "cl" == cells("conversion", click_id="cl")["clickid"]


@pytest.mark.parametrize(
    ("attributes", "earnings"),
    [
        ({"revenue": 4, "payouts": 3}, "1"),
        ({"revenue": 0.3, "payouts": 0.1}, "0.2"),
        ({"revenue": "10.50", "payouts": "0.25"}, "10.25"),
        ({"revenue": 4, "payouts": 3, "earnings": 7}, "7"),
        ({"revenue": 4, "payouts": 3, "earnings": None}, "1"),
        ({"revenue": 4}, ""),
        ({"revenue": "four", "payouts": 3}, ""),
        ({"revenue": True, "payouts": 1}, ""),
        ({"revenue": "1e999999", "payouts": 1}, ""),
        ({"revenue": "NaN", "payouts": 1}, ""),
    ],
)
def test_earnings_are_revenue_less_payouts_when_not_set(attributes: dict[str, object], earnings: str) -> None:
    assert earnings == cells("conversion", **attributes)["earnings"]


@pytest.mark.parametrize(
    ("value", "cell"),
    [
        (None, ""),
        (True, "true"),
        (0, "0"),
        (0.1, "0.1"),
        (1e20, "100000000000000000000"),
        (1e-7, "0.0000001"),
        ("=1+1", "=1+1"),
        (["a", 1, None], '["a",1,null]'),
        ({"sku": "x", "price": [1.5]}, '{"sku":"x","price":[1.5]}'),
        (Raw(b"1.10"), "1.10"),
        (Raw(b"-1.50E+2"), "-150"),
        (Raw(b"1e400"), "1" + "0" * 400),
        (Raw(b"1e999999999"), "1e999999999"),
        (Raw(b"1e99999999999999999999"), "1e99999999999999999999"),
        (Raw(b"1E-99999999999999999999"), "1E-99999999999999999999"),
        (Raw(b'[ 1.10,\n {"a":"\\u0131"}]'), '[1.10,{"a":"\\u0131"}]'),
    ],
)
def test_value_is_written_without_exponent_or_escape(value: object, cell: str) -> None:
    assert cell == cells("click", sub1=value)["sub1"]


@pytest.mark.parametrize("data", ["clicks", "conversions"])
@given(
    attributes=st.dictionaries(st.sampled_from([*CLICK_COLUMNS, *CONVERSION_COLUMNS, "other"]), values, max_size=20),
    occurred_at=st.integers(0, 2**63 - 1),
)
def test_any_event_has_a_row(data: Data, attributes: dict[str, object], occurred_at: int) -> None:
    layout = affise(data)
    kind: EventType = "click" if data == "clicks" else "conversion"

    reading = layout.read(event(kind, attributes, occurred_at))

    (row,) = reading.parts[data]
    assert (1, 0) == (reading.rows_in, reading.dropped)
    assert len(layout.table(data).columns) == len(row)
    assert all(isinstance(cell, str) for cell in row)


def test_readme_lists_the_columns() -> None:
    readme = " ".join((Path(__file__).parents[4] / "services/exporter/README.md").read_text().split())

    assert f"**Clicks** `{', '.join(CLICK_COLUMNS)}`" in readme
    assert f"**Conversions** `{', '.join(CONVERSION_COLUMNS)}`" in readme


def test_click_whose_attribute_nests_is_written_as_others_are() -> None:
    flat, nested = cells("click", sub1="x", partner_id=4), cells("click", sub1="x", partner_id=4, cart=[1.50, {"a": 1}])

    assert flat == nested
    assert '[1.5,{"a":1}]' == cells("click", sub1=[1.50, {"a": 1}])["sub1"]
