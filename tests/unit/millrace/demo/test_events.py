"""The demo's events, and the check of their arrival."""

from collections import Counter

import msgspec

from millrace.demo.events import EVENTS, PLACE, USERS, StreamCheck, ids_by_user, make_events

STARTED_AT_MS = 1_800_000_000_000
EXPECTED = {"a": ["1", "3"], "b": ["2"]}


def test_events_are_the_same_each_time_but_for_their_time() -> None:
    first, second = (make_events("shop", started_at_ms=STARTED_AT_MS) for _ in range(2))

    assert first == second
    assert EVENTS == len({event.id for event in first})
    assert list(range(EVENTS)) == [msgspec.json.decode(event.attributes)[PLACE] for event in first]
    assert list(range(EVENTS)) == [event.occurred_at - STARTED_AT_MS for event in first]


def test_events_are_mixed_and_every_user_has_some() -> None:
    events = make_events("shop", started_at_ms=STARTED_AT_MS)

    assert {"event", "message_log", "click", "conversion"} == {event.type for event in events}
    assert USERS == len(ids_by_user(events))
    assert min(Counter(event.code for event in events).values()) > EVENTS // 25


def test_arrival_is_exact_when_every_event_came_once_in_order_of_its_user() -> None:
    check = StreamCheck(EXPECTED, [("b", "2"), ("a", "1"), ("a", "3")])

    assert check.exact
    assert "3 records, 0 duplicates, every user in order" == str(check)


def test_arrival_counts_duplicates_and_checks_the_order_of_the_first() -> None:
    check = StreamCheck(EXPECTED, [("a", "1"), ("a", "3"), ("a", "1"), ("b", "2")])

    assert (1, 0, 0, 0) == (check.duplicates, check.missing, check.unexpected, check.out_of_order)
    assert not check.exact


def test_arrival_counts_missing_and_unexpected_events() -> None:
    check = StreamCheck(EXPECTED, [("a", "3"), ("b", "2"), ("c", "9")])

    assert (1, 1, 0) == (check.missing, check.unexpected, check.out_of_order)
    assert not check.exact


def test_arrival_counts_the_users_out_of_order() -> None:
    check = StreamCheck(EXPECTED, [("a", "3"), ("a", "1"), ("b", "2")])

    assert 1 == check.out_of_order
    assert "1 users out of order" in str(check)
