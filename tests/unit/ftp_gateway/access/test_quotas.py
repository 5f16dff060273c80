"""Limits of one user: sessions, files, bytes, bandwidth."""

import pytest

from ftp_gateway.access.quotas import RECOUNT_S, Quotas, QuotaUsage, QuotaUsages
from shared.errors import BusyError, TooLargeError


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def usage_of(clock: Clock, waiting: tuple[int, int] = (0, 0)) -> QuotaUsage:
    return QuotaUsage(lambda: waiting, clock)


def test_one_session_too_many_is_refused_by_the_name_of_its_limit() -> None:
    usages = QuotaUsages(lambda _: (0, 0), Clock())
    limits = Quotas(sessions=2)
    first = usages.open_session("shop.a", limits)
    assert first is usages.open_session("shop.a", limits)
    usages.open_session("shop.b", limits)

    with pytest.raises(BusyError, match="limit sessions: expected at most 2"):
        usages.open_session("shop.a", limits)

    usages.close_session("shop.a")
    usages.open_session("shop.a", limits)


def test_a_file_too_many_and_a_byte_too_many_are_refused() -> None:
    clock = Clock()

    with pytest.raises(BusyError, match="limit waiting_files"):
        usage_of(clock, (3, 0)).check_file(Quotas(waiting_files=3))
    with pytest.raises(TooLargeError, match="limit file_bytes"):
        usage_of(clock).reserve(Quotas(file_bytes=10), 11, 1)
    with pytest.raises(BusyError, match="limit waiting_bytes"):
        usage_of(clock, (1, 90)).reserve(Quotas(waiting_bytes=100), 11, 11)


def test_waiting_bytes_grow_without_a_count_and_are_counted_anew_after_a_second() -> None:
    clock, waiting, counts = Clock(), [(1, 50)], []

    def count() -> tuple[int, int]:
        counts.append(clock.now)
        return waiting[0]

    usage, limits = QuotaUsage(count, clock), Quotas(waiting_bytes=100)
    usage.reserve(limits, 30, 30)
    usage.reserve(limits, 50, 20)
    with pytest.raises(BusyError):
        usage.reserve(limits, 51, 1)
    assert 1 == len(counts)

    waiting[0] = (0, 0)
    clock.now += RECOUNT_S
    usage.reserve(limits, 51, 1)
    assert 2 == len(counts)


def test_rewriting_what_is_there_never_counts() -> None:
    usage_of(Clock(), (1, 500)).reserve(Quotas(waiting_bytes=1), 10, 0)


def test_bytes_take_as_long_as_their_rate_says_and_a_new_rate_holds_for_what_is_owed() -> None:
    clock = Clock()
    usage = usage_of(clock)
    slow, fast = Quotas(bandwidth_bytes_s=16 << 10), Quotas(bandwidth_bytes_s=32 << 10)

    usage.record_transfer(64 << 10)

    assert 4.0 == usage.pause_s(slow)
    clock.now += 2.0
    assert 2.0 == usage.pause_s(slow)
    assert 1.0 == usage.pause_s(fast)
    assert 0.0 == usage.pause_s(Quotas())
    assert 0.0 == usage.pause_s(slow)


def test_time_without_a_transfer_saves_nothing_up() -> None:
    clock = Clock()
    usage = usage_of(clock)
    limits = Quotas(bandwidth_bytes_s=16 << 10)
    clock.now += 60.0

    usage.record_transfer(16 << 10)

    assert 1.0 == usage.pause_s(limits)
