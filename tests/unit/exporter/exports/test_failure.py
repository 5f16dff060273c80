"""The state machine of a failing export: whose time is used up, what is told once, and what may be dropped."""

from datetime import UTC, datetime, timedelta
from typing import Literal
from zoneinfo import ZoneInfo

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from obstore.exceptions import GenericError

from exporter.exports.failures.failure import (
    KEPT_S,
    LONGEST_WAIT_S,
    DroppedEvents,
    ExportFailure,
    FailedAttempt,
    Fault,
    Notice,
    Undelivered,
    UndeliveredEvents,
    due_in_s,
    failed,
    fault_of,
    is_due,
    is_over,
    used_percent,
    wait_s,
    woken,
)
from exporter.pipeline.ports import Operator
from shared.errors import CredentialsError, DeniedError, MillraceError, UnavailableError

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
HOUR = timedelta(hours=1)
WAITING = UndeliveredEvents(oldest=Undelivered(sequence=7, at=NOW))


def attempt(
    fault: Fault = "customer", *, temporary: bool = False, revision: int = 1, delivered: bool = False
) -> FailedAttempt:
    return FailedAttempt(
        kind="run",
        code="denied",
        message="AccessDenied",
        fault=fault,
        temporary=temporary,
        of_destination=True,
        revision=revision,
        every_s=300,
        has_delivered=delivered,
    )


def after(*steps: tuple[float, Fault]) -> tuple[ExportFailure, list[Notice]]:
    """The failure after attempts at some hours, and all that was told."""
    failure: ExportFailure | None = None
    told: list[Notice] = []
    for hours, fault in steps:
        failure, notices = failed(failure, attempt(fault), NOW + hours * HOUR, WAITING)
        told += notices
    assert failure is not None
    return failure, told


def test_states_and_notices_of_48_hours_come_in_their_order() -> None:
    failure: ExportFailure | None = None
    found: list[tuple[float, str, list[Notice]]] = []
    for quarter in range(4 * 49 + 1):
        now = NOW + quarter * HOUR / 4
        dropped = DroppedEvents(events=1, first_sequence=quarter, last_sequence=quarter)
        over = is_over(failure, attempt(), now)
        backlog = UndeliveredEvents(oldest=WAITING.oldest, dropped=dropped if over and quarter > 192 else None)
        failure, notices = failed(failure, attempt(), now, backlog)
        if notices or not found or found[-1][1] != failure.state:
            found.append((quarter / 4, failure.state, notices))

    assert [
        (0, "blocked", ["failed"]),
        (24, "blocked", ["half"]),
        (43.25, "blocked", ["most"]),
        (48, "dropping", []),
        (48.25, "dropping", ["dropped"]),
    ] == found
    assert failure is not None
    assert DroppedEvents(events=4, first_sequence=193, last_sequence=196) == failure.dropped
    assert NOW + 48 * HOUR == failure.state_at
    assert NOW == failure.since


@pytest.mark.parametrize("fault", ["provider", "platform"])
def test_time_of_another_ones_fault_is_not_the_customers(fault: Fault) -> None:
    failure, told = after((0, fault), (60, fault))
    assert (0.0, "retrying", ["failed"]) == (failure.used_s, failure.state, told)

    failure, told = after((0, "customer"), (1, "customer"), (2, fault), (70, fault), (71, "customer"))
    assert (3600.0, "blocked", ["failed"]) == (failure.used_s, failure.state, told)
    assert not is_over(failure, attempt(fault), NOW + 500 * HOUR)


def test_highest_mark_alone_is_told_after_a_pause() -> None:
    assert ["failed", "most"] == after((0, "customer"), (47, "customer"))[1]


def test_clock_that_is_set_back_takes_nothing_away_and_tells_nothing_twice() -> None:
    failure, told = after((0, "customer"), (25, "customer"), (-10, "customer"), (-9, "customer"), (25, "customer"))

    assert 60 * 3600 == failure.used_s
    assert ["failed", "half", "most"] == told


def test_clock_that_is_set_back_delays_no_attempt() -> None:
    failure, _ = after((0, "customer"))

    assert 30 == due_in_s(failure, NOW)
    assert 0 == due_in_s(failure, NOW - HOUR)
    assert not is_due(failure, 1, NOW)
    assert is_due(failure, 1, NOW - HOUR)


def test_summer_time_changes_no_duration() -> None:
    zone = ZoneInfo("Europe/Berlin")
    begin = datetime(2026, 10, 24, 12, 0, tzinfo=zone).astimezone(UTC)
    end = datetime(2026, 10, 26, 11, 0, tzinfo=zone).astimezone(UTC)
    failure, _ = failed(None, attempt(), begin)

    assert 48 * HOUR == end - begin
    assert is_over(failure, attempt(), end)
    assert not is_over(failure, attempt(), end - timedelta(seconds=1))


def test_probe_for_48_hours_drops_nothing_and_says_so() -> None:
    failure, _ = failed(None, attempt(), NOW)
    failure, notices = failed(failure, attempt(), NOW + 48 * HOUR, UndeliveredEvents())

    assert ("blocked", ["most"]) == (failure.state, notices)
    assert 100 == used_percent(failure, NOW + 48 * HOUR)


def test_delivered_file_begins_the_time_anew() -> None:
    failure, _ = after((0, "customer"), (40, "customer"))
    failure, notices = failed(failure, attempt(delivered=True), NOW + 41 * HOUR, WAITING)

    assert (0.0, []) == (failure.used_s, notices)


