"""
What Prometheus reads of each hook: its tally, and how far it is behind in this replica.
"""

from collections.abc import Callable, Iterable
from datetime import datetime

from hooks.backlog.reader import BacklogReaders
from hooks.delivery.counters import DeliveryCounters
from hooks.delivery.targets import Targets
from shared.runtime.telemetry import Reading


def read_hooks(
    tallies: DeliveryCounters, destinations: Targets, catch_ups: BacklogReaders, clock: Callable[[], datetime]
) -> Iterable[Reading]:
    """The numbers of every hook for which an event has come since this process began."""
    now_s = clock().timestamp()
    waiting = destinations.waiting()
    for hook, tally in tallies.all().items():
        held = waiting.get(hook)
        behind = catch_ups.lag_of(*hook) or 0
        yield "millrace_hook_matched_total", hook, tally.matched
        yield "millrace_hook_sent_total", hook, tally.sent
        yield "millrace_hook_failed_total", hook, tally.failed
        yield "millrace_hook_dead_lettered_total", hook, tally.dead_lettered
        yield "millrace_hook_skipped_inactive_total", hook, tally.skipped_inactive
        yield "millrace_hook_lag_events", hook, behind + (held.records if held is not None else 0)
        yield "millrace_hook_lag_seconds", hook, max(0.0, now_s - held.oldest_ns / 1e9) if held is not None else 0.0
