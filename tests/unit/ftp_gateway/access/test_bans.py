"""Bans of an address: their cause, their length and their end."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ftp_gateway.access.bans import (
    BANS_FORGOTTEN_AFTER,
    FAILURES_FADE_AFTER,
    LONGEST_BAN,
    BanRules,
    Score,
    after_failures,
)
from shared.client_addresses import network_of

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
RULES = BanRules(failures=15, first=timedelta(minutes=15))
ADDRESS = "203.0.113.7"


def banned_times(times: int) -> tuple[Score, datetime]:
    """Ban the address so often, each time after the ban before. Returns its score and the start of the last ban."""
    score, now = None, NOW
    for _ in range(times):
        now = score.banned_until if score is not None and score.banned_until is not None else now
        score = after_failures(score, ADDRESS, RULES.failures, now, RULES)
    assert score is not None
    return score, now


def test_the_last_failure_of_so_many_bans_and_the_one_before_does_not() -> None:
    almost = after_failures(None, ADDRESS, 14, NOW, RULES)
    banned = after_failures(almost, ADDRESS, 1, NOW, RULES)

    assert not almost.is_banned(NOW)
    assert banned.is_banned(NOW + timedelta(minutes=14))
    assert not banned.is_banned(NOW + timedelta(minutes=15))


def test_failures_that_are_some_seconds_apart_count_whole() -> None:
    score = None
    for seconds in range(15):
        score = after_failures(score, ADDRESS, 1, NOW + timedelta(seconds=seconds), RULES)

    assert score is not None
    assert 1 == score.bans


def test_each_ban_is_twice_as_long_up_to_a_day() -> None:
    lengths = []
    for times in range(1, 10):
        score, began_at = banned_times(times)
        assert score.banned_until is not None
        lengths.append(score.banned_until - began_at)

    assert [timedelta(minutes=15 * 2**n) for n in range(7)] == lengths[:7]
    assert [LONGEST_BAN, LONGEST_BAN] == lengths[7:]


def test_after_a_quiet_time_the_next_ban_is_a_first_one() -> None:
    score, _ = banned_times(3)
    assert score.banned_until is not None

    soon = after_failures(score, ADDRESS, 15, score.banned_until + BANS_FORGOTTEN_AFTER - timedelta(seconds=1), RULES)
    late = after_failures(score, ADDRESS, 15, score.banned_until + BANS_FORGOTTEN_AFTER, RULES)

    assert (4, 1) == (soon.bans, late.bans)


def test_failures_fade_so_that_a_few_wrong_passwords_a_day_never_ban() -> None:
    score = None
    for minutes in range(0, 24 * 60, 3):
        score = after_failures(score, ADDRESS, 1, NOW + timedelta(minutes=minutes), RULES)

    assert score is not None
    assert 0 == score.bans
    assert score.is_forgotten(score.changed_at + FAILURES_FADE_AFTER)


def test_failures_during_a_ban_do_not_make_it_longer() -> None:
    score, began_at = banned_times(1)

    again = after_failures(score, ADDRESS, 100, began_at + timedelta(minutes=1), RULES)

    assert score.banned_until == again.banned_until


@given(st.lists(st.tuples(st.integers(0, 4000), st.integers(1, 20)), max_size=30))
def test_no_order_of_failures_gives_a_ban_longer_than_a_day_or_negative_failures(steps: list[tuple[int, int]]) -> None:
    score, now = None, NOW
    for seconds, count in steps:
        now += timedelta(seconds=seconds)
        score = after_failures(score, ADDRESS, count, now, RULES)
        assert score.failures >= 0
        assert score.banned_until is None or score.banned_until - now <= LONGEST_BAN


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("203.0.113.7", "203.0.113.7"),
        ("::ffff:203.0.113.7", "203.0.113.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
        ("2001:db8:1:2:ffff::1", "2001:db8:1:2::"),
        ("fe80::1%eth0", "fe80::"),
        ("::1", "::"),
        ("nowhere", "nowhere"),
    ],
)
def test_ipv6_counts_by_its_64_first_bits_and_mapped_ipv4_as_ipv4(address: str, network: str) -> None:
    assert network == network_of(address)
