"""
The scheduler on a real stream: no export waits for another, a change continues a run, and a stop ends in order.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import pytest
from msgspec.structs import replace

from exporter.exports.job import ExportJob
from exporter.exports.progress import ExportProgress
from exporter.exports.run_store import RunStore
from exporter.exports.runner import ExportRunner
from exporter.exports.schedule import Schedule
from exporter.exports.scheduler import ExportScheduler
from exporter.exports.window_writer import WriterDependencies
from exporter.exports.worker import Key
from exporter.formats import FORMATS
from exporter.layouts import LAYOUTS
from exporter.pipeline.content import Content
from exporter.pipeline.origin import Origin
from exporter.pipeline.ports import Destination
from exporter.pipeline.selection import EventSelection
from exporter.pipeline.source import EventSource
from shared.contracts import streams, subjects
from shared.contracts.messages import Alert, Event, decode, encode
from shared.errors import BusyError, ConflictError, UnavailableError
from shared.messaging.bus import Bus
from shared.messaging.kv import KeyValue, KeyValueStore
from shared.runtime.telemetry import Metrics

CLICKS, OTHER = ("shop", "clicks"), ("rival", "clicks")


class Store:
    """An object store in memory. It completes no put unless `accepting` is set, and fails while `unavailable`."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.accepting = asyncio.Event()
        self.accepting.set()
        self.put_called = asyncio.Event()
        self.unavailable = False

    async def put(self, key: str, data: bytes, content_type: str) -> str:
        self.put_called.set()
        await self.accepting.wait()
        if self.unavailable:
            raise UnavailableError("unavailable", retry_after_s=600)
        if key in self.objects:
            raise ConflictError("there is one")
        self.objects[key] = data
        return f"etag of {key}"

    async def read(self, key: str, size_bytes: int) -> bytes | None:
        return self.objects.get(key)

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Destination]:
        yield self


class Plans(KeyValueStore):
    """The bucket of plans, which cannot be listed while `unavailable`."""

    unavailable = False

    async def scan(self, keys: str = ">") -> list[KeyValue]:
        if self.unavailable:
            raise UnavailableError("unavailable")
        return await super().scan(keys)


class Mesh:
    """Two exports of two apps, each with a store, and their scheduler."""

    def __init__(self, bus: Bus) -> None:
        self.bus = bus
        self.plans = Plans(bus, streams.PLANS)
        self.alerts: list[tuple[str, str, str]] = []
        self.stores = {CLICKS: Store(), OTHER: Store()}
        self.jobs: dict[Key, ExportJob] = {key: self.job(key, store) for key, store in self.stores.items()}
        dependencies = WriterDependencies(
            source=EventSource(bus),
            run_store=RunStore(KeyValueStore(bus, streams.RUNS)),
            clock=lambda: datetime.now(UTC),
        )
        self.scheduler = ExportScheduler(
            runner=ExportRunner(dependencies, owner="one", publish_alert=self._take_alert, metrics=Metrics()),
            plans=self.plans,
            metrics=Metrics(),
            jobs=lambda: dict(self.jobs),
            is_deleted=self._is_deleted,
        )

    def job(self, key: Key, store: Store, revision: int = 1) -> ExportJob:
        return ExportJob(
            app_key=key[0],
            export_id=key[1],
            revision=revision,
            content=Content(selection=EventSelection(data="clicks")),
            schedule=Schedule(every_s=900),
            layout_of=lambda content: LAYOUTS[content.layout](Origin(app_key=key[0], export_id=key[1]), content),
            format_of=lambda content: FORMATS[content.format],
            location="here",
            directory="",
            open_destination=store.open,
        )

    async def _take_alert(self, alert: Alert) -> None:
        self.alerts.append((alert.app_key, alert.kind, alert.subject))

    async def _is_deleted(self, key: Key) -> bool:
        return key not in self.jobs

    async def publish(self, key: Key, name: str) -> None:
        event = Event(id=name, app_key=key[0], type="click", code="c", user_id="u", occurred_at=1)
        await self.bus.publish(subjects.events(key[0], 0), encode([event]))

    async def progress(self, key: Key) -> ExportProgress | None:
        found = await self.plans.get(".".join(key))
        return decode(found.data, ExportProgress) if found else None


