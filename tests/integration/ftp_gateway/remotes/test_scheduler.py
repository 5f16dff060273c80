"""The scheduler of remotes on a real bucket: it erases the state of removed remotes, also while NATS fails."""

import asyncio
from datetime import UTC, datetime
from typing import Any

from ftp_gateway.remotes.scheduler import PullScheduler
from ftp_gateway.remotes.state import PullProgress
from ftp_gateway.remotes.state_store import RemoteStateStore
from shared.contracts import keys, streams
from shared.errors import UnavailableError
from shared.messaging.bus import Bus
from shared.messaging.kv import KeyValue, KeyValueStore
from shared.messaging.provisioning.making import ensure
from shared.runtime.settings import Settings
from shared.runtime.telemetry import Metrics


class Memories(KeyValueStore):
    """The bucket of remotes, of which no list is to be had the first time."""

    asked = 0

    async def scan(self, keys: str = ">") -> list[KeyValue]:
        self.asked += 1
        if self.asked == 1:
            raise UnavailableError("away")
        return await super().scan(keys)


async def test_what_was_deleted_is_erased_once_it_can_be_read(bus: Bus, settings: Settings) -> None:
    await ensure(bus, streams.REMOTES, settings)
    store = Memories(bus, streams.REMOTES)
    deleted = RemoteStateStore(store, "shop", "old")
    await deleted.put_progress(PullProgress(files_pulled=1))
    lanes = _lanes(store)
    async with asyncio.TaskGroup() as tasks, asyncio.timeout(30):
        tasks.create_task(lanes.run())
        while not store.asked:
            await asyncio.sleep(0.01)
        assert 1 == (await deleted.read_progress()).files_pulled

        lanes.changed()

        while (await deleted.read_progress()).files_pulled:
            await asyncio.sleep(0.01)
        lanes.close()
        await lanes.join()


async def test_state_that_cannot_be_read_is_none_and_is_written_over(bus: Bus, settings: Settings) -> None:
    await ensure(bus, streams.REMOTES, settings)
    store = KeyValueStore(bus, streams.REMOTES)
    state = RemoteStateStore(store, "shop", "daily")
    for key in (
        keys.pull_progress_key("shop", "daily"),
        keys.offered_host_key_key("shop", "daily"),
        keys.pulled_file_key("shop", "daily", "a.csv"),
    ):
        await store.put(key, b'{"type":"io.nats.jetstream.api.v1"}')

    await state.load()

    assert (PullProgress(), {}, None) == (state.progress, state.pulled, await state.read_offered())
    await state.put_progress(PullProgress(files_pulled=1))
    assert 1 == (await state.read_progress()).files_pulled


def _lanes(store: KeyValueStore) -> PullScheduler:
    async def gone(_: object) -> bool:
        return True

    async def publish_alert(_: object) -> None:
        raise AssertionError("there is no alert")

    def never(*_: object) -> Any:
        raise AssertionError("there is no remote")

    return PullScheduler(
        lock=never,
        store=store,
        jobs=dict,
        is_deleted=gone,
        puller=never,
        publish_alert=publish_alert,
        metrics=Metrics(),
        clock=lambda: datetime.now(UTC),
    )
