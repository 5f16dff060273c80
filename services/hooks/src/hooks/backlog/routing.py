"""
Which reader of a partition gives a hook its events: the partition's own, or that of the backlog it is detached by.
"""

from hooks.backlog.backlog import Backlog
from hooks.matching.rule import Rule
from shared.runtime.telemetry import Metrics


class ReaderRouting:
    """Of one partition. `detached.py` turns it."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self.by_hook: dict[tuple[str, str], Backlog] = {}
        """The backlogs that hooks have here, by app and id. Without any, the partition's reader gives everything."""

    def accepts(self, rule: Rule, source: str, backlog: Backlog | None) -> bool:
        """Whether a reader, the partition's or a backlog's, puts the record of this event into the lanes."""
        if backlog is not None:
            return backlog.accepts(rule.hook_id, source)
        detached = self.by_hook.get((rule.app_key, rule.hook_id))
        if detached is None:
            return True
        sequence = int(source.split(":")[1])
        if detached.until is not None and sequence > detached.until:
            del self.by_hook[rule.app_key, rule.hook_id]
            return True
        detached.passed_over(rule.hook_id, sequence)
        self._metrics.count("millrace_hooks_events_total", outcome="behind")
        return False