@pytest.fixture
async def mesh(export_bus: Bus) -> AsyncIterator[Mesh]:
    mesh = Mesh(export_bus)
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(mesh.scheduler.run())
        for key in mesh.jobs:
            await mesh.scheduler.flush(key, 1, 10)
        yield mesh
        running.cancel()


async def test_export_does_not_wait_for_another_ones_slow_store(mesh: Mesh) -> None:
    mesh.stores[CLICKS].accepting.clear()
    await mesh.publish(CLICKS, "a")
    await mesh.publish(OTHER, "b")
    slow = asyncio.ensure_future(mesh.scheduler.flush(CLICKS, 1, 30))
    await mesh.stores[CLICKS].put_called.wait()

    run = await mesh.scheduler.flush(OTHER, 1, 10)

    assert ("completed", 1) == (run.state, run.rows_out)
    assert not slow.done()
    mesh.stores[CLICKS].accepting.set()
    assert 1 == (await slow).rows_out


async def test_flush_behind_a_run_exports_what_was_published_meanwhile(mesh: Mesh) -> None:
    mesh.stores[CLICKS].accepting.clear()
    await mesh.publish(CLICKS, "a")
    first = asyncio.ensure_future(mesh.scheduler.flush(CLICKS, 1, 30))
    await mesh.stores[CLICKS].put_called.wait()
    await mesh.publish(CLICKS, "b")
    second = asyncio.ensure_future(mesh.scheduler.flush(CLICKS, 1, 30))

    mesh.stores[CLICKS].accepting.set()

    assert [1, 1] == [(await first).rows_out, (await second).rows_out]
    assert (await first).id != (await second).id


async def test_flush_returns_the_run_in_progress_when_it_takes_too_long(mesh: Mesh) -> None:
    mesh.stores[CLICKS].accepting.clear()
    await mesh.publish(CLICKS, "a")

    run = await mesh.scheduler.flush(CLICKS, 1, 0.5)

    assert "running" == run.state
    mesh.stores[CLICKS].accepting.set()


async def test_flush_ends_a_back_off_at_once(mesh: Mesh) -> None:
    store = mesh.stores[CLICKS]
    store.unavailable = True
    await mesh.publish(CLICKS, "a")
    waiting = asyncio.ensure_future(mesh.scheduler.flush(CLICKS, 1, 30))
    await store.put_called.wait()
    await asyncio.sleep(0.05)
    store.unavailable = False

    run = await mesh.scheduler.flush(CLICKS, 1, 10)

    assert "completed" == run.state
    assert ("completed", 2) == ((await waiting).state, (await waiting).attempts)


async def test_changed_configuration_continues_the_run_that_hangs(mesh: Mesh) -> None:
    mesh.stores[CLICKS].accepting.clear()
    await mesh.publish(CLICKS, "a")
    asked = asyncio.ensure_future(mesh.scheduler.flush(CLICKS, 1, 30))
    await mesh.stores[CLICKS].put_called.wait()
    better = Store()

    mesh.jobs[CLICKS] = replace(mesh.job(CLICKS, better), revision=2)
    mesh.scheduler.changed()

    run = await asked
    assert ("completed", 1) == (run.state, run.rows_out)
    assert (0, 1) == (len(mesh.stores[CLICKS].objects), len(better.objects))


async def test_deleted_export_ends_in_the_middle_and_is_erased(mesh: Mesh) -> None:
    mesh.stores[CLICKS].accepting.clear()
    await mesh.publish(CLICKS, "a")
    asked = asyncio.ensure_future(mesh.scheduler.flush(CLICKS, 1, 30))
    await mesh.stores[CLICKS].put_called.wait()

    del mesh.jobs[CLICKS]
    mesh.scheduler.changed()

    with pytest.raises(ConflictError):
        await asked
    while await mesh.progress(CLICKS) is not None:
        await asyncio.sleep(0.01)
    assert await mesh.progress(OTHER) is not None


