"""Counters of a hook's status."""

from hooks.delivery.counters import DeliveryCounters
from support.fakes.sink import NOW


def test_a_hook_has_one_tally_until_it_is_forgotten() -> None:
    delivery_counters = DeliveryCounters(lambda: NOW)
    delivery_counters.of("shop", "orders").sent += 1

    assert 1 == delivery_counters.of("shop", "orders").sent
    assert 0 == delivery_counters.of("rival", "orders").sent
    delivery_counters.retain_only({("rival", "orders")})
    assert 0 == delivery_counters.of("shop", "orders").sent


def test_a_failure_is_kept_with_its_time() -> None:
    counters = DeliveryCounters(lambda: NOW).of("shop", "orders")

    counters.fail("InternalFailure: Internal Service Failure")

    assert (1, "InternalFailure: Internal Service Failure", NOW) == (
        counters.failed,
        counters.last_error,
        counters.last_error_at,
    )
