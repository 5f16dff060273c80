"""Which hooks fire, and what a record looks like."""

import json
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hooks.events.decoding import routed
from hooks.matching.hook import Batch, Hook
from hooks.matching.rendering import render, strip
from hooks.matching.rule import HookIndex, Rule, Target
from shared.config.secret import Secret
from shared.contracts.messages import Event, EventType, Identities, User
from shared.errors import InvalidError

SCHEMA = json.loads((Path(__file__).parents[4] / "docs/schemas/hook.event.v1.json").read_text())
"""The published schema lets unknown fields pass, as a reader has to; here a field that it does not tell is an error."""
for part in (SCHEMA, *SCHEMA["properties"].values()):
    if "properties" in part:
        part["additionalProperties"] = False
HOOK: dict[str, Any] = {"name": "Purchases", "stream_name": "orders", "trigger_type": "EVENT", "event_code": "purchase"}
WEBHOOK: dict[str, Any] = HOOK | {
    "type": "WEBHOOK",
    "stream_name": "",
    "url": "https://example.com/hook",
    "secret": Secret("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"),
}


def make_rule(hook_id: str, app_key: str = "shop", **changes: Any) -> Rule:
    return Rule(app_key=app_key, hook_id=hook_id, revision=7, hook=msgspec.convert(HOOK | changes, Hook))


def make_event(code: str = "purchase", kind: EventType = "event", app_key: str = "shop") -> Event:
    return Event(id="e1", app_key=app_key, type=kind, code=code, user_id="u1", occurred_at=1763780000123)


def fired(index: HookIndex, event: Event) -> set[str]:
    return {rule.hook_id for rule in index.match(routed(event))}


def test_a_hook_fires_for_its_code_alone() -> None:
    index = HookIndex(
        [make_rule("one"), make_rule("several", event_code=["login", "purchase"]), make_rule("any", event_code="*")]
    )

    assert {"one", "several", "any"} == fired(index, make_event("purchase"))
    assert {"several", "any"} == fired(index, make_event("login"))
    assert {"any"} == fired(index, make_event("search"))


def test_a_star_among_codes_fires_once() -> None:
    index = HookIndex([make_rule("both", event_code=["purchase", "*"])])

    assert 1 == len(index.match(routed(make_event("purchase"))))


@pytest.mark.parametrize(
    ("kind", "wanted"),
    [("event", {"events"}), ("message_log", {"logs"}), ("click", set()), ("conversion", set())],
)
def test_a_hook_fires_for_its_trigger_type_alone(kind: EventType, wanted: set[str]) -> None:
    index = HookIndex([make_rule("events"), make_rule("logs", trigger_type="MESSAGE_LOG")])

    assert wanted == fired(index, make_event(kind=kind))


@pytest.mark.parametrize(
    ("kind", "code", "wanted"),
    [
        ("message_log", "PUSH_CLICKED", {"logs", "clicks"}),
        ("message_log", "push_opened", {"logs", "clicks"}),
        ("message_log", "PUSH_DELIVERED", {"logs"}),
        ("event", "PUSH_CLICK", {"events"}),
        ("event", "Geofence Enter", {"events", "fences"}),
        ("event", "geofence_exit", {"events", "fences", "exits"}),
        ("message_log", "geofence_exit", {"logs"}),
        ("click", "PUSH_CLICK", set()),
    ],
)
def test_clicks_on_pushes_and_geofences_are_known_by_their_codes(kind: EventType, code: str, wanted: set[str]) -> None:
    index = HookIndex(
        [
            make_rule("events", event_code="*"),
            make_rule("logs", trigger_type="MESSAGE_LOG", event_code="*"),
            make_rule("clicks", trigger_type="PUSH_CLICK", event_code="*"),
            make_rule("fences", trigger_type="GEOFENCE", event_code="*"),
            make_rule("exits", trigger_type="GEOFENCE", event_code="geofence_exit"),
            make_rule("theirs", "rival", trigger_type="PUSH_CLICK", event_code="*"),
        ]
    )

    assert wanted == fired(index, make_event(code, kind))


def test_a_hook_of_another_app_does_not_fire() -> None:
    index = HookIndex([make_rule("ours"), make_rule("theirs", app_key="rival", event_code="*")])

    assert {"ours"} == fired(index, make_event())
    assert {"theirs"} == fired(index, make_event(app_key="rival"))


