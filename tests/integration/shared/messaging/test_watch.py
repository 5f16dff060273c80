"""Watches of a bucket: a reader's copy after each kind of failure of a watch."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import pytest

from millrace.nats_servers.server import NatsServer
from shared.contracts.streams import CONFIG
from shared.errors import InvalidError
from shared.messaging.bus import Bus
from shared.messaging.kv import KeyValueStore, is_deletion
from shared.messaging.message import Message
from shared.messaging.provisioning.making import ensure
from shared.messaging.pull import Pull
from shared.messaging.watch import watch_changes, watch_entries
from shared.runtime.retry import Backoff
from shared.runtime.settings import Settings
from support.waiting import until

SOON = Backoff(first_s=0.01, max_s=0.02)


class Copy:
    """A reader's copy of the bucket, and the order in which it heard of the keys."""

    def __init__(self) -> None:
        self.values: dict[str, bytes] = {}
        self.heard: list[str] = []
        self.dropped: list[str] = []
        self.lists = 0
        self.opened: list[Pull] = []
        self.failures = 0
        self.on_known: Callable[[], None] = lambda: None

    async def take(self, messages: Sequence[Message]) -> None:
        for message in messages:
            key = CONFIG.key_of(message.subject)
            if message.data == b"poison":
                raise InvalidError("not fit to be read")
            self.heard.append(key)
            if is_deletion(message.headers):
                self.values.pop(key, None)
            else:
                self.values[key] = message.data

    def known(self) -> list[str]:
        keys = list(self.values)
        self.on_known()
        return keys

    def drop(self, key: str) -> None:
        self.dropped.append(key)
        del self.values[key]

    def listed(self) -> None:
        self.lists += 1

    def failed(self) -> None:
        self.failures += 1

    @asynccontextmanager
    async def of_entries(self, bus: Bus, *, relist_s: float | None = None) -> AsyncIterator["Copy"]:
        """Kept by `watch_entries` while the block runs."""
        watching = asyncio.create_task(
            watch_entries(
                bus,
                CONFIG,
                "hooks.>",
                self.take,
                known=self.known,
                drop=self.drop,
                listed=self.listed,
                relist_s=relist_s,
                retry=SOON,
            )
        )
        try:
            yield self
        finally:
            await ended(watching)

    @asynccontextmanager
    async def of_changes(self, bus: Bus) -> AsyncIterator["Copy"]:
        """Kept by `watch_changes` while the block runs."""
        watching = asyncio.create_task(
            watch_changes(
                bus,
                CONFIG,
                "hooks.>",
                self.take,
                opened=self.opened.append,
                failed=self.failed,
                capacity=16,
                capacity_bytes=1 << 20,
                retry=SOON,
            )
        )
        try:
            yield self
        finally:
            await ended(watching)


async def ended(task: "asyncio.Task[None]") -> None:
    task.cancel()
    assert isinstance((await asyncio.gather(task, return_exceptions=True))[0], asyncio.CancelledError)


async def end_watches(bus: Bus) -> None:
    """Delete the consumers of all watches behind their back."""
    for info in await bus.js.consumers_info(CONFIG.stream):
        await bus.js.delete_consumer(CONFIG.stream, info.name)


async def purge(bus: Bus, key: str) -> None:
    """Remove a key without a marker, as its age does."""
    assert await bus.js.purge_stream(CONFIG.stream, subject=CONFIG.subject_of(key))


@pytest.fixture
async def store(bus: Bus, settings: Settings) -> KeyValueStore:
    await ensure(bus, CONFIG, settings)
    return KeyValueStore(bus, CONFIG)


async def test_entries_come_first_and_then_every_change_in_order(bus: Bus, store: KeyValueStore) -> None:
    for number in range(30):
        await store.put(f"hooks.shop.{number}", b"old")
    await store.put("connectors.shop.kinesis", b"of another kind")

    async with Copy().of_entries(bus) as copy:
        await until(lambda: copy.lists)
        assert [f"hooks.shop.{number}" for number in range(30)] == copy.heard
        await store.put("hooks.shop.new", b"1")
        await store.put("hooks.shop.3", b"2")
        await store.delete("hooks.shop.new")
        await until(lambda: len(copy.heard) == 33)

    assert ["hooks.shop.new", "hooks.shop.3", "hooks.shop.new"] == copy.heard[30:]
    assert (b"2", None, 1) == (copy.values["hooks.shop.3"], copy.values.get("hooks.shop.new"), copy.lists)