def test_waits_grow_to_a_quarter_of_an_hour() -> None:
    assert [30, 60, 120, 240, 480, 900, 900] == [wait_s(number, 300) for number in range(1, 8)]
    assert [1, 2, 4] == [wait_s(number, 1) for number in range(1, 4)]
    assert LONGEST_WAIT_S == wait_s(100_000, 86400)


def test_edit_and_wake_let_it_try_now_and_wait_less() -> None:
    failure, _ = after(*((hours, "customer") for hours in range(9)))
    now = NOW + 8 * HOUR + timedelta(seconds=1)

    assert not is_due(failure, 1, now)
    assert is_due(failure, 2, now)
    assert is_due(woken(failure, now), 1, now)
    assert 1 == failed(failure, attempt(revision=2), now)[0].attempts
    assert 1 == failed(woken(failure, now), attempt(), now)[0].attempts


def coded(kind: type[MillraceError], code: str) -> MillraceError:
    error = kind("no")
    error.__cause__ = GenericError(f"status code: 403 <Code>{code}</Code>")
    return error


@pytest.mark.parametrize(
    ("error", "operator", "fault"),
    [
        (coded(CredentialsError, "InvalidAccessKeyId"), "provider", "customer"),
        (coded(CredentialsError, "RequestTimeTooSkewed"), "provider", "platform"),
        (coded(CredentialsError, "RequestTimeTooSkewed"), "customer", "platform"),
        (DeniedError("no"), "provider", "customer"),
        (DeniedError("no"), "platform", "platform"),
        (UnavailableError("503"), "provider", "provider"),
        (UnavailableError("the name of its host is not known"), "customer", "customer"),
        (UnavailableError("disk"), "platform", "platform"),
    ],
)
def test_fault_is_of_who_can_mend_it(error: MillraceError, operator: Operator, fault: Fault) -> None:
    assert fault == fault_of(error, operator)


def test_keys_of_the_platform_are_its_own_fault_and_the_trust_of_a_role_is_not() -> None:
    assert "platform" == fault_of(CredentialsError("no"), "provider", has_our_keys=True)
    assert "customer" == fault_of(DeniedError("no"), "provider", has_our_keys=True)


def test_failure_of_a_release_before_goes_on_and_is_not_told_again() -> None:
    stored = msgspec.json.decode(b'{"code":"denied","since":"2026-11-20T12:00:00Z"}', type=ExportFailure)

    failure, notices = failed(stored, attempt(), NOW, WAITING)

    assert (0.0, [], "blocked") == (failure.used_s, notices, failure.state)
    assert is_due(stored, 0, NOW)
    assert datetime(2026, 11, 20, 12, tzinfo=UTC) == failure.since


Deed = Literal["customer", "unreachable", "provider", "platform", "pass", "edit", "wake"]
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["customer", "customer", "unreachable", "provider", "platform", "pass", "edit", "wake"]),
        st.integers(-3 * 60, 9 * 60),
        st.booleans(),
    ),
    max_size=60,
)


@given(STEPS)
def test_any_story_drops_only_what_is_old_and_tells_each_thing_once(steps: list[tuple[Deed, int, bool]]) -> None:
    now, revision = NOW, 1
    failure: ExportFailure | None = None
    waiting: list[datetime] = []
    used = timedelta()
    last: tuple[str, datetime] | None = None
    told: list[Notice] = []
    for deed, minutes, restarts in steps:
        now += timedelta(minutes=minutes)
        waiting.append(now)
        if restarts:
            failure = msgspec.json.decode(msgspec.json.encode(failure), type=ExportFailure | None)
        if deed == "pass":
            failure, waiting, told, used, last = None, [], [], timedelta(), None
            continue
        if deed == "edit":
            revision += 1
            assert failure is None or is_due(failure, revision, now)
            continue
        if deed == "wake":
            failure = woken(failure, now) if failure is not None else None
            assert failure is None or is_due(failure, revision, now)
            continue
        fault: Fault = "customer" if deed == "unreachable" else deed
        one = attempt(fault, temporary=deed == "unreachable", revision=revision)
        if last is not None and last[0] == fault == "customer":
            used += max(timedelta(), now - last[1])
        last = fault, now
        over = is_over(failure, one, now)
        assert over is (fault == "customer" and used >= timedelta(seconds=KEPT_S))
        old = [at for at in waiting if over and at < now - timedelta(seconds=KEPT_S)]
        waiting = [at for at in waiting if at not in old]
        gone = DroppedEvents(events=len(old), first_sequence=1, last_sequence=2) if old else None
        backlog = UndeliveredEvents(oldest=Undelivered(sequence=1, at=min(waiting)) if waiting else None, dropped=gone)

        failure, notices = failed(failure, one, now, backlog)

        told += notices
        assert len(told) == len(set(told))
        assert told[0] == "failed"
        assert failure.state == ("dropping" if over else "blocked" if deed == "customer" else "retrying")
        assert ("dropped" in told) is (failure.dropped is not None)
        # What is passed together with a higher mark is not told.
        if used >= timedelta(hours=24):
            assert {"half", "most", "dropped"} & set(told)
        else:
            assert not {"half", "most", "dropped"} & set(told)
        assert 0 < due_in_s(failure, now) <= LONGEST_WAIT_S
        assert failure.next_at is not None
        assert is_due(failure, revision, failure.next_at)
        assert 0 <= used_percent(failure, now) <= 100
