"""Detection of targets that hold up a partition, from its ack window. Detects only; detaches nothing."""

from collections import deque
from collections.abc import Callable

from msgspec import Struct

from hooks.delivery.ack_window import AckWindow
from hooks.delivery.targets import Targets
from hooks.matching.rule import Target
from shared.contracts.subjects import app_of_events


class StallPolicy(Struct, frozen=True, kw_only=True):
    """
    The time for which a target may hold up others.

    Args:
        after_s: Time for which a target may hold the ack floor, or stay behind while others wait for room.
        full_after_s: The same for a target that fails while the ack window is half full.
        check_s: Interval of the checks.
        checkpoint_s: Interval at which checkpoints are written.
    """

    after_s: float = 5.0
    full_after_s: float = 1.0
    check_s: float = 0.5
    checkpoint_s: float = 1.0


class StallDetector:
    """The detector of one partition, called at intervals. `clock` is monotonic, in seconds."""

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
        """The targets that have held the ack floor for too long."""
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
            # Last, because it reads every record of the queue.
            and queue.contains(lambda record: record.done is oldest)
        ]

    def _lingers_s(self, target: Target) -> float:
        """Time for which records may linger there by the batching of a hook, which is no failure."""
        rules = self._targets.index.of_app(target.app_key).rules.values()
        return max((rule.hook.batch.linger_ms / 1000 for rule in rules if rule.target == target), default=0.0)
