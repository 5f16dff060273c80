"""When a target that fails is asked again, and what an operator hears."""

import pytest

from hooks.delivery.model import Policy
from hooks.delivery.target_health import TargetHealth, wait_s
from shared.errors import BusyError, CredentialsError, MillraceError, UnavailableError
from shared.runtime.retry import Backoff
from support.fakes.sink import TARGET, RecordingObserver

POLICY = Policy(retry=Backoff(first_s=1, max_s=8), probe=Backoff(first_s=60, max_s=60))


class Clock:
    now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def heard() -> RecordingObserver:
    return RecordingObserver()


@pytest.fixture
def trouble(clock: Clock, heard: RecordingObserver) -> TargetHealth:
    return TargetHealth(TARGET, POLICY, heard, clock)


def fail_and_wait(trouble: TargetHealth, clock: Clock, error: MillraceError) -> None:
    trouble.failed(error)
    clock.now_s += max(0, trouble.wait_s)


def test_a_failure_is_waited_out_and_forgotten_with_the_first_answer(trouble: TargetHealth, clock: Clock) -> None:
    error = UnavailableError("timeout")

    trouble.failed(error)

    assert error is trouble.error
    assert 0 <= trouble.wait_s <= 1
    trouble.answered()
    assert trouble.error is None
    assert trouble.wait_s <= 0


def test_the_wait_grows_up_to_its_bound() -> None:
    def longest(attempt: int) -> float:
        return max(wait_s(POLICY.retry, attempt) for _ in range(200))

    assert 0.5 < longest(1) <= 1
    assert 1 < longest(2) <= 2
    assert 4 < longest(4) <= 8
    assert 4 < longest(10**9) <= 8


def test_what_the_peer_asks_for_is_waited_at_least(trouble: TargetHealth) -> None:
    trouble.failed(BusyError("throttled", retry_after_s=30))

    assert 30 == pytest.approx(trouble.wait_s)


def test_failures_of_calls_that_ran_side_by_side_count_once(trouble: TargetHealth, clock: Clock) -> None:
    trouble.failed(BusyError("throttled", retry_after_s=30))
    trouble.failed(BusyError("throttled", retry_after_s=3000))

    assert 30 == pytest.approx(trouble.wait_s)


def test_a_pause_is_told_once_until_it_is_over(trouble: TargetHealth, clock: Clock, heard: RecordingObserver) -> None:
    for error in (CredentialsError("revoked"), UnavailableError("timeout"), CredentialsError("revoked")):
        fail_and_wait(trouble, clock, error)
    trouble.answered()
    fail_and_wait(trouble, clock, CredentialsError("revoked"))

    assert ["paused orders: credentials", "resumed orders", "paused orders: credentials"] == heard.said


def test_a_change_that_mends_nothing_is_told_again(
    trouble: TargetHealth, clock: Clock, heard: RecordingObserver
) -> None:
    trouble.failed(CredentialsError("revoked"))
    trouble.renewed()

    assert trouble.wait_s <= 0
    assert trouble.error is None
    trouble.failed(CredentialsError("still revoked"))
    assert ["paused orders: credentials"] * 2 == heard.said


def test_a_change_that_mends_it_is_told_by_the_first_answer(trouble: TargetHealth, heard: RecordingObserver) -> None:
    trouble.failed(CredentialsError("revoked"))
    trouble.renewed()
    trouble.answered()
    trouble.answered()

    assert ["paused orders: credentials", "resumed orders"] == heard.said


def test_a_passing_failure_is_told_to_nobody(trouble: TargetHealth, clock: Clock, heard: RecordingObserver) -> None:
    fail_and_wait(trouble, clock, UnavailableError("timeout"))
    trouble.answered()

    assert [] == heard.said
