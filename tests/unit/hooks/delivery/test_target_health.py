"""Waits of a target that fails, and the alerts of its pause."""

import pytest

from hooks.delivery.model import CallPolicy
from hooks.delivery.target_health import REJECTED_IN_A_ROW, TargetHealth, wait_s
from shared.errors import BusyError, CredentialsError, MillraceError, UnavailableError
from shared.runtime.retry import Backoff
from support.fakes.sink import TARGET, RecordingObserver

POLICY = CallPolicy(retry=Backoff(first_s=1, max_s=8), probe=Backoff(first_s=60, max_s=60))


class Clock:
    now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def observer() -> RecordingObserver:
    return RecordingObserver()


@pytest.fixture
def health(clock: Clock, observer: RecordingObserver) -> TargetHealth:
    return TargetHealth(TARGET, POLICY, observer, clock)


def fail_and_wait(health: TargetHealth, clock: Clock, error: MillraceError) -> None:
    health.record_failure(error)
    clock.now_s += max(0, health.wait_s)


def test_a_failure_is_waited_out_and_forgotten_with_the_first_answer(health: TargetHealth, clock: Clock) -> None:
    error = UnavailableError("timeout")

    health.record_failure(error)

    assert error is health.error
    assert 0 <= health.wait_s <= 1
    health.record_answer()
    assert health.error is None
    assert health.wait_s <= 0


def test_the_wait_grows_up_to_its_bound() -> None:
    def longest(attempt: int) -> float:
        return max(wait_s(POLICY.retry, attempt) for _ in range(200))

    assert 0.5 < longest(1) <= 1
    assert 1 < longest(2) <= 2
    assert 4 < longest(4) <= 8
    assert 4 < longest(10**9) <= 8


def test_the_wait_is_at_least_the_one_that_the_peer_requests(health: TargetHealth) -> None:
    health.record_failure(BusyError("throttled", retry_after_s=30))

    assert 30 == pytest.approx(health.wait_s)


def test_failures_of_calls_that_ran_side_by_side_count_once(health: TargetHealth, clock: Clock) -> None:
    health.record_failure(BusyError("throttled", retry_after_s=30))
    health.record_failure(BusyError("throttled", retry_after_s=3000))

    assert 30 == pytest.approx(health.wait_s)


def test_a_pause_is_reported_once_until_it_is_over(
    health: TargetHealth, clock: Clock, observer: RecordingObserver
) -> None:
    for error in (CredentialsError("revoked"), UnavailableError("timeout"), CredentialsError("revoked")):
        fail_and_wait(health, clock, error)
    health.record_answer()
    fail_and_wait(health, clock, CredentialsError("revoked"))

    assert ["paused orders: credentials", "resumed orders", "paused orders: credentials"] == observer.said


def test_a_pause_that_a_change_does_not_mend_is_reported_again(
    health: TargetHealth, clock: Clock, observer: RecordingObserver
) -> None:
    health.record_failure(CredentialsError("revoked"))
    health.reset()

    assert health.wait_s <= 0
    assert health.error is None
    health.record_failure(CredentialsError("still revoked"))
    assert ["paused orders: credentials"] * 2 == observer.said


def test_a_change_that_mends_it_is_reported_by_the_first_answer(
    health: TargetHealth, observer: RecordingObserver
) -> None:
    health.record_failure(CredentialsError("revoked"))
    health.reset()
    health.record_answer()
    health.record_answer()

    assert ["paused orders: credentials", "resumed orders"] == observer.said


def test_a_passing_failure_is_not_reported(health: TargetHealth, clock: Clock, observer: RecordingObserver) -> None:
    fail_and_wait(health, clock, UnavailableError("timeout"))
    health.record_answer()

    assert [] == observer.said


def test_dead_letters_in_a_row_are_reported_once_until_a_record_is_stored(
    health: TargetHealth, observer: RecordingObserver
) -> None:
    for _ in range(REJECTED_IN_A_ROW * 3):
        health.record_rejection("not this one")
    health.record_answer()
    for _ in range(REJECTED_IN_A_ROW - 1):
        health.record_rejection("not this one")
    once = list(observer.said)
    health.record_rejection("not this one")

    assert ["rejects orders: not this one"] == once
    assert 2 == len(observer.said)
