"""Matching: the hooks that fire for an event, and the target of each."""

from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hooks.events.decoding import routed
from hooks.matching.hook import NARROWER, TRIGGERS, TriggerType
from hooks.matching.rule import HookIndex, Target
from shared.contracts.messages import Event, EventType
from support.fakes.rules import WEBHOOK, make_event, make_rule


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


def test_a_change_of_one_app_leaves_the_others_as_they_are() -> None:
    before = HookIndex([make_rule("ours"), make_rule("theirs", app_key="rival")])
    after = before.replace({"shop": [make_rule("ours", event_code="login")]})

    assert before.of_app("rival") is after.of_app("rival")
    assert {"shop"} == after.changed_since(before)
    assert {"ours"} == fired(before, make_event()) == fired(after, make_event("login"))
    assert set() == fired(after, make_event())
    assert {"theirs"} == fired(after, make_event(app_key="rival"))


def test_an_app_without_hooks_has_changed_once() -> None:
    before = HookIndex([make_rule("ours")])
    after = before.replace({"shop": []})

    assert {"shop"} == after.changed_since(before)
    assert set() == after.replace({"shop": []}).changed_since(after)


@given(
    hooks=st.lists(
        st.tuples(
            st.sampled_from(get_args(TriggerType)),
            st.lists(st.sampled_from(["buy", "login", "geofence_in", "PUSH_CLICK", "*"]), min_size=1),
            st.booleans(),
        ),
        max_size=8,
    ),
    kind=st.sampled_from(get_args(EventType)),
    code=st.sampled_from(["buy", "login", "geofence_in", "PUSH_CLICK", "other", "*"]),
)
def test_the_hooks_that_fire_are_those_whose_triggers_and_codes_fit(
    hooks: list[tuple[str, list[str], bool]], kind: EventType, code: str
) -> None:
    triggers = {TRIGGERS[kind]} if kind in TRIGGERS else set()
    if kind in NARROWER and code.upper().startswith(NARROWER[kind][1]):
        triggers.add(NARROWER[kind][0])
    wanted = {
        f"h{number}"
        for number, (trigger, codes, active) in enumerate(hooks)
        if active and trigger in triggers and {code, "*"} & {*codes}
    }

    rules = [
        make_rule(f"h{number}", trigger_type=trigger, event_code=codes, active=active)
        for number, (trigger, codes, active) in enumerate(hooks)
    ]

    assert wanted == fired(HookIndex(rules), make_event(code, kind))


def test_an_inactive_hook_does_not_fire() -> None:
    index = HookIndex([make_rule("asleep", active=False)])

    assert () == index.match(routed(make_event()))
    assert index.find("shop", "asleep") is None


def test_a_webhook_is_a_target_of_its_own_and_its_address_is_no_name() -> None:
    stream, one, two = make_rule("h0"), make_rule("h1", **WEBHOOK), make_rule("h2", **WEBHOOK)

    assert [Target("shop", "orders"), Target("shop", "h1", "WEBHOOK"), Target("shop", "h2", "WEBHOOK")] == [
        stream.target,
        one.target,
        two.target,
    ]
