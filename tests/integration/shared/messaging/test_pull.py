"""Reading streams on a real server: order, the ack floor, and servers that go away."""

import asyncio
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from datetime import UTC, datetime

import pytest

from millrace.nats_servers.server import NatsServer
from shared.contracts.streams import CONFIG, PUSH
from shared.messaging.bus import Bus
from shared.messaging.consumer_state import consumer_state
from shared.messaging.consumers import open_pull, open_scan
from shared.messaging.message import Message
from shared.messaging.provisioning.making import ensure
from shared.messaging.pull import ClosedError, Pull
from shared.runtime.settings import Settings
from support.run_service import PUSH_READER
from support.waiting import until

SUBJECT = "push.send.shop.f1"


async def publish(bus: Bus, first: int, last: int, subject: str = SUBJECT) -> None:
    await asyncio.gather(*(bus.publish(subject, b"%d" % n, timeout_s=30) for n in range(first, last + 1)))


async def read(pull: Pull, count: int) -> list[Message]:
    found: list[Message] = []
    async with asyncio.timeout(30):
        while len(found) < count:
            found += await pull.next(count - len(found))
    return found


def sequences(messages: list[Message]) -> list[int]:
    return [message.sequence for message in messages]


def durable(bus: Bus, capacity: int = 512) -> AbstractAsyncContextManager[Pull]:
    return open_pull(bus, PUSH_READER, capacity=capacity)


async def test_a_pull_hands_out_everything_in_order(push: Bus) -> None:
    await publish(push, 1, 2000)

    async with durable(push, capacity=64) as pull:
        messages = await read(pull, 2000)

    assert sequences(messages) == list(range(1, 2001))
    assert messages[-1].pending == 0


async def test_a_subject_that_is_no_utf8_stops_nothing(push: Bus) -> None:
    """The server takes any bytes for a subject."""
    await push.client._send_command(b"PUB push.send.shop.\xff 1\r\n0\r\n")
    await publish(push, 1, 1)

    async with durable(push) as pull:
        messages = await read(pull, 2)

    assert ["push.send.shop.\ufffd", SUBJECT] == [message.subject for message in messages]


async def test_a_pull_waits_for_what_comes_later(push: Bus) -> None:
    async with durable(push) as pull, asyncio.TaskGroup() as tasks:
        reading = tasks.create_task(read(pull, 3))
        await publish(push, 1, 3)
        messages = await reading

    assert sequences(messages) == [1, 2, 3]


async def test_reopening_begins_at_the_ack_floor_at_once(push: Bus) -> None:
    await publish(push, 1, 10)
    async with durable(push) as pull:
        messages = await read(pull, 10)
        await pull.ack_sync(messages[3])

    async with durable(push) as pull:
        again = await read(pull, 6)

    assert sequences(again) == [5, 6, 7, 8, 9, 10]


async def test_an_ack_covers_everything_before_it(push: Bus) -> None:
    await publish(push, 1, 5)
    async with durable(push) as pull:
        await pull.ack_sync((await read(pull, 5))[-1])
    await publish(push, 6, 6)

    async with durable(push) as pull:
        assert sequences(await read(pull, 1)) == [6]


async def test_nothing_is_lost_or_repeated_when_the_server_is_killed(push: Bus, nats_server: NatsServer) -> None:
    await publish(push, 1, 300)
    async with durable(push, capacity=32) as pull:
        before = await read(pull, 150)
        await pull.ack_sync(before[99])
        await nats_server.kill()
        await nats_server.restart()
        after = await read(pull, 150)
        await publish(push, 301, 310)
        later = await read(pull, 10)

    assert sequences(before + after + later) == list(range(1, 311))


async def test_next_ends_when_the_pull_is_closed(push: Bus) -> None:
    async with durable(push) as pull, asyncio.TaskGroup() as tasks:
        waiting = tasks.create_task(expect_closed(pull))
        await asyncio.sleep(0)
        pull.close()
        await waiting


async def expect_closed(pull: Pull) -> None:
    with pytest.raises(ClosedError):
        await pull.next(1)


async def test_a_scan_begins_at_the_start_sequence_and_leaves_no_consumer(push: Bus) -> None:
    before = (await push.js.stream_info(PUSH.name)).state.consumer_count
    await publish(push, 1, 20)

    async with open_scan(push, PUSH, subject=SUBJECT, start_sequence=15) as scan:
        assert scan.pending_at_open == 6
        messages = await read(scan, 6)

    assert sequences(messages) == [15, 16, 17, 18, 19, 20]
    assert (await push.js.stream_info(PUSH.name)).state.consumer_count == before


