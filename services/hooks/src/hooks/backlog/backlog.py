"""
What the hooks of one target have to catch up in one partition, and which reader gives them which event. Pure.

All events have places in one order, that of `EVENTS`. While hooks are detached the partition's reader passes over their
events and the backlog's own reader gives them; from the sequence `until` on it is the other way round. So the switch
has no moment at which an event could be given twice, or by nobody.
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from hooks.backlog.checkpoints import Checkpoint
from hooks.delivery.ack_window import AckWindow, Bounds
from hooks.delivery.model import Record
from hooks.matching.rule import Target
from shared.messaging.message import Message

BOUNDS = Bounds(records=1024, bytes=1 << 20, messages=4096)
PROBING = Bounds(records=4, bytes=1 << 20, messages=4096)
"""While a target is in trouble: enough to ask whether it still is. Hundreds may be in trouble at once."""


class EventPosition(NamedTuple):
    """Of an event: the sequence of its message in `EVENTS`, and its number in it, from 0."""

    sequence: int
    number: int


BEFORE_ALL = EventPosition(0, -1)
"""Before every event."""


def position_of(source: str) -> EventPosition:
    """Of a record's `source`; an empty one is nowhere."""
    if not source:
        return BEFORE_ALL
    _, sequence, number = source.split(":")
    return EventPosition(int(sequence), int(number))


class Backlog:
    """
    Hooks that are detached together. `behind` counts each one's events that wait, and so names the hooks.

    Args:
        start: The first sequence that may hold something unfinished.
        missed: The newest sequence at which the partition's reader may have passed over an event of theirs.
        boundary: Up to this place only the events in `wanted`, pairs of source and hook, are unfinished.
    """

    def __init__(
        self,
        *,
        key: str,
        target: Target,
        behind: Mapping[str, int],
        start: int,
        missed: int,
        boundary: EventPosition = BEFORE_ALL,
        wanted: Iterable[tuple[str, str]] = (),
        revision: int = 0,
    ) -> None:
        self.key = key
        self.target = target
        self.behind = dict(behind)
        self.missed = missed
        self.boundary = boundary
        self.wanted = set(wanted)
        self.revision = revision
        """Of the entry in the bucket; 0 while there is none."""
        self.written: Checkpoint | None = None
        self.window = AckWindow(BOUNDS)
        self.dispatched_to = start - 1
        """Everything up to this sequence was given to the lanes."""
        self.until: int | None = None
        """Set when the hooks are attached again: the backlog gives up to here, the partition's reader what follows."""
        self.began = start
        self._caught_up_at: int | None = None

    @property
    def start(self) -> int:
        """The first sequence that may hold something unfinished."""
        if self.window.oldest is None:
            return max(self.began, self.dispatched_to + 1)
        return self.window.floor.sequence + 1 if self.window.floor else self.began

    @property
    def finished(self) -> bool:
        """Nothing is left that only this backlog gives."""
        return not self.behind or (self.until is not None and self.window.oldest is None)

    @property
    def lag(self) -> int:
        """Events that wait."""
        return sum(self.behind.values())

    def checkpoint(self, owner: str) -> Checkpoint:
        """What the bucket has to hold."""
        return Checkpoint(
            app_key=self.target.app_key,
            stream_name=self.target.stream_name,
            hooks=dict(self.behind),
            start=self.start,
            owner=owner,
        )

    def hold(self, records: Iterable[Record]) -> None:
        """Records that are in a call finish here from now on: the checkpoint does not move before they have."""
        pending = self.window.add(Message("", b"", sequence=self.began - 1, at_ns=0))
        for record in records:
            finish = record.done
            pending.expect(record)
            record.done = pending
            finish(record)
        pending.close()

    def detach(self, released: Iterable[Record], dispatched: str) -> None:
        """The partition's reader has released its records of the hooks; `dispatched` is the newest event it queued."""
        self.boundary = position_of(dispatched)
        self.missed = self.boundary.sequence
        for record in released:
            self.wanted.add((record.source, record.hook_id))
            self.behind[record.hook_id] += 1

    def passed_over(self, hook_id: str, sequence: int) -> None:
        """The partition's reader has left an event to this backlog."""
        self.missed = max(self.missed, sequence)
        if sequence > self.dispatched_to:
            self.behind[hook_id] += 1
        self.window.notify()

    def accepts(self, hook_id: str, source: str) -> bool:
        """Whether an event that the backlog's reader has come to is still to be given to a hook."""
        if hook_id not in self.behind:
            return False
        position = position_of(source)
        if position <= self.boundary and (source, hook_id) not in self.wanted:
            return False
        self.wanted.discard((source, hook_id))
        if position.sequence <= self.missed:
            # After a restart the count is the last one written, which may be too low.
            self.behind[hook_id] = max(0, self.behind[hook_id] - 1)
        return True

    @property
    def caught_up(self) -> bool:
        """The partition's reader has passed over nothing beyond what was taken here."""
        return self.missed <= self.dispatched_to

    def attach(self) -> bool:
        """
        Give the hooks back to the partition's reader, once it is caught up with, and once everything is finished that
        was taken until then for the first time: a target that is still blocked would only be detached again.
        """
        if self.until is None and self.caught_up:
            if self._caught_up_at is None:
                self._caught_up_at = self.dispatched_to
            if self.start > self._caught_up_at:
                self.until = self.dispatched_to
        return self.until is not None

    def split(self, hooks: Iterable[str], *, key: str, target: Target, released: Iterable[Record]) -> "Backlog":
        """
        Hooks go on with another target, in a backlog of their own.

        `released` are their records that this one held; what it has not come to they still have before them.
        """
        at = position_of(self.window.dispatched)
        behind = {hook_id: self.behind.pop(hook_id) for hook_id in hooks}
        wanted = {(source, hook_id) for source, hook_id in self.wanted if hook_id in behind}
        for record in released:
            wanted.add((record.source, record.hook_id))
            behind[record.hook_id] += 1
        return Backlog(
            key=key,
            target=target,
            behind=behind,
            start=self.start,
            missed=self.missed,
            boundary=max(at, self.boundary),
            wanted=wanted,
        )
