"""A list holds each event once, whatever comes again and whenever its files are merged."""

from datetime import UTC, datetime
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from exporter.lake.lists import DayFiles, LakeFile, LaneRange, lanes_in
from exporter.lake.merging import MERGED_BYTES, MERGED_FILES, groups, merged_name
from exporter.layouts.lake import range_name
from exporter.pipeline.lane import lanes_of

NOW = datetime(2026, 12, 1, tzinfo=UTC)


def file(first: int, last: int, *, size_bytes: int = 10) -> LakeFile:
    return LakeFile(
        key=f"{first}-{last}", rows=last - first + 1, size_bytes=size_bytes, first_sequence=first, last_sequence=last
    )


def merged_of(parts: tuple[LakeFile, ...]) -> LakeFile:
    return LakeFile(
        key=f"{parts[0].first_sequence}-{parts[-1].last_sequence}",
        rows=sum(part.rows for part in parts),
        size_bytes=sum(part.size_bytes for part in parts),
        first_sequence=parts[0].first_sequence,
        last_sequence=parts[-1].last_sequence,
    )


@given(lengths=st.lists(st.integers(1, 5), min_size=1, max_size=12), data=st.data())
def test_every_event_is_listed_once_after_repetitions_merges_and_merges_that_come_late(
    lengths: list[int], data: st.DataObject
) -> None:
    windows, at = [], 1
    for length in lengths:
        windows.append(file(at, at + length - 1))
        at += length
    day, listed = DayFiles(), 0
    taken: list[tuple[LakeFile, ...]] = []
    steps = data.draw(st.lists(st.sampled_from(["next", "again", "take", "merge"]), max_size=40))
    for step in steps:
        if step == "next" and listed < len(windows):
            day = day.with_file(windows[listed])
            listed += 1
        elif step == "again" and listed:
            day = day.with_file(windows[data.draw(st.integers(0, listed - 1))])
        elif step == "take":
            taken += groups(day.files)
        elif step == "merge" and taken:
            # Another replica may have merged the same files, or more of them, before.
            parts = taken[data.draw(st.integers(0, len(taken) - 1))]
            day = day.with_merged(merged_of(parts), parts, NOW)
        ranges = [(one.first_sequence, one.last_sequence) for one in day.files]
        covered = [sequence for first, last in ranges for sequence in range(first, last + 1)]
        assert list(range(1, 1 + sum(lengths[:listed]))) == covered
        assert sum(one.rows for one in day.files) == len(covered)
        assert not {one.key for one in day.replaced} & {one.key for one in day.files}


@given(sizes=st.lists(st.integers(1, MERGED_BYTES), max_size=30))
def test_groups_are_neighbours_within_the_limits_and_merging_ends(sizes: list[int]) -> None:
    files = tuple(file(place, place, size_bytes=size) for place, size in enumerate(sizes, 1))
    for _ in range(len(files) + 1):
        found = list(groups(files))
        for parts in found:
            assert 2 <= len(parts) <= MERGED_FILES
            assert sum(part.size_bytes for part in parts) <= MERGED_BYTES
            place = files.index(parts[0])
            assert files[place : place + len(parts)] == parts
        if not found:
            break
        day = DayFiles(files=files)
        for parts in found:
            day = day.with_merged(merged_of(parts), parts, NOW)
        assert len(day.files) < len(files)
        files = day.files
    assert not list(groups(files))
    pairs = pairwise(files)
    assert all(left.size_bytes + right.size_bytes > MERGED_BYTES for left, right in pairs)


def test_many_files_are_merged_by_two_hundred() -> None:
    files = tuple(file(place, place) for place in range(1, 451))

    assert [200, 200, 50] == [len(parts) for parts in groups(files)]


def test_files_of_a_stream_that_was_made_anew_are_added() -> None:
    day = DayFiles().with_file(file(900, 950))

    assert 2 == len(day.with_file(file(1, 50)).files)


@given(lanes=st.lists(st.integers(0, 3), min_size=1, max_size=30), data=st.data())
def test_every_event_of_all_lanes_is_listed_once_whatever_comes_late_or_again(
    lanes: list[int], data: st.DataObject
) -> None:
    """`lanes` has the lane of each sequence from 1 on. Windows of different lanes overlap, and come in any order."""
    windows: list[list[tuple[LakeFile, set[int]]]] = []
    for lane in lanes_of(4):
        mine = [at for at, shard in enumerate(lanes, 1) if shard == lane.shard]
        windows.append([])
        while mine:
            length = data.draw(st.integers(1, 4))
            taken, mine = mine[:length], mine[length:]
            covered = LaneRange(shards=4, shard=lane.shard, first_sequence=taken[0], last_sequence=taken[-1])
            key = range_name(taken[0], taken[-1], lane)
            one = LakeFile(
                key=key,
                rows=len(taken),
                size_bytes=10,
                first_sequence=taken[0],
                last_sequence=taken[-1],
                lanes=(covered,),
            )
            windows[-1].append((one, set(taken)))
    day, listed = DayFiles(), [0] * 4
    events: dict[str, set[int]] = {}
    groups_taken: list[tuple[LakeFile, ...]] = []
    steps = data.draw(st.lists(st.sampled_from(["next", "next", "again", "take", "merge"]), max_size=40))
    for step in steps:
        shard = data.draw(st.integers(0, 3))
        if step == "next" and listed[shard] < len(windows[shard]):
            one, its = windows[shard][listed[shard]]
            day = day.with_file(one)
            events[one.key] = its
            listed[shard] += 1
        elif step == "again" and listed[shard]:
            day = day.with_file(windows[shard][data.draw(st.integers(0, listed[shard] - 1))][0])
        elif step == "take":
            groups_taken += groups(day.files)
        elif step == "merge" and groups_taken:
            parts = data.draw(st.sampled_from(groups_taken))
            key = merged_name(parts)
            assert key not in {part.key for part in parts}
            merged = LakeFile(
                key=key,
                rows=sum(part.rows for part in parts),
                size_bytes=20,
                first_sequence=parts[0].first_sequence,
                last_sequence=max(part.last_sequence for part in parts),
                lanes=lanes_in(parts),
            )
            events[key] = set().union(*(events[part.key] for part in parts))
            day = day.with_merged(merged, parts, NOW)
        found = [at for one in day.files for at in events[one.key]]
        expected = [at for mine, count in zip(windows, listed, strict=True) for _, its in mine[:count] for at in its]
        assert sorted(expected) == sorted(found)
        assert sum(one.rows for one in day.files) == len(found)
        assert not {one.key for one in day.replaced} & {one.key for one in day.files}
