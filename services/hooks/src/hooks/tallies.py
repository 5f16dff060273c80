"""
What has become of each hook's records since this process began: in memory, for the status route.

Prometheus has the totals of the service, and of the lag the slowest hook's alone: that is what an alarm needs, and who
it is the status routes tell. A label per hook would make every scrape, and the memory of whoever scrapes, grow with the
customers and with each hook they ever made.
"""

from collections.abc import Callable, Collection
from datetime import datetime


class Tally:
    """
    One hook's counts. `matched` = `sent` + `dead_lettered` + `skipped_inactive` + what is on its way; `failed` counts
    attempts, so a record that went through at the third try counts twice here. `replayed` are dead letters that went
    through later, beside all that.
    """

    __slots__ = (
        "_clock",
        "dead_lettered",
        "failed",
        "last_error",
        "last_error_at",
        "matched",
        "replayed",
        "sent",
        "skipped_inactive",
    )

    def __init__(self, clock: Callable[[], datetime]) -> None:
        self._clock = clock
        self.matched = 0
        self.sent = 0
        self.failed = 0
        self.dead_lettered = 0
        self.skipped_inactive = 0
        self.replayed = 0
        self.last_error: str | None = None
        self.last_error_at: datetime | None = None

    def fail(self, message: str) -> None:
        """One attempt at one record failed."""
        self.failed += 1
        self.last_error = message
        self.last_error_at = self._clock()


class Tallies:
    """Every hook's tally, made at first sight."""

    def __init__(self, clock: Callable[[], datetime]) -> None:
        self._clock = clock
        self._tallies: dict[tuple[str, str], Tally] = {}

    def of(self, app_key: str, hook_id: str) -> Tally:
        """The tally of a hook."""
        tally = self._tallies.get((app_key, hook_id))
        if tally is None:
            tally = self._tallies[app_key, hook_id] = Tally(self._clock)
        return tally

    def keep(self, hooks: Collection[tuple[str, str]]) -> None:
        """Forget every hook but these, each an app's key and an id."""
        for key in [key for key in self._tallies if key not in hooks]:
            del self._tallies[key]