async def test_an_empty_bucket_is_listed(bus: Bus, store: KeyValueStore) -> None:
    async with Copy().of_entries(bus) as copy:
        await until(lambda: copy.lists)

    assert {} == copy.values


@pytest.mark.parametrize("relist_s", [0.2, None])
async def test_a_watch_that_ended_receives_the_changes_made_meanwhile(
    bus: Bus, store: KeyValueStore, relist_s: float | None
) -> None:
    async with Copy().of_entries(bus, relist_s=relist_s) as copy:
        await until(lambda: copy.lists)
        await end_watches(bus)
        await store.put("hooks.shop.a", b"1")

        await until(lambda: copy.values.get("hooks.shop.a"))


async def test_a_key_that_was_deleted_while_the_server_was_down_is_deleted(
    bus: Bus, store: KeyValueStore, nats_server: NatsServer
) -> None:
    await store.put("hooks.shop.a", b"1")
    async with Copy().of_entries(bus) as copy:
        await until(lambda: copy.lists)
        await nats_server.kill()
        await nats_server.restart()
        await until(lambda: bus.connected)
        await store.delete("hooks.shop.a")
        await store.put("hooks.shop.b", b"1")

        await until(lambda: copy.values == {"hooks.shop.b": b"1"})
    assert [] == copy.dropped


async def test_a_key_that_went_without_a_marker_is_dropped_by_the_next_full_read(
    bus: Bus, store: KeyValueStore
) -> None:
    for key in ("hooks.shop.a", "hooks.shop.b"):
        await store.put(key, b"1")
    async with Copy().of_entries(bus, relist_s=0.2) as copy:
        await until(lambda: copy.lists)
        await purge(bus, "hooks.shop.a")

        await until(lambda: copy.dropped)
        lists = copy.lists
        await until(lambda: copy.lists > lists + 1)

    assert (["hooks.shop.a"], {"hooks.shop.b": b"1"}) == (copy.dropped, copy.values)


async def test_a_key_that_is_written_during_a_full_read_is_not_dropped(bus: Bus, store: KeyValueStore) -> None:
    copy = Copy()

    def write() -> None:
        copy.values["hooks.shop.mine"] = b"1"

    copy.on_known = write
    async with copy.of_entries(bus):
        await until(lambda: copy.lists)

    assert ([], {"hooks.shop.mine": b"1"}) == (copy.dropped, copy.values)


async def test_a_watch_of_a_bucket_that_is_not_there_begins_when_it_is(bus: Bus, settings: Settings) -> None:
    async with Copy().of_entries(bus) as copy:
        await asyncio.sleep(0)
        await ensure(bus, CONFIG, settings)

        await until(lambda: copy.lists)


async def test_a_reader_that_refuses_a_message_gets_everything_again(bus: Bus, store: KeyValueStore) -> None:
    await store.put("hooks.shop.a", b"1")
    async with Copy().of_entries(bus) as copy:
        await until(lambda: copy.lists)
        await store.put("hooks.shop.b", b"poison")
        await until(lambda: copy.heard.count("hooks.shop.a") > 2)
        await store.put("hooks.shop.b", b"2")

        await until(lambda: copy.lists == 2)
    assert {"hooks.shop.a": b"1", "hooks.shop.b": b"2"} == copy.values


async def test_changes_are_followed_and_nothing_of_before(
    bus: Bus, store: KeyValueStore, nats_server: NatsServer
) -> None:
    await store.put("hooks.shop.old", b"1")
    async with Copy().of_changes(bus) as copy:
        await until(lambda: copy.opened)
        await store.put("hooks.shop.a", b"1")
        await until(lambda: copy.heard)
        await nats_server.kill()
        await nats_server.restart()
        await until(lambda: bus.connected)
        await store.put("hooks.shop.b", b"1")
        await store.delete("hooks.shop.a")

        await until(lambda: len(copy.heard) == 3)
    assert (["hooks.shop.a", "hooks.shop.b", "hooks.shop.a"], 0) == (copy.heard, copy.failures)


async def test_a_reader_of_changes_is_notified_of_missing_changes(bus: Bus, store: KeyValueStore) -> None:
    async with Copy().of_changes(bus) as copy:
        await until(lambda: copy.opened)
        await store.put("hooks.shop.a", b"poison")
        await until(lambda: len(copy.opened) == 2)
        assert 1 == copy.failures
        await store.put("hooks.shop.b", b"1")

        await until(lambda: copy.heard)
    assert (["hooks.shop.b"], 2) == (copy.heard, len({id(scan) for scan in copy.opened}))