async def test_stop_finishes_the_current_file_and_begins_no_run(mesh: Mesh) -> None:
    mesh.stores[CLICKS].accepting.clear()
    await mesh.publish(CLICKS, "a")
    asked = asyncio.ensure_future(mesh.scheduler.flush(CLICKS, 1, 30))
    await mesh.stores[CLICKS].put_called.wait()

    mesh.scheduler.close()
    joining = asyncio.ensure_future(mesh.scheduler.join())
    with pytest.raises(BusyError):
        await mesh.scheduler.flush(OTHER, 1, 10)
    assert not joining.done()
    mesh.stores[CLICKS].accepting.set()
    await joining

    assert ("completed", 1) == ((await asked).state, (await asked).rows_out)
    progress = await mesh.progress(CLICKS)
    assert progress is not None
    assert (None, None) == (progress.claim, progress.window)


async def test_stop_does_not_wait_for_a_back_off(mesh: Mesh) -> None:
    store = mesh.stores[CLICKS]
    store.unavailable = True
    await mesh.publish(CLICKS, "a")
    asked = asyncio.ensure_future(mesh.scheduler.flush(CLICKS, 1, 30))
    await store.put_called.wait()

    mesh.scheduler.close()
    async with asyncio.timeout(5):
        await mesh.scheduler.join()

    assert "stopped" == (await asked).state
    progress = await mesh.progress(CLICKS)
    assert progress is not None
    assert progress.window is not None


async def test_exports_run_while_it_is_not_known_what_was_deleted(export_bus: Bus) -> None:
    mesh = Mesh(export_bus)
    await mesh.plans.put(".".join(OTHER), encode(ExportProgress(cursor=0, slot_at=datetime.now(UTC))))
    del mesh.jobs[OTHER]
    mesh.plans.unavailable = True
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(mesh.scheduler.run())
        await mesh.publish(CLICKS, "a")

        run = await mesh.scheduler.flush(CLICKS, 1, 10)

        assert "completed" == run.state
        assert await mesh.progress(OTHER) is not None
        mesh.plans.unavailable = False
        mesh.scheduler.changed()
        while await mesh.progress(OTHER) is not None:
            await asyncio.sleep(0.01)
        running.cancel()


@pytest.mark.parametrize("damaged", [b"", b"[]", b'{"cursor":"x"}', b"\xff"], ids=repr)
async def test_progress_that_cannot_be_read_is_told_until_its_export_is_made_anew(mesh: Mesh, damaged: bytes) -> None:
    job = mesh.jobs[CLICKS]
    await mesh.plans.put("shop.clicks", damaged)

    for _ in range(2):
        with pytest.raises(ConflictError, match=r"cannot be read; delete the export"):
            await mesh.scheduler.flush(CLICKS, 1, 10)
    assert [("shop", "export-failed", "clicks")] == mesh.alerts
    assert 'millrace_unreadable_entries_total{stream="KV_PLANS"}' in mesh.bus.metrics.render().decode()
    await mesh.publish(OTHER, "b")
    assert 1 == (await mesh.scheduler.flush(OTHER, 1, 10)).rows_out
    with pytest.raises(ConflictError, match="cannot be read"):
        await mesh.scheduler.begin(CLICKS, job.schedule)

    del mesh.jobs[CLICKS]
    mesh.scheduler.changed()
    async with asyncio.timeout(20):
        while await mesh.plans.get("shop.clicks") is not None:
            await asyncio.sleep(0.01)
    mesh.jobs[CLICKS] = replace(job, revision=2)
    mesh.scheduler.changed()
    run = await mesh.scheduler.flush(CLICKS, 2, 10)
    assert "completed" == run.state
