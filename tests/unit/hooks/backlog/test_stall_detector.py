"""Time limit of a target that holds a partition's floor."""

import pytest

from hooks.backlog.stall_detector import StallDetector, StallPolicy
from hooks.delivery.ack_window import AckWindow, Bounds
from hooks.delivery.counters import HookCounters
from hooks.delivery.model import CallPolicy
from hooks.delivery.targets import ActiveConnector, Targets
from hooks.matching.hook import BatchSettings, Hook
from hooks.matching.rule import HookIndex, Rule, Target
from shared.messaging.message import Message
from shared.runtime.telemetry import Metrics
from support.fakes.sink import NOW, MemorySink, RecordingDeadLetters, RecordingObserver, make_record

TARGET = Target("shop", "orders")


@pytest.mark.parametrize(
    ("linger_ms", "after_s", "blocked"),
    [(20, 4.9, []), (20, 5.1, [TARGET]), (10_000, 14.9, []), (10_000, 15.1, [TARGET])],
)
async def test_a_silent_target_is_blocked_when_its_time_is_over_and_its_records_need_not_linger(
    linger_ms: int, after_s: float, blocked: list[Target]
) -> None:
    sink = MemorySink()
    sink.gate.clear()
    now = 100.0
    batch = BatchSettings(linger_ms=linger_ms)
    hook = Hook(name="all", stream_name="orders", trigger_type="EVENT", event_code="*", batch=batch)
    rule = Rule(app_key="shop", hook_id="all", revision=1, hook=hook)
    async with Targets(
        CallPolicy(), observer=RecordingObserver(), dead_letters=RecordingDeadLetters(), metrics=Metrics()
    ) as targets:
        targets.apply(HookIndex([rule]), {rule.target: ActiveConnector(revision=1, open=lambda _: sink)})
        window = AckWindow(Bounds())
        stalls = StallDetector(window, targets, StallPolicy(), lambda: now)
        taken = window.add(Message("events.shop.0", b"", sequence=1, at_ns=0))
        record = make_record(
            key="ann",
            data=b"{}",
            hook_id="all",
            source="s",
            counters=HookCounters(lambda: NOW),
            done=taken,
            batch=batch,
        )
        taken.expect(record)
        taken.close()
        queue = targets.find(TARGET)
        assert queue is not None
        queue.put(record)
        assert [] == stalls.blocked()

        now += after_s

        assert blocked == stalls.blocked()
