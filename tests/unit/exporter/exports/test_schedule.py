"""A run is due once in every slot, whatever the clock and the frequency do."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from exporter.exports.schedule import SPREAD_MAX_S, Schedule, schedule_of

NOON = datetime(2026, 11, 22, 12, 0, 0, tzinfo=UTC)
QUARTER = Schedule(every_s=900, offset_s=5)

times = st.datetimes(min_value=datetime(2020, 1, 1), max_value=datetime(2040, 1, 1), timezones=st.just(UTC))
periods = st.one_of(st.integers(1, 1440).map(lambda minutes: minutes * 60.0), st.floats(1, 86400))


def test_slot_begins_at_the_round_time_and_the_offset() -> None:
    expected = NOON + timedelta(seconds=5)

    actual = QUARTER.slot(NOON + timedelta(minutes=14, seconds=59))

    assert expected == actual


def test_run_is_due_when_a_new_slot_has_begun() -> None:
    last = QUARTER.slot(NOON)

    assert None is QUARTER.due(NOON + timedelta(seconds=4), last)
    assert NOON + timedelta(seconds=5) == QUARTER.due(NOON + timedelta(seconds=5), last)


def test_missed_slots_are_one_run() -> None:
    later = NOON + timedelta(hours=7)

    slot = QUARTER.due(later, QUARTER.slot(NOON))

    assert slot is not None
    assert None is QUARTER.due(later, slot)


def test_run_waits_for_its_slot_when_the_frequency_becomes_longer() -> None:
    last = NOON + timedelta(minutes=7)

    wait_s = Schedule(every_s=900).wait_s(NOON + timedelta(minutes=8), last)

    assert 7 * 60 == wait_s


def test_slot_is_not_run_again_when_the_clock_is_set_back() -> None:
    last = QUARTER.slot(NOON + timedelta(hours=1))

    assert None is QUARTER.due(NOON, last)
    assert 60 * 60 + 5 == QUARTER.wait_s(NOON, last)


@given(names=st.text(max_size=40), every_s=periods)
def test_offset_is_the_same_every_time_and_small(names: str, every_s: float) -> None:
    schedule = schedule_of(names, every_s)

    assert schedule == schedule_of(names, every_s)
    assert 0 <= schedule.offset_s <= min(every_s * 0.1, SPREAD_MAX_S)


@given(now=times, every_s=periods, name=st.text(max_size=8), steps=st.lists(st.floats(0, 5000), max_size=60))
def test_no_slot_is_run_twice_as_time_passes(now: datetime, every_s: float, name: str, steps: list[float]) -> None:
    schedule = schedule_of(name, every_s)
    last = schedule.slot(now)
    run: list[datetime] = []

    for step in steps:
        now += timedelta(seconds=step)
        if slot := schedule.due(now, last):
            run.append(slot)
            last = slot

    assert sorted(set(run)) == run
    assert all(later - earlier >= timedelta(seconds=every_s) for earlier, later in pairwise(run))


@given(now=times, every_s=periods, back_s=st.floats(0, 100_000))
def test_run_is_due_after_the_wait_and_not_before(now: datetime, every_s: float, back_s: float) -> None:
    schedule = Schedule(every_s=every_s)
    last = schedule.slot(now + timedelta(seconds=back_s))

    wait_s = schedule.wait_s(now, last)

    assert wait_s > 0
    assert schedule.due(now + timedelta(seconds=wait_s), last) is not None
    assert None is schedule.due(now + timedelta(seconds=wait_s, microseconds=-1), last)
