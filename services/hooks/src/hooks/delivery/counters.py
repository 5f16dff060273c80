"""
Counts of each hook's records since this process began: in memory, for the status route and for Prometheus.

A scrape reads them, so the series grow with the present hooks and not with all that ever were. Alarms need only the
series of the service itself, which are few (`shared.runtime.telemetry`).
"""

from collections.abc import Callable, Collection, Mapping
from datetime import datetime


class HookCounters:
    """
    One hook's counts. `matched` = `sent` + `dead_lettered` + `skipped_inactive` + those in flight: a record that is
    given up unsent, because its partition goes to another replica or its target is detached, is taken back from
    `matched`. `failed` counts attempts, so a record that is confirmed at the third one counts twice here. `replayed`
    are dead letters that were confirmed later; no other count has them.
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
        """Count a failed attempt at one record."""
        self.failed += 1
        self.last_error = message
        self.last_error_at = self._clock()


class DeliveryCounters:
    """The counters of all hooks, each made at its first use."""

    def __init__(self, clock: Callable[[], datetime]) -> None:
        self._clock = clock
        self._by_hook: dict[tuple[str, str], HookCounters] = {}

    def of(self, app_key: str, hook_id: str) -> HookCounters:
        """The counters of a hook."""
        counters = self._by_hook.get((app_key, hook_id))
        if counters is None:
            counters = self._by_hook[app_key, hook_id] = HookCounters(self._clock)
        return counters

    def all(self) -> Mapping[tuple[str, str], HookCounters]:
        """The counters of every hook, by app and id."""
        return self._by_hook

    def retain_only(self, hooks: Collection[tuple[str, str]]) -> None:
        """Forget every hook but these, each an app key and an id."""
        for key in [key for key in self._by_hook if key not in hooks]:
            del self._by_hook[key]
