"""Number of calls that run at once."""

from hooks.delivery.concurrency_limit import START, ConcurrencyLimit


def test_a_round_of_full_calls_that_succeed_adds_one_more() -> None:
    pace = ConcurrencyLimit(16)

    for _ in range(START):
        pace.record_success(full=True)

    assert START + 1 == pace.calls


def test_calls_that_are_not_full_add_none() -> None:
    pace = ConcurrencyLimit(16)

    for _ in range(100):
        pace.record_success(full=False)

    assert START == pace.calls


def test_it_grows_to_the_most_and_not_beyond() -> None:
    pace = ConcurrencyLimit(6)

    for _ in range(100):
        pace.record_success(full=True)

    assert 6 == pace.calls


def test_calls_that_ran_together_and_fail_together_cut_once() -> None:
    pace = ConcurrencyLimit(16)
    begun = [pace.begin() for _ in range(4)]

    for number in begun:
        pace.record_failure(number)

    assert 2 == pace.calls


def test_one_call_is_left_whatever_fails() -> None:
    pace = ConcurrencyLimit(16)

    for _ in range(9):
        pace.record_failure(pace.begin())

    assert 1 == pace.calls
    pace.record_success(full=True)
    assert 2 == pace.calls
