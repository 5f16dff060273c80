"""The times at which an open breaker allows a request."""

from storage.placement.circuit_breaker import CircuitBreaker


class Clock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def opened(clock: Clock) -> CircuitBreaker:
    breaker = CircuitBreaker(clock, outages_to_open=3, pause_s=30)
    for _ in range(3):
        breaker.record_failure()
    return breaker


def test_closed_breaker_allows_every_request() -> None:
    breaker = CircuitBreaker(Clock(), outages_to_open=3, pause_s=30)

    for _ in range(2):
        assert breaker.allow_request()
        breaker.record_failure()

    assert breaker.allow_request()
    assert 0 == breaker.wait_s


def test_answer_between_two_outages_resets_the_count() -> None:
    breaker = CircuitBreaker(Clock(), outages_to_open=2, pause_s=30)

    breaker.record_failure()
    breaker.record_answer()
    breaker.record_failure()

    assert breaker.allow_request()


def test_open_breaker_allows_no_request() -> None:
    clock = Clock()
    breaker = opened(clock)

    assert not breaker.allow_request()
    clock.now += 29
    assert not breaker.allow_request()
    assert 1 == breaker.wait_s


def test_one_request_is_allowed_after_the_pause_and_decides() -> None:
    clock = Clock()
    breaker = opened(clock)
    clock.now += 30

    assert [True, False] == [breaker.allow_request(), breaker.allow_request()]
    breaker.record_answer()

    assert breaker.allow_request()
    assert 0 == breaker.wait_s


def test_try_that_fails_begins_another_pause() -> None:
    clock = Clock()
    breaker = opened(clock)
    clock.now += 30
    breaker.allow_request()

    clock.now += 10
    breaker.record_failure()

    assert 30 == breaker.wait_s


def test_try_that_never_ends_is_followed_by_another_one() -> None:
    clock = Clock()
    breaker = opened(clock)
    clock.now += 30
    breaker.allow_request()

    clock.now += 30

    assert breaker.allow_request()
