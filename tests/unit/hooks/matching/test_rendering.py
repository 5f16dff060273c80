"""Rendered records follow the published schema."""

import json
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from hooks.events.decoding import routed
from hooks.matching.rendering import render, strip
from shared.contracts.messages import Event, Identities, User, make_attributes, make_profile_attributes
from support.fakes.rules import make_event, make_rule

SCHEMA = json.loads((Path(__file__).parents[4] / "docs/schemas/hook.event.v1.json").read_text())
"""The published schema lets unknown fields pass, as a reader has to; here a field that it does not list is an error."""
for part in (SCHEMA, *SCHEMA["properties"].values()):
    if "properties" in part:
        part["additionalProperties"] = False


def test_a_record_holds_event_user_identities_and_its_own_origin() -> None:
    event = Event(
        id="01JD",
        app_key="shop",
        code="purchase",
        user_id="88123",
        ext_id="12345",
        occurred_at=1763780000123,
        attributes=make_attributes({"grandTotal": 35.0, "tags": ["a", "b"]}),
        user=User(attributes=make_attributes({"city": "Izmir"})),
        identities=Identities(email="a@example.com", msisdn="905550000000", device_tokens=("t1",)),
    )

    record = json.loads(render(make_rule("h1"), routed(event), "EVENTS:12:0"))

    assert {
        "schema": "hook.event.v1",
        "id": "01JD",
        "hookId": "h1",
        "hookRevision": 7,
        "source": "EVENTS:12:0",
        "triggerType": "EVENT",
        "appKey": "shop",
        "event": {"code": "purchase", "ts": 1763780000123, "attributes": {"grandTotal": 35.0, "tags": ["a", "b"]}},
        "user": {"userId": "88123", "attributes": {"city": "Izmir"}},
        "identities": {
            "extId": "12345",
            "email": "a@example.com",
            "msisdn": "905550000000",
            "deviceTokens": ["t1"],
        },
    } == record
    jsonschema.validate(record, SCHEMA, cls=jsonschema.Draft202012Validator)


def test_the_profile_completes_what_the_event_does_not_say() -> None:
    event = msgspec.structs.replace(make_event(), user=User(attributes=make_attributes({"city": "Izmir"})))

    record = json.loads(
        render(make_rule("h1"), routed(event), "EVENTS:12:0", make_profile_attributes({"city": "Ankara", "age": 25}))
    )

    assert {"city": "Izmir", "age": 25} == record["user"]["attributes"]


def test_an_empty_external_id_is_left_out() -> None:
    event = msgspec.structs.replace(make_event(), ext_id="")
    with_address = msgspec.structs.replace(event, identities=Identities(email="a@example.com"))

    assert {} == json.loads(render(make_rule("h1"), routed(event), "EVENTS:12:0"))["identities"]
    record = json.loads(render(make_rule("h1"), routed(with_address), "EVENTS:12:0"))
    assert {"email": "a@example.com"} == record["identities"]


def test_a_stripped_record_says_so_and_keeps_everything_but_attributes() -> None:
    event = msgspec.structs.replace(make_event(), attributes=make_attributes({"a": "b" * 100}), ext_id="12345")
    data = render(make_rule("h1"), routed(event), "EVENTS:12:0", make_profile_attributes({"city": "Izmir"}))

    stripped = json.loads(strip(data))

    whole = json.loads(data)
    whole["event"]["attributes"] = whole["user"]["attributes"] = {}
    assert whole | {"stripped": True} == stripped
    jsonschema.validate(stripped, SCHEMA, cls=jsonschema.Draft202012Validator)


def test_the_published_schema_is_a_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
attributes = st.dictionaries(st.text(), scalars | st.lists(scalars, max_size=3), max_size=4)


@settings(deadline=None)
@given(
    user_id=st.text(min_size=1),
    code=st.text(min_size=1, max_size=128),
    ext_id=st.none() | st.text(),
    occurred_at=st.integers(0, 2**62),
    values=attributes,
    profile=st.none() | attributes,
    email=st.none() | st.text(),
    tokens=st.lists(st.text()).map(tuple),
    trigger=st.sampled_from(["EVENT", "MESSAGE_LOG", "PUSH_CLICK", "GEOFENCE"]),
)
def test_every_record_is_valid_under_the_schema(
    user_id: str,
    code: str,
    ext_id: str | None,
    occurred_at: int,
    values: Any,
    profile: Any,
    email: str | None,
    tokens: tuple[str, ...],
    trigger: str,
) -> None:
    event = Event(
        id="e1",
        app_key="shop",
        code=code,
        user_id=user_id,
        ext_id=ext_id,
        occurred_at=occurred_at,
        attributes=make_attributes(values),
        identities=Identities(email=email, device_tokens=tokens),
    )

    record = json.loads(
        render(
            make_rule("h1", trigger_type=trigger), routed(event), "EVENTS:1:0", make_profile_attributes(profile or {})
        )
    )

    jsonschema.validate(record, SCHEMA, cls=jsonschema.Draft202012Validator)
