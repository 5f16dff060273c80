"""
Routing of an event to the reader that delivers it to a hook: the partition's, or the backlog's of a detached hook.
"""

from hooks.backlog.backlog import Backlog
from hooks.matching.rule import Rule
from shared.runtime.telemetry import Metrics


class ReaderRouting:
    """The routing of one partition. `hooks.backlog.detachment` changes it."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self.by_hook: dict[tuple[str, str], Backlog] = {}
        """Backlogs of detached hooks, by app and id. Without any, the partition's reader delivers everything."""

    def accepts(self, rule: Rule, source: str, backlog: Backlog | None) -> bool:
        """Return whether a reader, the partition's or a backlog's, queues the record of this event."""
        if backlog is not None:
            return backlog.accepts(rule.hook_id, source)
        detached = self.by_hook.get((rule.app_key, rule.hook_id))
        if detached is None:
            return True
        sequence = int(source.split(":")[1])
        if detached.until is not None and sequence > detached.until:
            del self.by_hook[rule.app_key, rule.hook_id]
            return True
        detached.record_skipped(rule.hook_id, sequence)
        self._metrics.count("millrace_hooks_events_total", outcome="behind")
        return False
