"""
The backlog of a target's hooks in one partition, and which reader delivers which event to them. Pure.

Events have positions in one order, that of `EVENTS`. While hooks are detached the partition's reader skips their events
and the backlog's own reader delivers them. After the sequence `until` it is the other way round. So no event is
delivered by both readers, or by neither.
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
"""The ack window while a target fails: enough to probe it. Hundreds may fail at once."""


class EventPosition(NamedTuple):
    """Position of an event: the sequence of its message in `EVENTS`, and its number in the message, from 0."""

    sequence: int
    number: int


BEFORE_ALL = EventPosition(0, -1)
"""The position before every event."""


def position_of(source: str) -> EventPosition:
    """Parse a record's `source`; an empty one is before all."""
    if not source:
        return BEFORE_ALL
    _, sequence, number = source.split(":")
    return EventPosition(int(sequence), int(number))


class Backlog:
    """
    Hooks that are detached together. `behind` counts the waiting events of each hook, and so names the hooks.

    Args:
        start: The first sequence that may hold something unfinished.
        missed: The newest sequence at which the partition's reader may have skipped an event of theirs.
        boundary: Up to this position only the events in `unfinished`, pairs of source and hook, remain.
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
        unfinished: Iterable[tuple[str, str]] = (),
        revision: int = 0,
    ) -> None:
        self.key = key
        self.target = target
        self.behind = dict(behind)
        self.missed = missed
        self.boundary = boundary
        self.unfinished = set(unfinished)
        self.revision = revision
        """Revision of the checkpoint in the bucket; 0 while there is none."""
        self.written: Checkpoint | None = None
        self.window = AckWindow(BOUNDS)
        self.dispatched_to = start - 1
        """Sequence up to which all events were put into the target's queue."""
        self.until: int | None = None
        """Set when the hooks are attached again: the last sequence that the backlog delivers."""
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
        """Return whether nothing is left that only this backlog delivers."""
        return not self.behind or (self.until is not None and self.window.oldest is None)

    @property
    def lag(self) -> int:
        """Number of waiting events."""
        return sum(self.behind.values())

    def checkpoint(self, owner: str) -> Checkpoint:
        """Build the checkpoint that has to be stored."""
        return Checkpoint(
            app_key=self.target.app_key,
            stream_name=self.target.stream_name,
            hooks=dict(self.behind),
            start=self.start,
            owner=owner,
        )

    def add_in_flight(self, records: Iterable[Record]) -> None:
        """Add records in flight: the checkpoint does not move before they are finished."""
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
            self.unfinished.add((record.source, record.hook_id))
            self.behind[record.hook_id] += 1

    def record_skipped(self, hook_id: str, sequence: int) -> None:
        """Record an event that the partition's reader skipped."""
        self.missed = max(self.missed, sequence)
        if sequence > self.dispatched_to:
            self.behind[hook_id] += 1
        self.window.notify()

    def accepts(self, hook_id: str, source: str) -> bool:
        """Return whether an event that the backlog's reader has reached is still to be delivered to a hook."""
        if hook_id not in self.behind:
            return False
        position = position_of(source)
        if position <= self.boundary and (source, hook_id) not in self.unfinished:
            return False
        self.unfinished.discard((source, hook_id))
        if position.sequence <= self.missed:
            # After a restart the count is the last one written, which may be too low.
            self.behind[hook_id] = max(0, self.behind[hook_id] - 1)
        return True

    @property
    def caught_up(self) -> bool:
        """Return whether the partition's reader has skipped nothing beyond what was queued here."""
        return self.missed <= self.dispatched_to

    def attach(self) -> bool:
        """
        Return the hooks to the partition's reader, and whether that is done. It waits until the backlog has caught up
        and everything up to that sequence is finished: a target that is still blocked would only be detached again.
        """
        if self.until is None and self.caught_up:
            if self._caught_up_at is None:
                self._caught_up_at = self.dispatched_to
            if self.start > self._caught_up_at:
                self.until = self.dispatched_to
        return self.until is not None

    def split(self, hooks: Iterable[str], *, key: str, target: Target, released: Iterable[Record]) -> "Backlog":
        """
        Move hooks to another target, in a backlog of their own.

        `released` are their records that this backlog held; events that it has not reached remain before them.
        """
        at = position_of(self.window.dispatched)
        behind = {hook_id: self.behind.pop(hook_id) for hook_id in hooks}
        unfinished = {(source, hook_id) for source, hook_id in self.unfinished if hook_id in behind}
        for record in released:
            unfinished.add((record.source, record.hook_id))
            behind[record.hook_id] += 1
        return Backlog(
            key=key,
            target=target,
            behind=behind,
            start=self.start,
            missed=self.missed,
            boundary=max(at, self.boundary),
            unfinished=unfinished,
        )
