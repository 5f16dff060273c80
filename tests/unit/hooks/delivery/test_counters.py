"""What a hook's status tells."""

from hooks.delivery.counters import DeliveryCounters
from support.fakes.sink import NOW


def test_a_hook_has_one_tally_until_it_is_forgotten() -> None:
    tallies = DeliveryCounters(lambda: NOW)
    tallies.of("shop", "orders").sent += 1

    assert 1 == tallies.of("shop", "orders").sent
    assert 0 == tallies.of("rival", "orders").sent
    tallies.keep({("rival", "orders")})
    assert 0 == tallies.of("shop", "orders").sent


def test_a_failure_is_kept_with_its_time() -> None:
    tally = DeliveryCounters(lambda: NOW).of("shop", "orders")

    tally.fail("InternalFailure: Internal Service Failure")

    assert (1, "InternalFailure: Internal Service Failure", NOW) == (
        tally.failed,
        tally.last_error,
        tally.last_error_at,
    )
