"""Room in the streams of rows: chunks that were read make place for new ones, and nothing else does."""

import asyncio
from contextlib import AsyncExitStack

import msgspec
import pytest

from ftp_gateway.processing import publisher, stream_room
from ftp_gateway.processing.publisher import UPLOAD_ID
from ftp_gateway.processing.stream_room import StreamRoom
from shared.contracts import streams, subjects
from shared.contracts.consumers import PUSH_ENGINE_READER
from shared.contracts.messages import PushBatch, decode
from shared.messaging.bus import Bus
from shared.messaging.consumers import open_pull
from shared.messaging.provisioning.making import ensure, ensure_consumer
from shared.runtime.retry import Backoff
from shared.runtime.settings import Settings
from support.clients.ftp_gateway import StartGateway, events, write
from support.stored_messages import messages
from support.waiting import until

LIMIT = 1 << 20
CHUNK = b"x" * 100_000


@pytest.fixture
async def push(bus: Bus, settings: Settings) -> None:
    await ensure(bus, streams.PUSH, msgspec.structs.replace(settings, stream_max_bytes=f"PUSH={LIMIT}"))
    await ensure_consumer(bus, PUSH_ENGINE_READER)


async def publish(bus: Bus, file_id: str, count: int) -> None:
    for _ in range(count):
        await bus.publish(subjects.push_send("shop", file_id), CHUNK, headers={UPLOAD_ID: f"upload-{file_id}"})


async def acknowledge(bus: Bus, count: int) -> None:
    async with open_pull(bus, PUSH_ENGINE_READER) as pull:
        left = count
        while left:
            batch = await pull.next(left)
            left -= len(batch)
            await pull.ack(batch[-1])


async def kept(bus: Bus, file_id: str) -> list[int]:
    return [message.sequence for message in await messages(bus, streams.PUSH, subjects.push_send("shop", file_id))]


@pytest.mark.usefixtures("push")
async def test_chunks_that_were_read_are_deleted_but_the_last_of_each_file(bus: Bus) -> None:
    await publish(bus, "first", 4)
    await publish(bus, "second", 4)
    await acknowledge(bus, 6)

    deleted = await StreamRoom(bus, frozenset).make(PUSH_ENGINE_READER)

    assert (5, [4], [7, 8]) == (deleted, await kept(bus, "first"), await kept(bus, "second"))


@pytest.mark.usefixtures("push")
async def test_a_stream_below_half_of_its_limit_keeps_all(bus: Bus) -> None:
    await publish(bus, "first", 4)
    await acknowledge(bus, 4)

    assert 0 == await StreamRoom(bus, frozenset).make(PUSH_ENGINE_READER)
    assert [1, 2, 3, 4] == await kept(bus, "first")


@pytest.mark.usefixtures("push")
async def test_deleting_ends_once_there_is_room(bus: Bus) -> None:
    for name in ("a", "b", "c", "d"):
        await publish(bus, name, 2)
    await acknowledge(bus, 8)

    # 800 KB of 1 MiB are used, and 40 % are 419 KB.
    assert 4 == await StreamRoom(bus, frozenset).make(PUSH_ENGINE_READER)
    assert 0 == await StreamRoom(bus, frozenset).make(PUSH_ENGINE_READER)


@pytest.mark.usefixtures("push")
async def test_of_an_upload_that_goes_on_a_pack_is_kept(bus: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream_room, "PACK_CHUNKS", 2)
    await publish(bus, "first", 8)
    await acknowledge(bus, 8)

    await StreamRoom(bus, lambda: {"upload-first"}).make(PUSH_ENGINE_READER)

    assert [6, 7, 8] == await kept(bus, "first")


@pytest.mark.usefixtures("push")
async def test_a_file_whose_last_message_is_no_chunk_keeps_its_resume_point(bus: Bus) -> None:
    await publish(bus, "first", 7)
    await bus.publish(subjects.push_send("shop", "first"), b"{}")
    await acknowledge(bus, 8)

    assert 0 == await StreamRoom(bus, frozenset).make(PUSH_ENGINE_READER)


async def test_a_file_larger_than_the_stream_goes_through_while_it_is_read(
    bus: Bus, start_gateway: StartGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream_room, "EVERY_S", 0.05)
    monkeypatch.setattr(publisher, "BACKOFF", Backoff(first_s=0.05, max_s=0.1))
    for module in (publisher, stream_room):
        monkeypatch.setattr(module, "PACK_CHUNKS", 4)
    count = 40_000
    data = b"".join(b"user-%08d;Hello;https://shop.example/%d\n" % (number, number) for number in range(count))
    lines: list[int] = []

    async def read() -> None:
        async with open_pull(bus, PUSH_ENGINE_READER) as pull:
            while len(lines) < count:
                batch = await pull.next(8)
                for message in batch:
                    lines.extend(row.line for row in decode(message.data, PushBatch).rows)
                await pull.ack(batch[-1])

    async with AsyncExitStack() as stack:
        gateway = await stack.enter_async_context(start_gateway(stream_max_bytes=f"PUSH={LIMIT}"))
        await ensure_consumer(bus, PUSH_ENGINE_READER)
        tasks = await stack.enter_async_context(asyncio.TaskGroup())
        tasks.create_task(read())
        client = await stack.enter_async_context(gateway.sftp())
        await write(client, "/large.csv", data)
        # A full stream is tried again after 5 s.
        await until(lambda: len(lines) == count, within_s=60)
        await until(lambda: events(bus, "completed"))

    assert len(data) > 1.5 * LIMIT
    assert list(range(1, count + 1)) == lines
