"""
The circuit breaker of one provider: after some outages in a row it pauses requests, then lets one upload try. Pure:
the clock is passed in.
"""

from collections.abc import Callable
from typing import Final

OUTAGES_TO_OPEN: Final = 3
"""Consecutive outages that open the breaker: one may be a single bad connection."""

PAUSE_S: Final = 30.0
"""The pause between two tries while it is open."""


class CircuitBreaker:
    """
    A closed breaker allows every request. An open one allows one request each `pause_s`, whose outcome decides.

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
        """Return whether the caller may try. An open breaker then allows no other request for another pause."""
        if self._try_at is None:
            return True
        if self._clock() < self._try_at:
            return False
        self._try_at = self._clock() + self._pause_s
        return True

    def record_failure(self) -> None:
        """Count an outage of the provider."""
        self._outages += 1
        if self._outages >= self._outages_to_open:
            self._try_at = self._clock() + self._pause_s

    def record_answer(self) -> None:
        """Close the breaker: the provider answered, with success or a refusal."""
        self._outages = 0
        self._try_at = None
