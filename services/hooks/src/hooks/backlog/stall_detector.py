"""
Which targets hold up a partition, seen from what its window holds. Looks; lets nothing go.
"""

from collections import deque
from collections.abc import Callable

from msgspec import Struct

from hooks.delivery.ack_window import AckWindow
from hooks.delivery.targets import Targets
from hooks.matching.rule import Target
from shared.contracts.subjects import app_of_events


class StallPolicy(Struct, frozen=True, kw_only=True):
    """
    How long a target may hold up others.

    Args:
        after_s: For so long it may hold the floor, or stay behind while others wait for room.
        full_after_s: The same for one that fails while the window is half full already.
        check_s: How often that is looked at.
        checkpoint_s: How often checkpoints are written.
    """

    after_s: float = 5.0
    full_after_s: float = 1.0
    check_s: float = 0.5
    checkpoint_s: float = 1.0


class StallDetector:
    """Asked every now and then. `clock` is monotonic, in seconds."""

    def __init__(
        self, window: AckWindow, targets: Targets, stall_policy: StallPolicy, clock: Callable[[], float]
    ) -> None:
        self._window = window
        self._targets = targets
        self._stall_policy = stall_policy
        self._clock = clock
        self._marks: deque[tuple[float, int]] = deque()
        self._floor_still = (0, 0.0)

    def blocked(self) -> list[Target]:
        """The targets that hold the floor and have had their time."""
        now, stall_policy = self._clock(), self._stall_policy
        oldest, newest = self._window.oldest, self._window.newest
        if oldest is None or newest is None:
            self._marks.clear()
            return []
        floor = oldest.message.sequence
        self._marks.append((now, newest.message.sequence))
        while len(self._marks) > 1 and self._marks[1][0] <= now - stall_policy.after_s:
            self._marks.popleft()
        at, sequence = self._marks[0]
        aged = at <= now - stall_policy.after_s and floor <= sequence
        if self._floor_still[0] != floor:
            self._floor_still = (floor, now)
        still_s = now - self._floor_still[1]
        half_full = self._window.half_full
        if not aged and not (half_full and still_s >= stall_policy.full_after_s):
            return []
        obstructs = aged and half_full and self._targets.several
        return [
            target
            for target, queue in self._targets.queues_of_app(app_of_events(oldest.message.subject))
            if (
                obstructs
                or (queue.failing and (half_full or still_s >= stall_policy.after_s))
                or still_s >= stall_policy.after_s + self._lingers_s(target)
            )
            # Last, because it looks at every record there.
            and queue.contains(lambda record: record.done is oldest)
        ]

    def _lingers_s(self, target: Target) -> float:
        """How long records may wait there for others, because a hook says so. That alone is no trouble."""
        rules = self._targets.index.rules.values()
        return max((rule.hook.batch.linger_ms / 1000 for rule in rules if rule.target == target), default=0.0)
