"""Several events of a user in one record: the records that reach the sink, and the split of a pack that fails."""

import json
from collections.abc import Sequence

import pytest

from hooks.delivery.model import Failed, Outcome, Record, SinkLimits
from hooks.matching.hook import BatchSettings
from shared.errors import InvalidError, UnavailableError
from support.fakes.sink import MemorySink, MemoryTargetQueue, store_all

ARRAY = BatchSettings(linger_ms=0, format="json_array")
LINES = BatchSettings(linger_ms=0, format="ndjson")


def data(sink: MemorySink) -> list[bytes]:
    return [record.data for record in sink.stored]


@pytest.mark.parametrize(("batch", "wanted"), [(ARRAY, b"[1,2,3]"), (LINES, b"1\n2\n3\n")])
async def test_what_waits_for_a_user_goes_as_one_record(batch: BatchSettings, wanted: bytes) -> None:
    sink = MemorySink()
    async with MemoryTargetQueue(sink) as bench:
        records = [bench.put("ann", str(number), batch=batch) for number in (1, 2, 3)]
        await bench.wait_finished(3)

    assert [wanted] == data(sink)
    assert records == bench.finished
    assert (3, 3) == (bench.counters.sent, sink.stored[0].events)
    assert b'millrace_hooks_records_total{outcome="sent",stream="orders"} 3.0' in bench.metrics.render()


@pytest.mark.parametrize(("batch", "wanted"), [(ARRAY, b"[1]"), (LINES, b"1\n")])
async def test_a_single_event_has_the_same_form(batch: BatchSettings, wanted: bytes) -> None:
    sink = MemorySink()
    async with MemoryTargetQueue(sink) as bench:
        record = bench.put("ann", "1", batch=batch)
        await bench.wait_finished(1)

    assert [wanted] == data(sink)
    assert [record.size] == [stored.size for stored in sink.stored]


async def test_users_and_hooks_are_not_mixed_in_a_record() -> None:
    sink = MemorySink()
    async with MemoryTargetQueue(sink) as bench:
        for number in range(3):
            bench.put("ann", f'"a{number}"', batch=ARRAY)
            bench.put("bob", f'"b{number}"', batch=ARRAY)
        bench.put("ann", '"other"', batch=ARRAY, hook_id="other")
        bench.put("ann", '"last"', batch=ARRAY)
        bench.put("ann", "lines", batch=LINES)
        await bench.wait_finished(9)

    assert [b'["a0","a1","a2"]', b'["b0","b1","b2"]', b'["other"]', b'["last"]', b"lines\n"] == data(sink)


async def test_a_pack_holds_no_more_than_a_record_may() -> None:
    sink = MemorySink(limits=SinkLimits(call_records=500, call_bytes=1000, record_bytes=25))
    async with MemoryTargetQueue(sink) as bench:
        for number in range(10, 20):
            bench.put("ann", str(number), batch=LINES)
        await bench.wait_finished(10)

    assert [b"10\n11\n12\n13\n14\n15\n16\n", b"17\n18\n19\n"] == data(sink)
    assert 24 == sink.stored[0].size


async def test_what_arrives_later_goes_behind_the_pack_under_way() -> None:
    sink = MemorySink()
    sink.gate.clear()
    async with MemoryTargetQueue(sink) as bench:
        bench.put("ann", "1", batch=LINES)
        bench.put("ann", "2", batch=LINES)
        await bench.wait(lambda: bool(sink.batches))
        bench.put("ann", "3", batch=LINES)
        bench.put("ann", "4", batch=LINES)
        sink.gate.set()
        await bench.wait_finished(4)

    assert [b"1\n2\n", b"3\n4\n"] == data(sink)


async def test_a_pack_goes_again_as_it_was() -> None:
    def silent(sink: MemorySink, batch: Sequence[Record]) -> Sequence[Outcome]:
        store_all(sink, batch)
        bench.put("ann", "3", batch=LINES)
        raise UnavailableError("timeout")

    sink = MemorySink(silent, lambda sink, batch: [Failed("InternalFailure", "Internal Service Failure")])
    async with MemoryTargetQueue(sink) as bench:
        bench.put("ann", "1", batch=LINES)
        bench.put("ann", "2", batch=LINES)
        await bench.wait_finished(3)

    assert [b"1\n2\n", b"1\n2\n", b"3\n"] == data(sink)


async def test_of_a_refused_pack_only_the_guilty_event_is_put_aside() -> None:
    later = iter(["16", "17"])

    def refuse_poison(sink: MemorySink, batch: Sequence[Record]) -> Sequence[Outcome]:
        for number in later:
            bench.put("ann", number, batch=ARRAY)
        if any(b"13" in record.data for record in batch):
            raise InvalidError("validation failed")
        return store_all(sink, batch)

    sink = MemorySink(*[refuse_poison] * 99)
    async with MemoryTargetQueue(sink) as bench:
        records = [bench.put("ann", str(number), batch=ARRAY) for number in range(10, 16)]
        await bench.wait_finished(8)
        bench.put("ann", "18", batch=ARRAY)
        await bench.wait_finished(9)

    assert [(records[3].source, "rejected")] == bench.letters.put
    assert [10, 11, 12, 14, 15, 16, 17, 18] == [number for record in sink.stored for number in json.loads(record.data)]


async def test_released_records_leave_a_pack_one_by_one() -> None:
    sink = MemorySink()
    sink.gate.clear()
    async with MemoryTargetQueue(sink) as bench:
        records = [bench.put("ann", str(number), batch=LINES) for number in range(3)]
        await bench.wait(lambda: bool(sink.batches))
        records.append(bench.put("ann", "3", batch=LINES))
        released = bench.queue.release(lambda record: record.data != b"1")
        sink.gate.set()
        await bench.wait_finished(1)

    assert [records[0], *records[2:]] == released
    assert [b"1\n"] == data(sink)