async def test_a_scan_reads_on_after_the_server_was_killed(push: Bus, nats_server: NatsServer) -> None:
    await publish(push, 1, 100)
    async with open_scan(push, PUSH, subject=SUBJECT, capacity=16) as scan:
        before = await read(scan, 40)
        await nats_server.kill()
        await nats_server.restart()
        after = await read(scan, 60)

    assert sequences(before + after) == list(range(1, 101))


async def test_a_scan_of_last_values_yields_one_for_each_subject(bus: Bus, settings: Settings) -> None:
    await ensure(bus, CONFIG, settings)
    for key in ("hooks.shop.a", "hooks.shop.b", "hooks.shop.a"):
        await bus.publish(f"$KV.CONFIG.{key}", b"{}")

    async with open_scan(bus, CONFIG, subject="$KV.CONFIG.hooks.*.*", last_per_subject=True) as scan:
        messages = await read(scan, 2)

    assert sorted(sequences(messages)) == [2, 3]


async def test_what_was_read_before_a_restart_is_acknowledged_after_it(push: Bus, nats_server: NatsServer) -> None:
    await publish(push, 1, 100)
    async with durable(push) as pull:
        before = await read(pull, 100)
        await pull.ack_sync(before[49])
        await nats_server.restart()
        await publish(push, 101, 110)
        after = await read(pull, 10)
        await pull.ack_sync(before[99])
        await pull.ack_sync(after[4])

    async with durable(push) as pull:
        assert sequences(await read(pull, 5)) == [106, 107, 108, 109, 110]


async def test_an_ack_that_a_kill_lost_is_sent_again(push: Bus, nats_server: NatsServer) -> None:
    await publish(push, 1, 10)
    async with durable(push) as pull:
        before = await read(pull, 10)
        await nats_server.kill()
        await pull.ack(before[9])
        await nats_server.restart()
        await publish(push, 11, 11)
        await read(pull, 1)

    async with durable(push) as pull:
        assert sequences(await read(pull, 1)) == [11]


async def test_a_scan_begins_at_a_time_and_continues_after_its_last_message(push: Bus) -> None:
    await publish(push, 1, 5)
    middle = datetime.now(UTC)
    await publish(push, 6, 12)

    async with open_scan(push, PUSH, subject=SUBJECT, start_at=middle, capacity=4) as scan:
        before = await read(scan, 3)
        for callback in push.reconnected:
            callback()
        after = await read(scan, 4)

    assert list(range(6, 13)) == sequences(before + after)


async def floor(bus: Bus) -> tuple[int, int]:
    """The ack floor, and how many messages are above it."""
    state = await consumer_state(bus, PUSH.name, "test")
    return state.floor, state.pending


async def test_acks_count_again_after_a_late_ack_of_an_earlier_reader(push: Bus) -> None:
    await publish(push, 1, 100)
    async with durable(push) as pull:
        earlier = await read(pull, 100)
        await pull.ack_sync(earlier[39])
    async with durable(push) as pull:
        messages = await read(pull, 60)
        await push.client.request(earlier[79].reply, b"+ACK")
        await pull.ack_sync(messages[-1])
        assert (80, 20) == await floor(push), "the ack was not passed over, so there is nothing to mend"

        await pull.check()
        async with asyncio.TaskGroup() as tasks:
            reading = tasks.create_task(read(pull, 1))
            await publish(push, 101, 101)
            assert [101] == sequences(await reading)
        await pull.ack_sync(messages[-1])

        assert (100, 1) == await floor(push)


async def test_messages_sent_to_an_earlier_reader_are_requested_again(push: Bus) -> None:
    await publish(push, 1, 10)
    async with AsyncExitStack() as frozen:
        await read(await frozen.enter_async_context(durable(push)), 10)
        async with durable(push) as pull:
            assert 10 == await delivered(push), "nothing went astray, so there is nothing to mend"
            await frozen.aclose()
            async with asyncio.TaskGroup() as tasks:
                reading = tasks.create_task(read(pull, 10))

                async def is_read() -> bool:
                    await pull.check()
                    return reading.done()

                await until(is_read)

        assert list(range(1, 11)) == sequences(reading.result())


async def delivered(bus: Bus) -> int:
    """Messages that went out since the last reset, to whomever."""
    return (await consumer_state(bus, PUSH.name, "test")).delivered
