"""ULIDs, which events and runs are named by."""

from hypothesis import given
from hypothesis import strategies as st

from shared.ids import make_ulid

NOW_MS = 1763780000123


def test_ids_sort_by_time_and_differ() -> None:
    made = [make_ulid(now_ms) for now_ms in (1, 2, NOW_MS, 2**48 - 1)]

    assert sorted(made) == made
    assert {26} == {len(name) for name in made}
    assert make_ulid(1) != make_ulid(1)
    assert "01ARYZ6S41" == make_ulid(1469918176385)[:10], "the example of the ULID specification"


@given(moments=st.lists(st.integers(0, 2**40), min_size=2))
def test_ids_of_many_moments_sort_by_time(moments: list[int]) -> None:
    times = sorted(set(moments))

    ids = [make_ulid(time) for time in times]

    assert sorted(ids) == ids
    assert {26} == {len(name) for name in ids}
