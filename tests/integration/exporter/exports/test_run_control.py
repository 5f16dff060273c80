"""Runs that wait are shown as such; a run is cancelled or tried now by any replica, and loses and repeats nothing."""

import asyncio
import csv
import gzip
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from io import StringIO

import pytest

from exporter.exports.job import ExportJob
from exporter.exports.progress import ExportProgress
from exporter.exports.run_store import Run, RunState, RunStore
from exporter.exports.runner import ExportRunner
from exporter.exports.runs.run_control import RunControl
from exporter.exports.schedule import Schedule
from exporter.exports.scheduler import ExportScheduler
from exporter.exports.window_writer import WriterDependencies
from exporter.formats import FORMATS
from exporter.layouts import LAYOUTS
from exporter.pipeline.content import Content
from exporter.pipeline.lane import WHOLE
from exporter.pipeline.origin import Origin
from exporter.pipeline.ports import Destination, WindowLimits
from exporter.pipeline.selection import EventSelection
from exporter.pipeline.source import EventSource
from shared.contracts import streams, subjects
from shared.contracts.messages import Alert, Event, decode, encode
from shared.errors import ConflictError, NotFoundError, UnavailableError
from shared.messaging.bus import Bus
from shared.messaging.kv import KeyValueStore
from shared.runtime.telemetry import Metrics
from support.waiting import until

KEY = ("shop", "clicks")


