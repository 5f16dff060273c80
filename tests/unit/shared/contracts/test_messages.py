"""Messages and their bytes."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.contracts.messages import Event, Identities, PushBatch, PushRow, User, decode, encode, make_attributes
from shared.errors import InvalidError

EVENT = Event(
    id="e1",
    app_key="shop",
    type="click",
    code="banner_click",
    user_id="88123",
    ext_id="12345",
    occurred_at=1763780000123,
    attributes=make_attributes({"sum": 3.5, "tags": ["a", 1, None]}),
    user=User(attributes=make_attributes({"city": "İzmir"})),
    identities=Identities(email="a@example.com", device_tokens=("t1",)),
)


class Inner(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The lowest level of a form."""


class Middle(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    b: Inner = Inner()


class Outer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    a: Middle = Middle()
    url: str = ""


text = st.text(alphabet=st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40)


def test_a_message_on_events_is_a_json_array_that_anyone_can_write() -> None:
    written_elsewhere = b'[{"id":"1","app_key":"shop","code":"purchase","user_id":"7","occurred_at":0}]'

    assert decode(written_elsewhere, list[Event]) == [
        Event(id="1", app_key="shop", code="purchase", user_id="7", occurred_at=0)
    ]


def test_an_event_comes_back_as_it_went() -> None:
    assert decode(encode([EVENT]), list[Event]) == [EVENT]


@given(st.lists(st.builds(PushRow, id=text, line=st.integers(1), ext_id=text, text=text, deeplink=text), min_size=1))
def test_rows_come_back_as_they_went(rows: list[PushRow]) -> None:
    batch = PushBatch(app_key="shop", file_id="f", file_name="push.csv", first_line=1, last_line=9, rows=tuple(rows))

    assert decode(encode(batch), PushBatch) == batch


@pytest.mark.parametrize(
    ("data", "field", "told"),
    [
        (b"[{}]", "[0].id", "missing required field"),
        (
            b'[{"id":"1","app_key":"a","code":"c","user_id":"u","occurred_at":0,"ext_id":%b}]'
            % (b'"%b"' % (b"e" * 1025)),
            "[0].ext_id",
            "1024",
        ),
        (
            b'[{"id":"1","app_key":"a","code":"c","user_id":"u","occurred_at":0,"identities":{"email":"%b"}}]'
            % (b"e" * 1025),
            "[0].identities.email",
            "1024",
        ),
        (
            b'[{"id":"1","app_key":"a","code":"c","user_id":"u","occurred_at":0,"identities":{"device_tokens":["%b"]}}]'
            % (b"e" * 4097),
            "[0].identities.device_tokens[0]",
            "4096",
        ),
        (b'[{"id":"1","app_key":"shop","code":"c","user_id":"","occurred_at":0}]', "[0].user_id", "length >= 1"),
        (b'[{"id":"1","app_key":"a b","code":"c","user_id":"u","occurred_at":0}]', "[0].app_key", "matching regex"),
        (
            b'[{"id":"1","app_key":"a","code":"c","user_id":"u","occurred_at":"now"}]',
            "[0].occurred_at",
            "Expected `int`",
        ),
    ],
)
def test_a_field_that_does_not_decode_is_named(data: bytes, field: str, told: str) -> None:
    with pytest.raises(InvalidError, match=told) as error:
        decode(data, list[Event])

    assert error.value.field == field


@pytest.mark.parametrize(
    ("data", "field"),
    [
        (b'{"url":"u","content_typ":""}', "content_typ"),
        (b'{"%b":1}' % (b"x" * 5000), "x" * 100 + "…"),
        (b'{"a":{"b":{"Email":1}}}', "a.b.Email"),
    ],
)
def test_an_unknown_field_is_named_with_its_path(data: bytes, field: str) -> None:
    with pytest.raises(InvalidError, match="unknown field") as error:
        decode(data, Outer)

    assert error.value.field == field
    assert len(error.value.message) < 200


@pytest.mark.parametrize("data", [b"", b"[", b"\xff\xfe", b'["\xed\xa0\x80"]', b"[" * 100_000])
def test_data_that_is_not_json_is_reported(data: bytes) -> None:
    with pytest.raises(InvalidError, match="expected JSON"):
        decode(data, list[object])


def test_defaults_take_no_room_on_the_wire() -> None:
    small = Event(id="1", app_key="shop", code="c", user_id="7", occurred_at=0)

    assert msgspec.json.decode(encode([small])) == [
        {"id": "1", "app_key": "shop", "code": "c", "user_id": "7", "occurred_at": 0}
    ]
