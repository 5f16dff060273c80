"""The health of a target: its failure, the time of its next call, and the report of its pauses to operators."""

from collections.abc import Callable
from itertools import islice
from typing import Final

import structlog

from hooks.delivery.model import PAUSING, CallPolicy, DeliveryObserver
from hooks.matching.rule import Target
from shared.errors import MillraceError
from shared.runtime.retry import Backoff

log = structlog.get_logger()

REJECTED_IN_A_ROW: Final = 5
"""Dead letters without a stored record between them, at which an operator is told."""


class TargetHealth:
    """
    The health of one target. `clock` is monotonic, in seconds. Moves no record.

    A pause is reported once, and again only when it outlasts a change of configuration.
    """

    def __init__(
        self, target: Target, policy: CallPolicy, observer: DeliveryObserver, clock: Callable[[], float]
    ) -> None:
        self._target = target
        self._policy = policy
        self._observer = observer
        self._clock = clock
        self._failures = 0
        self._resume_at = 0.0
        self._reported = False
        self._paused = False
        self._rejected = 0
        self.error: MillraceError | None = None
        """The failure that stops delivery; None while the target answers."""

    def record_failure(self, error: MillraceError) -> None:
        """Record a call that failed as a whole."""
        if self.wait_s > 0:
            return  # It ran beside the one that failed first.
        pausing = isinstance(error, PAUSING)
        self._failures += 1
        delay_s = wait_s(self._policy.probe if pausing else self._policy.retry, self._failures)
        delay_s = max(delay_s, error.retry_after_s or 0.0)
        self._resume_at = self._clock() + delay_s
        self.error = error
        log.warning(
            "target_call_failed",
            app_key=self._target.app_key,
            stream_name=self._target.stream_name,
            code=error.code,
            message=error.message,
            wait_s=round(delay_s, 3),
        )
        if pausing and not self._reported:
            self._reported = self._paused = True
            self._observer.paused(self._target, error)

    def record_rejection(self, message: str) -> None:
        """Record a record that became a dead letter. Several in a row are reported once, until one is stored."""
        self._rejected += 1
        if self._rejected == REJECTED_IN_A_ROW:
            self._observer.rejects(self._target, message)

    def record_answer(self) -> None:
        """Record a call of which a record was stored."""
        self._rejected = 0
        if self.error is not None:
            self._forget()
        if self._paused:
            self._reported = self._paused = False
            self._observer.resumed(self._target)

    def reset(self) -> None:
        """Forget the failure, because the configuration changed."""
        self._reported = False
        self._forget()

    @property
    def wait_s(self) -> float:
        """Seconds until the next call; 0 or less when it may go now."""
        return self._resume_at - self._clock()

    def _forget(self) -> None:
        self._failures = 0
        self._resume_at = 0.0
        self.error = None


def wait_s(backoff: Backoff, attempt: int) -> float:
    """The wait after the `attempt`-th failure, counted from 1. From the 16th on it does not grow."""
    return next(islice(backoff.delays(), min(attempt, 16) - 1, None))