class Store:
    """An object store in memory, which takes nothing while `unavailable`, and waits while not `accepting`."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.unavailable = False
        self.accepting = asyncio.Event()
        self.accepting.set()
        self.asked = asyncio.Event()

    async def put(self, key: str, data: bytes, content_type: str) -> str:
        self.asked.set()
        await self.accepting.wait()
        if self.unavailable:
            raise UnavailableError("the store is away", retry_after_s=600)
        if key in self.objects:
            raise ConflictError("there is one")
        self.objects[key] = data
        return f"etag-{len(self.objects)}"

    async def read(self, key: str, size_bytes: int) -> bytes | None:
        return self.objects.get(key)

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Destination]:
        yield self

    @property
    def ids(self) -> list[str]:
        texts = [gzip.decompress(self.objects[key]).decode() for key in sorted(self.objects)]
        return [row[0] for text in texts for row in list(csv.reader(StringIO(text)))[1:]]


class Replica:
    """The scheduler of one process, with the control of runs."""

    def __init__(self, bus: Bus, store: Store, owner: str) -> None:
        self.bus = bus
        self.plans = KeyValueStore(bus, streams.PLANS)
        self.run_store = RunStore(KeyValueStore(bus, streams.RUNS))
        self.job = ExportJob(
            app_key=KEY[0],
            export_id=KEY[1],
            revision=1,
            content=Content(selection=EventSelection(data="clicks")),
            schedule=Schedule(every_s=3600),
            layout_of=lambda content: LAYOUTS[content.layout](Origin(app_key=KEY[0], export_id=KEY[1]), content),
            format_of=lambda content: FORMATS[content.format],
            location="here",
            directory="",
            open_destination=store.open,
        )
        dependencies = WriterDependencies(
            source=EventSource(bus),
            run_store=self.run_store,
            clock=lambda: datetime.now(UTC),
            limits=WindowLimits(rows=1, rows_behind=1),
        )
        self.scheduler = ExportScheduler(
            runner=ExportRunner(dependencies, owner=owner, publish_alert=self._ignore, metrics=Metrics()),
            plans=self.plans,
            metrics=Metrics(),
            jobs=lambda: {KEY: self.job},
            is_deleted=self._never,
        )
        self.control = RunControl(self.run_store, self.plans, self.scheduler.nudge)

    async def _ignore(self, alert: Alert) -> None:
        return

    async def _never(self, key: object) -> bool:
        return False

    async def publish(self, *names: str) -> None:
        for name in names:
            event = Event(id=name, app_key="shop", type="click", code="c", user_id="u", occurred_at=1)
            await self.bus.publish(subjects.events("shop", 0), encode([event]))

    async def progress(self) -> ExportProgress:
        found = await self.plans.get("shop.clicks")
        assert found is not None
        return decode(found.data, ExportProgress)

    async def newest(self) -> Run:
        return (await self.run_store.page(*KEY, limit=1)).runs[0]

    async def wait_for(self, state: RunState) -> Run:
        async def holds() -> bool:
            return (await self.newest()).state == state

        await until(holds)
        return await self.newest()


@pytest.fixture
def store() -> Store:
    return Store()


@asynccontextmanager
async def replicas(bus: Bus, store: Store, *owners: str) -> AsyncIterator[list[Replica]]:
    found = [Replica(bus, store, owner) for owner in owners]
    async with asyncio.TaskGroup() as tasks:
        running = [tasks.create_task(one.scheduler.run()) for one in found]
        await found[0].scheduler.flush(KEY, 1, 20)
        yield found
        for task in running:
            task.cancel()


@pytest.fixture
async def replica(export_bus: Bus, store: Store) -> AsyncIterator[Replica]:
    async with replicas(export_bus, store, "one") as [one]:
        yield one


async def waiting_run(replica: Replica, store: Store, *names: str) -> tuple[Run, "asyncio.Task[Run]"]:
    """A run that is retrying, and the flush that waits for it."""
    store.unavailable = True
    await replica.publish(*names)
    flushing = asyncio.ensure_future(replica.scheduler.flush(KEY, 1, 60))
    return await replica.wait_for("retrying"), flushing


async def test_run_that_waits_is_retrying_with_its_attempt_the_next_try_and_the_error(
    replica: Replica, store: Store
) -> None:
    run, flushing = await waiting_run(replica, store, "a")

    assert (2, True) == (run.attempts, run.next_try_at is not None and run.next_try_at > datetime.now(UTC))
    assert run.error is not None
    assert ("unavailable", "the store is away") == (run.error.code, run.error.message)

    store.unavailable = False
    tried = await replica.control.retry_waiting(*KEY, run.id)
    done = await flushing
    assert tried is not None
    assert tried.state in ("running", "completed")
    assert ("completed", 2, None, None) == (done.state, done.attempts, done.next_try_at, done.error)
    assert (["a"], "etag-1") == (store.ids, done.files[0].etag)
    assert 64 == len(done.files[0].sha256)


async def test_cancelled_run_ends_and_the_next_one_writes_what_it_planned(replica: Replica, store: Store) -> None:
    run, flushing = await waiting_run(replica, store, "a", "b")

    cancelled = await replica.control.cancel(*KEY, run.id)

    assert ("cancelled", "cancelled") == (cancelled.state, (await flushing).state)
    progress = await replica.progress()
    assert progress.window is not None
    assert (None, run.first_sequence) == (progress.claim, progress.window.first_sequence)
    assert [] == store.ids
    store.unavailable = False
    following = await replica.scheduler.flush(KEY, 1, 20)
    assert ("completed", 2) == (following.state, following.rows_out)
    assert ["a", "b"] == store.ids
    assert None is await KeyValueStore(replica.bus, streams.RUNS).get(f"shop.clicks.{run.id}.request")


async def test_cancelled_run_finishes_the_file_in_progress(replica: Replica, store: Store) -> None:
    store.accepting.clear()
    await replica.publish("a", "b", "c")
    flushing = asyncio.ensure_future(replica.scheduler.flush(KEY, 1, 60))
    await store.asked.wait()
    cancelling = asyncio.ensure_future(replica.control.cancel(*KEY, (await replica.newest()).id))
    await until(lambda: replica.scheduler._groups[KEY]._workers[WHOLE].signals.cancelled)
    store.accepting.set()

    cancelled = await cancelling

    assert ("cancelled", 1, 1) == (cancelled.state, cancelled.rows_out, len(cancelled.files))
    assert cancelled == await flushing
    assert ["a"] == store.ids
    assert 2 == (await replica.scheduler.flush(KEY, 1, 20)).rows_out
    assert ["a", "b", "c"] == store.ids


@pytest.mark.parametrize("action", ["cancel", "retry"])
async def test_request_reaches_a_run_that_another_replica_holds(export_bus: Bus, store: Store, action: str) -> None:
    async with replicas(export_bus, store, "one", "two") as [one, two]:
        run, flushing = await waiting_run(one, store, "a")
        store.unavailable = False

        ask: Callable[..., object] = two.control.cancel if action == "cancel" else two.control.retry_waiting
        await ask(*KEY, run.id)  # type: ignore[misc]

        assert {"cancel": "cancelled", "retry": "completed"}[action] == (await flushing).state
        await two.scheduler.flush(KEY, 1, 20)
        assert ["a"] == store.ids


async def test_run_in_another_state_is_left_alone_and_the_answer_says_which(replica: Replica, store: Store) -> None:
    completed = await replica.newest()

    with pytest.raises(ConflictError, match=r"the run is completed; expected one that is running or retrying"):
        await replica.control.cancel(*KEY, completed.id)
    with pytest.raises(ConflictError, match=r"completed; expected one that is retrying or failed; flush starts a run"):
        await replica.control.retry_waiting(*KEY, completed.id)
    with pytest.raises(NotFoundError):
        await replica.control.cancel(*KEY, "NONE")

    store.accepting.clear()
    await replica.publish("a")
    flushing = asyncio.ensure_future(replica.scheduler.flush(KEY, 1, 60))
    await store.asked.wait()
    with pytest.raises(ConflictError, match=r"the run is running; expected one that is retrying or failed$"):
        await replica.control.retry_waiting(*KEY, (await replica.newest()).id)
    store.accepting.set()
    await flushing


async def test_record_of_a_run_that_nobody_holds_is_told(replica: Replica) -> None:
    left = Run(id="LEFT", app_key="shop", export_id="clicks", trigger="manual", started_at=datetime.now(UTC))
    await replica.run_store.put(left)

    with pytest.raises(ConflictError, match="no process works on the run any more"):
        await replica.control.cancel(*KEY, "LEFT")
