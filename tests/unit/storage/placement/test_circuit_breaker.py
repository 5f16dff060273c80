"""When a provider that is in trouble is asked again."""

from storage.placement.circuit_breaker import CircuitBreaker


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def opened(clock: Clock) -> CircuitBreaker:
    breaker = CircuitBreaker(clock, outages=3, pause_s=30)
    for _ in range(3):
        breaker.failed()
    return breaker


def test_everybody_is_let_through_until_it_opens() -> None:
    breaker = CircuitBreaker(Clock(), outages=3, pause_s=30)

    for _ in range(2):
        assert breaker.let_through()
        breaker.failed()

    assert breaker.let_through()
    assert 0 == breaker.wait_s


def test_answer_between_two_outages_counts_anew() -> None:
    breaker = CircuitBreaker(Clock(), outages=2, pause_s=30)

    breaker.failed()
    breaker.answered()
    breaker.failed()

    assert breaker.let_through()


def test_nobody_is_let_through_while_it_is_open() -> None:
    clock = Clock()
    breaker = opened(clock)

    assert not breaker.let_through()
    clock.now += 29
    assert not breaker.let_through()
    assert 1 == breaker.wait_s


def test_one_tries_after_the_pause_and_decides() -> None:
    clock = Clock()
    breaker = opened(clock)
    clock.now += 30

    assert [True, False] == [breaker.let_through(), breaker.let_through()]
    breaker.answered()

    assert breaker.let_through()
    assert 0 == breaker.wait_s


def test_try_that_fails_begins_another_pause() -> None:
    clock = Clock()
    breaker = opened(clock)
    clock.now += 30
    breaker.let_through()

    clock.now += 10
    breaker.failed()

    assert 30 == breaker.wait_s


def test_try_that_never_ends_is_followed_by_another_one() -> None:
    clock = Clock()
    breaker = opened(clock)
    clock.now += 30
    breaker.let_through()

    clock.now += 30

    assert breaker.let_through()
