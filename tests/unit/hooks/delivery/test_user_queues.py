"""Content of one call where hooks share a target and differ in batch settings, and the wait of a record for others."""

from hooks.delivery.model import CallPolicy, SinkLimits
from hooks.matching.hook import BatchSettings
from support.fakes.sink import MemorySink, MemoryTargetQueue

LONG = 60_000


async def test_a_call_keeps_to_the_smallest_settings_of_the_records_in_it() -> None:
    wide, narrow = BatchSettings(linger_ms=0), BatchSettings(linger_ms=0, max_records=3)
    sink = MemorySink()
    async with MemoryTargetQueue(sink) as bench:
        for number in range(10):
            bench.put(f"wide-{number}", batch=wide)
        for number in range(7):
            bench.put(f"narrow-{number}", batch=narrow)
        await bench.wait_finished(17)

    assert [10, 1, 3, 3] == [len(batch) for batch in sink.batches]


async def test_a_call_holds_no_more_bytes_than_its_hook_says() -> None:
    sink = MemorySink()
    async with MemoryTargetQueue(sink) as bench:
        for number in range(6):
            bench.put(f"u{number}", "x" * 28, batch=BatchSettings(linger_ms=0, max_bytes=65))
        bench.put("large", "x" * 99, batch=BatchSettings(linger_ms=0, max_bytes=65))
        await bench.wait_finished(7)

    assert [2, 2, 2, 1] == [len(batch) for batch in sink.batches]


async def test_a_call_begins_when_it_is_full_whatever_the_linger() -> None:
    patient = BatchSettings(linger_ms=LONG, max_records=4)
    sink = MemorySink(limits=SinkLimits(call_records=5, call_bytes=1000, record_bytes=100))
    async with MemoryTargetQueue(sink) as bench:
        for number in range(8):
            bench.put(f"user-{number}", batch=patient)
        await bench.wait_finished(8)

    assert [4, 4] == [len(batch) for batch in sink.batches]


async def test_the_most_impatient_record_takes_the_others_along() -> None:
    sink = MemorySink()
    async with MemoryTargetQueue(sink) as bench:
        bench.put("ann", batch=BatchSettings(linger_ms=LONG))
        bench.put("bob", batch=BatchSettings(linger_ms=0))
        bench.put("cid", batch=BatchSettings(linger_ms=LONG))
        await bench.wait_finished(3)

    assert [3] == [len(batch) for batch in sink.batches]


async def test_what_found_no_call_free_when_its_time_had_come_goes_with_the_next_one() -> None:
    sink = MemorySink(limits=SinkLimits(call_records=2, call_bytes=1000, record_bytes=100))
    sink.gate.clear()
    async with MemoryTargetQueue(sink, CallPolicy(calls=2)) as bench:
        for number in range(5):
            bench.put(f"user-{number}", batch=BatchSettings(linger_ms=0 if number < 4 else LONG, max_records=2))
        await bench.turn(5)
        bench.put("late", batch=BatchSettings(linger_ms=LONG))
        sink.gate.set()
        await bench.wait_finished(6)

    assert [2, 2, 2] == [len(batch) for batch in sink.batches]


async def test_drain_does_not_wait_for_company() -> None:
    sink = MemorySink()
    async with MemoryTargetQueue(sink) as bench:
        for _ in range(3):
            bench.put("ann", batch=BatchSettings(linger_ms=LONG))
        await bench.queue.drain()

    assert 3 == len(bench.finished)
