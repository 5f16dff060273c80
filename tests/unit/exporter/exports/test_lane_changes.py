"""Changes of the number of lanes lose and repeat nothing, whatever comes in between, and they end."""

from datetime import UTC, datetime, timedelta

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from exporter.exports.failures.failure import ExportFailure
from exporter.exports.lanes.changes import Lanes, are_settled, next_step
from exporter.exports.progress import Claim, ExportProgress, WindowPlan
from exporter.pipeline.content import Content
from exporter.pipeline.lane import Lane, Shards, lanes_of
from exporter.pipeline.selection import EventSelection
from shared.contracts.subjects import PARTITIONS

NOW = datetime(2026, 12, 1, tzinfo=UTC)
SHARDS: list[Shards] = [1, 2, 4, 8, 16]
CLAIM = Claim(run_id="r", owner="o", trigger="schedule", started_at=NOW, until=NOW)


def window(first: int, last: int) -> WindowPlan:
    return WindowPlan(
        named_at=NOW,
        revision=1,
        location="here",
        content=Content(selection=EventSelection(data="events")),
        first_sequence=first,
        last_sequence=last,
        rows_in=0,
        rows_dropped=0,
        files=(),
    )


class Model:
    """A stream, the lanes in the bucket with their revisions, and what was delivered. A write needs the revision."""

    def __init__(self, shards: Shards) -> None:
        self.partitions: list[int] = []
        self.delivered: list[int] = []
        self.revision = 0
        self.lanes: dict[Lane, tuple[int, ExportProgress]] = {}
        self.write(dict.fromkeys(lanes_of(shards), ExportProgress(cursor=0, slot_at=NOW)))

    @property
    def progress(self) -> Lanes:
        return {lane: progress for lane, (_, progress) in self.lanes.items()}

    def write(self, lanes: Lanes) -> None:
        self.revision += 1
        self.lanes |= {lane: (self.revision, progress) for lane, progress in lanes.items()}

    def change(self, lane: Lane, read: tuple[int, ExportProgress], after: ExportProgress) -> bool:
        """A write of one lane's process, which fails when somebody has written since it read."""
        if self.lanes.get(lane) != read:
            return False
        self.write({lane: after})
        return True

    def step(self, read: dict[Lane, tuple[int, ExportProgress]], shards: Shards) -> None:
        """Step of a replica that read the lanes some time ago."""
        step = next_step({lane: progress for lane, (_, progress) in read.items()}, shards)
        if step.keys() <= read.keys():
            for lane, progress in step.items():
                self.change(lane, read[lane], progress)
        elif self.lanes == read:
            self.lanes = {}
            self.write(step)

    def run(self, lane: Lane, most: int) -> None:
        """The next write of a run: it begins, delivers the planned window, plans one, or ends."""
        read = self.lanes[lane]
        progress = read[1]
        end = len(self.partitions) if progress.until is None else min(progress.until, len(self.partitions))
        if progress.claim is None and progress.window is None and progress.cursor >= end:
            return
        if progress.claim is None:
            self.change(lane, read, replace(progress, claim=CLAIM))
        elif progress.window is not None:
            last = progress.window.last_sequence
            mine = [at for at in range(progress.cursor + 1, last + 1) if self.partitions[at - 1] in lane.partitions]
            if self.change(lane, read, replace(progress, window=None, cursor=last)):
                self.delivered += mine
        elif progress.cursor < end:
            last = min(end, progress.cursor + most)
            self.change(lane, read, replace(progress, window=window(progress.cursor + 1, last)))
        else:
            self.change(lane, read, replace(progress, claim=None))


@given(first=st.sampled_from(SHARDS), data=st.data())
@settings(max_examples=100, deadline=None)
def test_every_event_is_delivered_once_and_users_keep_their_order(first: Shards, data: st.DataObject) -> None:
    model = Model(first)
    reads = [dict(model.lanes)]
    for _ in range(data.draw(st.integers(0, 60))):
        match data.draw(st.sampled_from(["publish", "run", "run", "run", "read", "step", "stale step"])):
            case "publish":
                model.partitions += data.draw(st.lists(st.integers(0, PARTITIONS - 1), min_size=1, max_size=5))
            case "run":
                lane = data.draw(st.sampled_from(sorted(model.lanes, key=lambda lane: lane.shard)))
                model.run(lane, data.draw(st.integers(1, 4)))
            case "read":
                reads.append(dict(model.lanes))
            case "step":
                model.step(dict(model.lanes), data.draw(st.sampled_from(SHARDS)))
            case _:
                model.step(data.draw(st.sampled_from(reads)), data.draw(st.sampled_from(SHARDS)))
        assert len(model.delivered) == len(set(model.delivered))
    wanted = data.draw(st.sampled_from(SHARDS))
    for _ in range(300):
        model.step(dict(model.lanes), wanted)
        for lane in list(model.lanes):
            model.run(lane, 3)

    assert are_settled(model.progress, wanted)
    assert sorted(model.delivered) == list(range(1, len(model.partitions) + 1))
    for partition in range(PARTITIONS):
        mine = [at for at in model.delivered if model.partitions[at - 1] == partition]
        assert mine == sorted(mine)


def test_lanes_end_at_the_furthest_of_them_and_their_backlog_goes_to_the_next() -> None:
    later = NOW + timedelta(seconds=5)
    failing = ExportFailure(code="denied", since=NOW)
    behind, ahead = lanes_of(2)
    lanes: Lanes = {
        behind: ExportProgress(cursor=3, slot_at=NOW, named_at=later, failing=failing),
        ahead: ExportProgress(cursor=5, slot_at=later, window=window(6, 9), claim=CLAIM),
    }

    lanes = {**lanes, **next_step(lanes, 4)}
    assert [3, 9] == [lanes[lane].until for lane in lanes_of(2)]
    lanes = {**lanes, **next_step(lanes, 4)}
    assert [9, 9] == [lanes[lane].until for lane in lanes_of(2)]
    assert {} == next_step(lanes, 4)
    lanes = {lane: replace(progress, cursor=9, window=None, claim=None) for lane, progress in lanes.items()}

    successors = next_step(lanes, 4)

    expected = ExportProgress(cursor=9, slot_at=later, named_at=later, failing=failing)
    assert dict.fromkeys(lanes_of(4), expected) == successors
    assert {} == next_step(successors, 4)


def test_change_that_is_taken_back_lets_the_lanes_go_on() -> None:
    lanes = {lane: ExportProgress(cursor=3, slot_at=NOW, until=7) for lane in lanes_of(2)}

    assert [None, None] == [progress.until for progress in next_step(lanes, 2).values()]
    assert not are_settled(lanes, 2)
