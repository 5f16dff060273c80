"""Advice to an operator while records go out."""

from hooks.delivery.advice import TargetAdvice
from hooks.matching.rule import Target

ORDERS = Target("shop", "orders")
OTHERS = Target("shop", "others")


def test_advice_is_reported_once_until_it_is_mended() -> None:
    told: list[tuple[Target, str]] = []
    advice = TargetAdvice(lambda target, message: told.append((target, message)))

    for message in ("grant it", "grant it", None, "grant it"):
        advice.set(ORDERS, message)

    assert [(ORDERS, "grant it")] * 2 == told
    assert ("grant it", None) == (advice.of(ORDERS), advice.of(OTHERS))


def test_advice_is_forgotten_with_its_target() -> None:
    advice = TargetAdvice(lambda _, __: None)
    advice.set(ORDERS, "grant it")
    advice.set(OTHERS, "grant it")

    advice.retain_only([OTHERS])

    assert (None, "grant it") == (advice.of(ORDERS), advice.of(OTHERS))
