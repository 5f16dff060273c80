"""Metrics of each hook: its counters, and its lag in this replica."""

from collections.abc import Callable, Iterable
from datetime import datetime

from hooks.backlog.reader import BacklogReaders
from hooks.delivery.counters import DeliveryCounters
from hooks.delivery.targets import Targets
from shared.runtime.telemetry import Reading


def read_hooks(
    counters: DeliveryCounters, targets: Targets, backlog_readers: BacklogReaders, clock: Callable[[], datetime]
) -> Iterable[Reading]:
    """The numbers of every hook that has counters in this process."""
    now_s = clock().timestamp()
    waiting = targets.waiting()
    for hook, counted in counters.all().items():
        held = waiting.get(hook)
        behind = backlog_readers.lag_of(*hook) or 0
        yield "millrace_hook_matched_total", hook, counted.matched
        yield "millrace_hook_sent_total", hook, counted.sent
        yield "millrace_hook_failed_total", hook, counted.failed
        yield "millrace_hook_dead_lettered_total", hook, counted.dead_lettered
        yield "millrace_hook_skipped_inactive_total", hook, counted.skipped_inactive
        yield "millrace_hook_lag_events", hook, behind + (held.records if held is not None else 0)
        yield "millrace_hook_lag_seconds", hook, max(0.0, now_s - held.oldest_ns / 1e9) if held is not None else 0.0
