"""
How many calls to one target may run at once: more while full calls succeed, half as many when one fails.
"""

START = 4
"""Calls at once to a target that nothing is known of."""


class ConcurrencyLimit:
    """
    Additive increase, multiplicative decrease, as TCP does (RFC 5681): one call more for every round of full calls that
    succeed, half of them after a call that failed or was throttled. Calls that began before the last cut do not cut
    again.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._full = 0
        self._cuts = 0
        self.calls = min(START, most)

    def begin(self) -> int:
        """A call begins. Give what this gives to `failed`."""
        return self._cuts

    def succeeded(self, *, full: bool) -> None:
        """A call ended well. One that was not `full` does not ask for another beside it."""
        self._full += full
        if self._full >= self.calls:
            self._full = 0
            self.calls = min(self._most, self.calls + 1)

    def failed(self, begun: int) -> None:
        """A call failed, or was throttled as good as whole."""
        if begun == self._cuts:
            self._cuts += 1
            self._full = 0
            self.calls = max(1, self.calls // 2)
