"""Configuration of a hook: defaults, bounds and fields that fit its type."""

from typing import Any

import msgspec
import pytest

from hooks.config import HOOKS
from hooks.matching.hook import CODES_PER_APP, HOOKS_PER_APP, BatchSettings, Hook, check_sizes
from hooks.sinks import SINKS
from shared.errors import InvalidError
from support.fakes.rules import HOOK, WEBHOOK, make_rule


def checked(hook: Hook) -> Hook:
    return hook.checked(SINKS[hook.type].hook_fields)


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({"name": ""}, "$.name"),
        ({"stream_name": "a b"}, "$.stream_name"),
        ({"stream_name": "orders\n"}, "$.stream_name"),
        ({"stream_name": "x" * 129}, "$.stream_name"),
        ({"trigger_type": "CONVERSION"}, "$.trigger_type"),
        ({"event_code": []}, "$.event_code"),
        ({"event_code": ["a", ""]}, "$.event_code[1]"),
        ({"type": "FIREHOSE"}, "$.type"),
        ({"batch": {"max_records": 0}}, "$.batch.max_records"),
        ({"batch": {"max_records": 501}}, "$.batch.max_records"),
        ({"batch": {"max_bytes": (10 << 20) + 1}}, "$.batch.max_bytes"),
        ({"batch": {"linger_ms": 60_001}}, "$.batch.linger_ms"),
        ({"batch": {"format": "xml"}}, "$.batch.format"),
        ({"max_record_bytes": 1023}, "$.max_record_bytes"),
        ({"max_record_bytes": (10 << 20) + 1}, "$.max_record_bytes"),
        ({"oversize": "gzip"}, "$.oversize"),
        ({"url": "https://example.com/" + "x" * 2048}, "$.url"),
    ],
)
def test_a_hook_out_of_bounds_is_refused_and_the_field_named(change: dict[str, Any], path: str) -> None:
    with pytest.raises(msgspec.ValidationError) as caught:
        msgspec.convert(HOOK | change, HOOKS.type)

    assert f"`{path}`" in str(caught.value)


def test_fields_that_a_hook_leaves_out_have_the_defaults_of_kinesis() -> None:
    hook = make_rule("h1").hook

    assert BatchSettings(max_records=500, max_bytes=10 << 20, linger_ms=20, format="single") == hook.batch
    assert (1 << 20, "dead_letter", "KINESIS") == (hook.max_record_bytes, hook.oversize, hook.type)


@pytest.mark.parametrize(
    ("form", "field"),
    [
        (HOOK | {"stream_name": ""}, "stream_name"),
        (HOOK | {"url": "https://example.com"}, "url"),
        (WEBHOOK | {"url": ""}, "url"),
        (WEBHOOK | {"stream_name": "orders"}, "stream_name"),
    ],
)
def test_a_hook_whose_fields_do_not_fit_its_type_is_refused(form: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidError) as caught:
        checked(msgspec.convert(form, Hook))

    assert field == caught.value.field


def test_a_hook_that_was_a_webhook_keeps_no_secret() -> None:
    left_over = msgspec.convert(HOOK | {"secret": WEBHOOK["secret"]}, Hook)

    assert msgspec.convert(HOOK, Hook) == checked(left_over)
    assert msgspec.convert(WEBHOOK, Hook) == checked(msgspec.convert(WEBHOOK, Hook))


def test_a_hook_with_an_unknown_field_is_refused() -> None:
    with pytest.raises(msgspec.ValidationError, match="unknown field `region`"):
        msgspec.convert(HOOK | {"region": "eu-central-1"}, Hook)


@pytest.mark.parametrize("code", ["purchase_*", "*_click", "**", ["login", "push*"]])
def test_a_pattern_is_no_code(code: str | list[str]) -> None:
    hook = msgspec.convert(
        {"name": "h", "stream_name": "s", "trigger_type": "EVENT", "event_code": code}, Hook, strict=True
    )

    with pytest.raises(InvalidError, match="is a pattern") as caught:
        hook.checked(("stream_name",))

    assert "event_code" == caught.value.field


@pytest.mark.parametrize("code", ["*", "purchase", ["login", "*"]])
def test_a_code_and_every_code_are_good(code: str | list[str]) -> None:
    hook = msgspec.convert({"name": "h", "stream_name": "s", "trigger_type": "EVENT", "event_code": code}, Hook)

    assert hook == hook.checked(("stream_name",))


def test_an_app_has_a_limit_of_hooks_and_may_change_those_that_it_has() -> None:
    hook = make_rule("h0").hook

    check_sizes(hook, None, [hook] * (HOOKS_PER_APP - 1))
    check_sizes(hook, hook, [hook] * 2 * HOOKS_PER_APP)
    with pytest.raises(InvalidError, match="expected at most 1000 hooks of an app, found 1000 others") as raised:
        check_sizes(hook, None, [hook] * HOOKS_PER_APP)

    assert "id" == raised.value.field


def test_an_app_has_a_limit_of_codes_in_all_hooks() -> None:
    one, many = make_rule("h0").hook, make_rule("h1", event_code=[f"code-{number}" for number in range(100)]).hook
    others = [many] * (CODES_PER_APP // 100 - 1) + [one]

    check_sizes(one, None, others)
    check_sizes(one, many, [many] * CODES_PER_APP)
    for old in (None, one):
        with pytest.raises(InvalidError, match="so 99 here, got 100") as raised:
            check_sizes(many, old, others)
        assert "event_code" == raised.value.field
