"""The concurrency limit of a target: it grows while full calls succeed, and is halved when one fails."""

START = 4
"""The limit for a target that was not called yet."""


class ConcurrencyLimit:
    """
    Additive increase, multiplicative decrease, as in TCP (RFC 5681). The limit grows by one call for each round of full
    calls that succeed. It is halved after a call that failed or was throttled. Calls that began before the last cut do
    not cut again.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._full = 0
        self._cuts = 0
        self.calls = min(START, most)

    def begin(self) -> int:
        """Begin a call. Returns the mark for `record_failure`."""
        return self._cuts

    def record_success(self, *, full: bool) -> None:
        """Count a call that succeeded. Only `full` ones raise the limit."""
        self._full += full
        if self._full >= self.calls:
            self._full = 0
            self.calls = min(self._most, self.calls + 1)

    def record_failure(self, begun: int) -> None:
        """Halve the limit, because a call failed or most of its records were throttled."""
        if begun == self._cuts:
            self._cuts += 1
            self._full = 0
            self.calls = max(1, self.calls // 2)
