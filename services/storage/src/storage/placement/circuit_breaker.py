"""
The circuit breaker before one provider: after some outages in a row nobody asks it for a while, then one upload tries.
Pure: the clock is passed in.
"""

from collections.abc import Callable
from typing import Final

OUTAGES_TO_OPEN: Final = 3
"""In a row, before the breaker opens: one may be a single bad connection."""

PAUSE_S: Final = 30.0
"""Between the tries while it is open."""


class CircuitBreaker:
    """
    Closed lets everybody through. Open lets nobody through until `pause_s` is over, and then one, who decides.

    Args:
        clock: Monotonic, in seconds.
    """

    def __init__(
        self, clock: Callable[[], float], *, outages_to_open: int = OUTAGES_TO_OPEN, pause_s: float = PAUSE_S
    ) -> None:
        self._clock = clock
        self._outages_to_open = outages_to_open
        self._pause_s = pause_s
        self._outages = 0
        self._try_at: float | None = None

    @property
    def wait_s(self) -> float:
        """Seconds until the next try; 0 while the breaker is closed."""
        return max(0.0, self._try_at - self._clock()) if self._try_at is not None else 0.0

    def allow_request(self) -> bool:
        """Whether the caller may try. While it does, an open breaker lets nobody else through for another pause."""
        if self._try_at is None:
            return True
        if self._clock() < self._try_at:
            return False
        self._try_at = self._clock() + self._pause_s
        return True

    def record_failure(self) -> None:
        """The provider is in trouble."""
        self._outages += 1
        if self._outages >= self._outages_to_open:
            self._try_at = self._clock() + self._pause_s

    def record_answer(self) -> None:
        """The provider is not in trouble, whatever it said."""
        self._outages = 0
        self._try_at = None