def test_an_inactive_hook_does_not_fire() -> None:
    index = HookIndex([make_rule("asleep", active=False)])

    assert () == index.match(routed(make_event()))
    assert {} == index.rules


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({"name": ""}, "$.name"),
        ({"stream_name": "a b"}, "$.stream_name"),
        ({"stream_name": "orders\n"}, "$.stream_name"),
        ({"stream_name": "x" * 129}, "$.stream_name"),
        ({"trigger_type": "CONVERSION"}, "$.trigger_type"),
        ({"event_code": []}, "$.event_code"),
        ({"event_code": ["a", ""]}, "$.event_code[1]"),
        ({"type": "FIREHOSE"}, "$.type"),
        ({"batch": {"max_records": 0}}, "$.batch.max_records"),
        ({"batch": {"max_records": 501}}, "$.batch.max_records"),
        ({"batch": {"max_bytes": (10 << 20) + 1}}, "$.batch.max_bytes"),
        ({"batch": {"linger_ms": 60_001}}, "$.batch.linger_ms"),
        ({"batch": {"format": "xml"}}, "$.batch.format"),
        ({"max_record_bytes": 1023}, "$.max_record_bytes"),
        ({"max_record_bytes": (10 << 20) + 1}, "$.max_record_bytes"),
        ({"oversize": "gzip"}, "$.oversize"),
        ({"url": "https://example.com/" + "x" * 2048}, "$.url"),
    ],
)
def test_a_hook_out_of_bounds_is_refused_and_the_field_named(change: dict[str, Any], path: str) -> None:
    with pytest.raises(msgspec.ValidationError) as caught:
        msgspec.convert(HOOK | change, Hook)

    assert f"`{path}`" in str(caught.value)


def test_what_a_hook_leaves_out_is_what_kinesis_takes_without_being_asked() -> None:
    hook = make_rule("h1").hook

    assert Batch(max_records=500, max_bytes=10 << 20, linger_ms=20, format="single") == hook.batch
    assert (1 << 20, "dead_letter", "KINESIS") == (hook.max_record_bytes, hook.oversize, hook.type)


@pytest.mark.parametrize(
    ("form", "field"),
    [
        (HOOK | {"stream_name": ""}, "stream_name"),
        (HOOK | {"url": "https://example.com"}, "url"),
        (WEBHOOK | {"url": ""}, "url"),
        (WEBHOOK | {"stream_name": "orders"}, "stream_name"),
    ],
)
def test_a_hook_whose_fields_do_not_fit_its_type_is_refused(form: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidError) as caught:
        msgspec.convert(form, Hook).checked()

    assert field == caught.value.field


def test_a_hook_that_was_a_webhook_keeps_no_secret() -> None:
    left_over = msgspec.convert(HOOK | {"secret": WEBHOOK["secret"]}, Hook)

    assert msgspec.convert(HOOK, Hook) == left_over.checked()
    assert msgspec.convert(WEBHOOK, Hook) == msgspec.convert(WEBHOOK, Hook).checked()


def test_a_webhook_is_a_target_of_its_own_and_its_address_is_no_name() -> None:
    stream, one, two = make_rule("h0"), make_rule("h1", **WEBHOOK), make_rule("h2", **WEBHOOK)

    assert [Target("shop", "orders"), Target("shop", "h1", "WEBHOOK"), Target("shop", "h2", "WEBHOOK")] == [
        stream.target,
        one.target,
        two.target,
    ]
    assert ["shop", "shop/h1", "shop/h2"] == [rule.target.connector for rule in (stream, one, two)]


def test_a_hook_with_an_unknown_field_is_refused() -> None:
    with pytest.raises(msgspec.ValidationError, match="unknown field `region`"):
        msgspec.convert(HOOK | {"region": "eu-central-1"}, Hook)


def test_a_record_holds_event_user_identities_and_its_own_origin() -> None:
    event = Event(
        id="01JD",
        app_key="shop",
        code="purchase",
        user_id="88123",
        ext_id="12345",
        occurred_at=1763780000123,
        attributes={"grandTotal": 35.0, "tags": ["a", "b"]},
        user=User(attributes={"city": "Izmir"}),
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
    event = msgspec.structs.replace(make_event(), user=User(attributes={"city": "Izmir"}))

    record = json.loads(render(make_rule("h1"), routed(event), "EVENTS:12:0", {"city": "Ankara", "age": 25}))

    assert {"city": "Izmir", "age": 25} == record["user"]["attributes"]


def test_a_stripped_record_says_so_and_keeps_everything_but_attributes() -> None:
    event = msgspec.structs.replace(make_event(), attributes={"a": "b" * 100}, ext_id="12345")
    data = render(make_rule("h1"), routed(event), "EVENTS:12:0", {"city": "Izmir"})

    stripped = json.loads(strip(data))

    whole = json.loads(data)
    whole["event"]["attributes"] = whole["user"]["attributes"] = {}
    assert whole | {"stripped": True} == stripped
    jsonschema.validate(stripped, SCHEMA, cls=jsonschema.Draft202012Validator)


def test_the_published_schema_is_a_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
attributes = st.dictionaries(st.text(), scalars | st.lists(scalars, max_size=3), max_size=4)


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
        attributes=values,
        identities=Identities(email=email, device_tokens=tokens),
    )

    record = json.loads(render(make_rule("h1", trigger_type=trigger), routed(event), "EVENTS:1:0", profile))

    jsonschema.validate(record, SCHEMA, cls=jsonschema.Draft202012Validator)
