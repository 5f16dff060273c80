"""Two readers over one stream: each event is dispatched once and in order, for any interleaving."""

from hypothesis import given
from hypothesis import strategies as st

from hooks.backlog.backlog import BEFORE_ALL, Backlog, EventPosition, position_of
from hooks.delivery.ack_window import AckWindow, Bounds, PendingMessage
from hooks.delivery.counters import HookCounters
from hooks.delivery.model import Record
from hooks.matching.rule import Target
from shared.messaging.message import Message
from support.fakes.sink import NOW, TARGET, make_record

HOOK = "hook"
WIDE = Bounds(records=10**6, bytes=1 << 30, messages=10**6)


def backlog(start: int, missed: int) -> Backlog:
    return Backlog(key="k", target=TARGET, behind={HOOK: 0}, start=start, missed=missed)


class Simulation:
    """Messages 1 to n with two events each, a partition's reader, and a backlog's beside it once it is detached."""

    def __init__(self, messages: int) -> None:
        self.messages = messages
        self.live = AckWindow(WIDE)
        self.live_at = 0
        self.queue: list[Record] = []
        self.given: list[str] = []
        self.backlog: Backlog | None = None

    def read(self) -> None:
        """The partition's reader takes a message."""
        if self.live_at == self.messages:
            return
        self.live_at += 1
        taken = self.live.add(Message("", b"", sequence=self.live_at, at_ns=0))
        for number in range(2):
            source = f"EVENTS:{self.live_at}:{number}"
            self.live.dispatched = source
            away = self.backlog is not None and (self.backlog.until is None or self.live_at <= self.backlog.until)
            if away:
                assert self.backlog is not None
                self.backlog.record_skipped(HOOK, self.live_at)
            else:
                self._put(taken, source)
        taken.close()

    def _put(self, taken: PendingMessage, source: str) -> None:
        record = make_record(
            key="u",
            data=b"",
            hook_id=HOOK,
            source=source,
            counters=HookCounters(lambda: NOW),
            done=taken,
        )
        taken.expect(record)
        self.queue.append(record)

    def finish(self) -> None:
        """The target takes the oldest record."""
        if self.queue:
            record = self.queue.pop(0)
            self.given.append(record.source)
            record.done(record)

    def detach(self, flying: int) -> None:
        """The partition releases the records that wait, and none that is in a call."""
        if self.backlog is not None or self.live.oldest is None:
            return
        self.backlog = backlog(self.live.oldest.message.sequence, missed=0)
        self.queue, released = self.queue[:flying], self.queue[flying:]
        self.backlog.add_in_flight(self.queue)
        self.backlog.detach(released, self.live.dispatched)
        for record in released:
            record.done(record)

    def catch_up(self) -> None:
        """The backlog's reader takes a message, or returns the hook to the partition."""
        found = self.backlog
        if found is None or found.attach() or found.dispatched_to >= self.messages:
            return
        sequence = found.dispatched_to + 1
        taken = found.window.add(Message("", b"", sequence=sequence, at_ns=0))
        for number in range(2):
            source = f"EVENTS:{sequence}:{number}"
            found.window.dispatched = source
            if found.accepts(HOOK, source):
                self._put(taken, source)
        taken.close()
        found.dispatched_to = sequence


steps = st.lists(st.sampled_from(["read", "finish", "detach", "catch_up"]), max_size=60)


@given(st.integers(1, 12), st.integers(0, 3), steps)
def test_each_event_is_delivered_once_and_in_order(messages: int, flying: int, order: list[str]) -> None:
    told = Simulation(messages)
    for step in order:
        if step == "detach":
            told.detach(flying)
        else:
            getattr(told, step)()
        if told.backlog is not None:
            unfinished = [position_of(record.source).sequence for record in told.queue]
            covered = told.live.floor.sequence + 1 if told.live.floor else 1
            assert all(min(covered, told.backlog.start) <= sequence for sequence in unfinished)
    for _ in range(4 * messages + 4):
        told.read()
        told.catch_up()
        told.finish()

    assert [f"EVENTS:{number}:{place}" for number in range(1, messages + 1) for place in (0, 1)] == told.given
    assert told.live.floor is not None
    assert messages == told.live.floor.sequence
    if told.backlog is not None:
        assert told.backlog.until is not None
        assert told.backlog.finished
        assert 0 == told.backlog.lag


def test_a_hook_is_attached_only_when_something_was_finished_since_it_caught_up() -> None:
    found = backlog(start=5, missed=5)
    taken = found.window.add(Message("", b"", sequence=5, at_ns=0))
    record = make_record(
        key="u", data=b"", hook_id=HOOK, source="EVENTS:5:0", counters=HookCounters(lambda: NOW), done=taken
    )
    taken.expect(record)
    taken.close()
    found.dispatched_to = 5

    assert not found.attach()
    record.done(record)
    assert found.attach()
    assert 5 == found.until


def test_hooks_that_move_apart_have_a_backlog_each_with_what_they_had_before_them() -> None:
    found = Backlog(
        key="k",
        target=TARGET,
        behind={"stays": 2, "moves": 2},
        start=3,
        missed=9,
        boundary=EventPosition(6, 0),
        unfinished=[("EVENTS:4:0", "stays"), ("EVENTS:4:0", "moves")],
    )
    right = Target("shop", "right")

    moved = found.split(["moves"], key="k2", target=right, released=[])

    assert ({"stays": 2}, {"moves": 2}) == (found.behind, moved.behind)
    assert (right, 3, 9) == (moved.target, moved.start, moved.missed)
    given = [source for source in ("EVENTS:3:0", "EVENTS:4:0", "EVENTS:6:1") if moved.accepts("moves", source)]
    assert ["EVENTS:4:0", "EVENTS:6:1"] == given
    assert not moved.accepts("stays", "EVENTS:7:0")


def test_a_record_that_was_never_put_is_nowhere() -> None:
    assert BEFORE_ALL == position_of("")
    assert EventPosition(12, 3) == position_of("EVENTS:12:3")
