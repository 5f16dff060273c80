"""Runs on a real stream, into a store that can be made to fail: nothing is lost, nothing is written twice."""

import asyncio
import csv
import gzip
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from io import StringIO

import pytest
from msgspec.structs import replace

from exporter.exports.job import ExportJob
from exporter.exports.progress import LEASE_S, ExportProgress, Trigger
from exporter.exports.progress_store import ClaimedElsewhereError, ProgressStore
from exporter.exports.retry_budget import Signals
from exporter.exports.run_store import Run, RunStore
from exporter.exports.runner import ExportRunner
from exporter.exports.schedule import Schedule
from exporter.exports.window_writer import WriterDependencies
from exporter.exports.worker import first_progress
from exporter.formats import FORMATS
from exporter.layouts import LAYOUTS
from exporter.layouts.affise import CLICK_COLUMNS, AffiseLayout
from exporter.pipeline.content import Content
from exporter.pipeline.origin import Origin
from exporter.pipeline.ports import Destination, FileName, Reading, WindowLimits
from exporter.pipeline.selection import EventSelection
from exporter.pipeline.source import EventSource
from exporter.pipeline.tables import Row
from shared.contracts import streams, subjects
from shared.contracts.messages import Alert, Event, EventType, encode, make_attributes
from shared.contracts.subjects import partition_of
from shared.errors import (
    ConflictError,
    CredentialsError,
    InvalidError,
    MillraceError,
    NotFoundError,
    UnavailableError,
)
from shared.messaging.bus import Bus
from shared.messaging.kv import KeyValueStore
from shared.runtime.settings import Settings
from shared.runtime.telemetry import Metrics

ORIGIN = Origin(app_key="shop", export_id="clicks")
NOON = datetime(2026, 11, 22, 12, 0, 0, tzinfo=UTC)


class Store:
    """An object store in memory. `after_put` runs when an object is stored and its put has not returned."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.refusal: MillraceError | None = None
        self.after_put: Callable[[], object] | None = None
        self.puts = 0

    async def put(self, key: str, data: bytes, content_type: str) -> str:
        self.puts += 1
        if self.refusal is not None:
            raise self.refusal
        if key in self.objects:
            raise ConflictError("there is one")
        self.objects[key] = data
        if self.after_put is not None:
            waited = self.after_put()
            if asyncio.iscoroutine(waited):
                await waited
        return f"etag of {key}"

    async def read(self, key: str, size_bytes: int) -> bytes | None:
        data = self.objects.get(key)
        return data if data is not None and len(data) == size_bytes else None

    @property
    def ids(self) -> list[str]:
        """The ids of every row of every object, in the order of the names."""
        return [row[0] for key in sorted(self.objects) for row in list(csv.reader(StringIO(self.text(key))))[1:]]

    def text(self, key: str) -> str:
        return gzip.decompress(self.objects[key]).decode()


class World:
    """An export of clicks with its stream, its store, and a clock that stands still."""

    def __init__(self, bus: Bus) -> None:
        self.bus = bus
        self.now = NOON
        self.store = Store()
        self.alerts: list[Alert] = []
        self.plans = KeyValueStore(bus, streams.PLANS)
        self.run_store = RunStore(KeyValueStore(bus, streams.RUNS))
        self.limits: WindowLimits | None = None
        self.metrics = Metrics()
        self.job = ExportJob(
            app_key="shop",
            export_id="clicks",
            revision=1,
            content=Content(selection=EventSelection(data="clicks")),
            schedule=Schedule(every_s=900),
            layout_of=lambda content: LAYOUTS[content.layout](ORIGIN, content),
            format_of=lambda content: FORMATS[content.format],
            location="here",
            directory="raw",
            open_destination=self._open,
        )

    @asynccontextmanager
    async def _open(self) -> AsyncIterator[Destination]:
        yield self.store

    async def _record_alert(self, alert: Alert) -> None:
        self.alerts.append(alert)

    def runner(self, owner: str = "one") -> ExportRunner:
        dependencies = WriterDependencies(
            source=EventSource(self.bus), run_store=self.run_store, clock=lambda: self.now, limits=self.limits
        )
        return ExportRunner(dependencies, owner=owner, publish_alert=self._record_alert, metrics=self.metrics)

    async def progress_store(self) -> ProgressStore:
        progress_store = ProgressStore(self.plans, "shop.clicks")
        if not await progress_store.load():
            await progress_store.begin(first_progress(self.job.schedule, 0, self.now))
        return progress_store

    async def run(self, trigger: Trigger = "schedule", owner: str = "one") -> Run:
        """Run once, a second after the step before."""
        self.now += timedelta(seconds=1)
        progress_store = await self.progress_store()
        return await self.runner(owner).run(self.job, progress_store, trigger=trigger, signals=Signals())

    async def publish(self, *ids: str, kind: EventType = "click", app: str = "shop", user: str = "u1") -> int:
        events = [
            Event(
                id=one,
                app_key=app,
                type=kind,
                code=kind,
                user_id=user,
                occurred_at=1,
                attributes=make_attributes({"sub1": "x"}),
            )
            for one in ids
        ]
        return (await self.bus.publish(subjects.events(app, partition_of(user)), encode(events))).sequence

    async def progress(self) -> ExportProgress:
        return (await self.progress_store()).progress

    async def state(self) -> int:
        return (await self.bus.stream_state(streams.EVENTS)).last_sequence


@pytest.fixture
async def world(export_bus: Bus) -> World:
    return World(export_bus)


async def test_events_of_the_app_and_kind_become_one_file(world: World) -> None:
    await world.publish("a", "b")
    await world.publish("other", app="rival")
    await world.publish("c", kind="conversion")
    await world.publish("d", user="u2")

    run = await world.run()

    assert ["raw/2026/11/22/2026-11-22 12:00:01.csv.gz"] == list(world.store.objects)
    assert ["a", "b", "d"] == world.store.ids
    assert ("completed", 3, 3, 0, 0) == (run.state, run.rows_in, run.rows_out, run.rows_filtered, run.rows_dropped)
    assert (1, await world.state()) == (run.first_sequence, run.last_sequence)
    assert run == await world.run_store.get("shop", "clicks", run.id)


async def test_second_run_writes_nothing_when_nothing_is_new(world: World) -> None:
    await world.publish("a")
    await world.run()

    run = await world.run()

    assert 1 == len(world.store.objects)
    assert ("completed", 0, (), None) == (run.state, run.rows_out, run.files, run.last_sequence)


async def test_run_that_finds_only_other_events_moves_on_without_a_file(world: World) -> None:
    await world.publish("a", kind="conversion")

    run = await world.run()

    assert {} == world.store.objects
    assert ("completed", 0) == (run.state, run.rows_in)
    assert await world.state() == (await world.progress()).cursor


async def test_events_that_the_lists_exclude_are_counted_as_filtered(world: World) -> None:
    world.job = replace(world.job, content=Content(selection=EventSelection(data="clicks", affiliates=(4,))))
    await world.publish("a", "b")

    run = await world.run()

    assert {} == world.store.objects
    assert (2, 0, 2) == (run.rows_in, run.rows_out, run.rows_filtered)


async def test_run_writes_several_files_when_one_is_full(world: World) -> None:
    world.limits = WindowLimits(rows=4, rows_behind=4)
    for number in range(5):
        await world.publish(f"{number}a", f"{number}b")

    run = await world.run()

    names = [f"raw/2026/11/22/2026-11-22 12:00:0{second}.csv.gz" for second in (1, 2, 3)]
    assert names == sorted(world.store.objects)
    assert [4, 4, 2] == [file.rows for file in run.files]
    assert [f"{number}{part}" for number in range(5) for part in "ab"] == world.store.ids
    assert sum(len(data) for data in world.store.objects.values()) == run.size_bytes


async def test_next_free_second_is_used_when_another_writer_has_the_name(world: World) -> None:
    taken = "raw/2026/11/22/2026-11-22 12:00:01.csv.gz"
    world.store.objects[taken] = b"not ours"
    await world.publish("a")

    run = await world.run()

    assert b"not ours" == world.store.objects.pop(taken)
    assert ["raw/2026/11/22/2026-11-22 12:00:02.csv.gz"] == list(world.store.objects)
    assert ["a"] == world.store.ids
    assert "completed" == run.state


async def killed_after_the_put(world: World) -> str:
    """Kill a run after its object was written and before the cursor moves. Returns its id."""
    there = asyncio.Event()

    async def hang() -> None:
        there.set()
        await asyncio.Event().wait()

    world.store.after_put = hang
    running = asyncio.ensure_future(world.run())
    await there.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    world.store.after_put = None
    claim = (await world.progress()).claim
    assert claim is not None
    return claim.run_id


async def test_object_is_there_once_when_a_run_dies_between_the_object_and_the_cursor(world: World) -> None:
    await world.publish("a", "b")
    run_id = await killed_after_the_put(world)
    await world.publish("c")

    world.now += timedelta(seconds=LEASE_S)
    run = await world.run(owner="two")

    assert run_id == run.id
    assert ["a", "b", "c"] == world.store.ids
    assert 2 == len(world.store.objects) == len(run.files)
    assert ("completed", 3) == (run.state, run.rows_out)


async def test_object_is_the_same_when_a_run_dies_between_the_plan_and_the_object(world: World) -> None:
    await world.publish("a", "b")
    world.store.refusal = CredentialsError("refused")
    await world.run()
    plan = (await world.progress()).window
    assert plan is not None
    (file,) = plan.files
    await world.publish("c")
    world.store.refusal = None

    await world.run()

    assert ["a", "b"] == [row.split(",")[0] for row in world.store.text(file.key).splitlines()[1:]]
    assert file.size_bytes == len(world.store.objects[file.key])
    assert ["a", "b", "c"] == world.store.ids


async def test_planned_file_keeps_the_form_of_its_name_when_names_become_plain(world: World) -> None:
    world.store.refusal = CredentialsError("refused")
    await world.publish("a")
    await world.run()
    world.store.refusal = None
    taken = "raw/2026/11/22/2026-11-22 12:00:01.csv.gz"
    world.store.objects[taken] = b"not ours"
    content = Content(selection=EventSelection(data="clicks"), plain_names=True)
    world.job = replace(world.job, content=content, revision=2)
    await world.publish("b")

    await world.run()

    assert b"not ours" == world.store.objects.pop(taken)
    assert ["2026-11-22 12:00:02.csv.gz", "2026-11-22_12-00-03.csv.gz"] == sorted(
        key.removeprefix("raw/2026/11/22/") for key in world.store.objects
    )
    assert ["a", "b"] == world.store.ids


class PartsByUser(AffiseLayout):
    """Clicks with a file for each user, under names that a window alone has."""

    is_named_by_second = False  # type: ignore[misc]

    def read(self, data: bytes, sequence: int = 0) -> Reading:
        reading = super().read(data)
        users: dict[str, list[Row]] = {}
        for row in reading.parts["clicks"]:
            users.setdefault(str(row[CLICK_COLUMNS.index("user_id")]), []).append(row)
        return reading._replace(parts=users)

    def name(self, name: FileName) -> str:
        return f"{name.part}/{name.first_sequence}"


async def test_every_file_of_a_window_is_there_once_when_a_run_dies_between_two(world: World) -> None:
    world.job = replace(world.job, layout_of=lambda content: PartsByUser(ORIGIN, content))
    for number in range(3):
        await world.publish(f"a{number}", f"b{number}", user=f"u{number}")
    await killed_after_the_put(world)
    await world.publish("c", user="u0")

    world.now += timedelta(seconds=LEASE_S)
    run = await world.run(owner="two")

    assert ["raw/u0/1", "raw/u0/4", "raw/u1/1", "raw/u2/1"] == [
        key.removesuffix(".csv.gz") for key in sorted(world.store.objects)
    ]
    assert ["a0", "a1", "a2", "b0", "b1", "b2", "c"] == sorted(world.store.ids)
    assert (4, 7) == (len(run.files), run.rows_out)


async def test_run_fails_when_another_writer_has_a_name_that_cannot_change(world: World) -> None:
    world.job = replace(world.job, layout_of=lambda content: PartsByUser(ORIGIN, content))
    world.store.objects["raw/u1/1.csv.gz"] = b"not ours"
    await world.publish("a")

    run = await world.run()

    assert run.error is not None
    assert ("failed", "conflict") == (run.state, run.error.code)
    assert {"raw/u1/1.csv.gz": b"not ours"} == world.store.objects


async def test_claim_lasts_while_an_upload_takes_longer_than_the_lease(world: World) -> None:
    await world.publish("a")
    renewed = asyncio.Event()

    async def take_long() -> None:
        world.now += timedelta(seconds=LEASE_S)
        while (claim := (await world.progress()).claim) is not None and claim.until <= world.now:
            await asyncio.sleep(0.05)
        renewed.set()

    world.store.after_put = take_long
    run = await world.run()

    assert renewed.is_set()
    assert "completed" == run.state


async def test_run_fails_and_alerts_once_when_the_store_refuses(world: World) -> None:
    world.store.refusal = CredentialsError("the access key was refused")
    await world.publish("a")

    failed = [await world.run() for _ in range(3)]
    world.store.refusal = None
    await world.publish("b")
    run = await world.run()

    assert ["failed"] * 3 == [one.state for one in failed]
    assert {"credentials"} == {one.error.code for one in failed if one.error}
    assert ["export-failed", "export-recovered"] == [alert.kind for alert in world.alerts]
    assert ["a", "b"] == world.store.ids
    assert (2, None) == (run.rows_out, run.error)


async def test_lag_is_that_of_the_slowest_export(world: World) -> None:
    world.store.refusal = CredentialsError("refused")
    await world.publish("a")
    await world.publish("b")
    await world.run()
    behind = world.metrics.render().decode()
    world.store.refusal = None
    runner = world.runner()
    await runner.run(world.job, await world.progress_store(), trigger="schedule", signals=Signals())

    assert "millrace_export_lag_messages 2.0" in behind
    assert "millrace_export_lag_messages 0.0" in world.metrics.render().decode()


async def test_empty_run_publishes_no_recovery(world: World) -> None:
    world.store.refusal = CredentialsError("refused")
    await world.publish("a")
    await world.run()
    world.job = replace(world.job, location="elsewhere", content=Content(selection=EventSelection(data="conversions")))

    await world.run()

    assert ["export-failed"] == [alert.kind for alert in world.alerts]


async def test_upload_is_retried_when_the_store_was_unavailable(world: World) -> None:
    world.store.refusal = UnavailableError("503")
    await world.publish("a")
    signals = Signals()
    progress_store = await world.progress_store()
    running = asyncio.ensure_future(world.runner().run(world.job, progress_store, trigger="schedule", signals=signals))
    while world.store.puts < 2:
        await asyncio.sleep(0.01)
    world.store.refusal = None
    signals.wake.set()

    run = await running

    assert ("completed", ["a"]) == (run.state, world.store.ids)
    assert run.attempts > 1
    assert [] == world.alerts


async def test_events_are_read_again_for_a_new_destination_when_a_plan_names_the_old_one(world: World) -> None:
    world.store.refusal = CredentialsError("refused")
    await world.publish("a")
    await world.run()
    world.store.refusal = None
    world.job = replace(world.job, location="there", directory="new", revision=2)

    await world.run()

    assert ["new/2026/11/22/2026-11-22 12:00:02.csv.gz"] == list(world.store.objects)
    assert ["a"] == world.store.ids


async def test_second_process_does_not_claim_an_export_of_the_first(world: World) -> None:
    await world.publish("a")
    await killed_after_the_put(world)

    with pytest.raises(ClaimedElsewhereError):
        await world.run(owner="two")

    world.now += timedelta(seconds=LEASE_S)
    assert "completed" == (await world.run(owner="two")).state
    assert ["a"] == world.store.ids


async def test_process_that_lost_its_claim_stops(world: World) -> None:
    await world.publish("a")
    first = await world.progress_store()
    overtaken = asyncio.Event()

    async def lose_claim() -> None:
        world.store.after_put = None
        world.now += timedelta(seconds=LEASE_S)
        await world.run(owner="two")
        overtaken.set()

    world.store.after_put = lose_claim
    with pytest.raises(ClaimedElsewhereError):
        await world.runner().run(world.job, first, trigger="schedule", signals=Signals())

    assert overtaken.is_set()
    assert ["a"] == world.store.ids
    assert ["completed"] == [run.state for run in (await world.run_store.page("shop", "clicks", limit=10)).runs]
    assert (None, None) == ((await world.progress()).claim, (await world.progress()).window)


async def test_expired_messages_are_counted_and_alerted(world: World, settings: Settings) -> None:
    for name in "abcd":
        last = await world.publish(name)
    await world.bus.js.purge_stream("EVENTS", seq=last)

    run = await world.run()

    assert ["d"] == world.store.ids
    assert (3, 1) == (run.rows_dropped, run.rows_out)
    assert ["events-dropped"] == [alert.kind for alert in world.alerts]


async def test_expired_rows_of_a_planned_file_are_counted(world: World) -> None:
    world.store.refusal = CredentialsError("refused")
    await world.publish("a")
    last = await world.publish("b")
    await world.run()
    await world.bus.js.purge_stream("EVENTS", seq=last)
    world.store.refusal = None

    run = await world.run()

    assert ["b"] == world.store.ids
    assert (1, 1) == (run.rows_out, run.rows_dropped)


async def test_uploaded_file_of_a_plan_is_recognized_when_its_events_have_expired(world: World) -> None:
    last = await world.publish("a", "b")
    await killed_after_the_put(world)
    await world.bus.js.purge_stream("EVENTS", seq=last + 1)

    run = await world.run()

    assert ["a", "b"] == world.store.ids
    assert (2, 0) == (run.rows_out, run.rows_dropped)


async def test_run_stops_between_two_files_when_the_service_does(world: World) -> None:
    world.limits = WindowLimits(rows=1, rows_behind=1)
    for name in "abc":
        await world.publish(name)
    signals = Signals()
    world.store.after_put = signals.stop

    run = await world.runner().run(world.job, await world.progress_store(), trigger="schedule", signals=signals)
    world.store.after_put = None
    again = await world.run()

    assert ("stopped", 1) == (run.state, run.rows_out)
    assert ("completed", 2) == (again.state, again.rows_out)
    assert ["a", "b", "c"] == world.store.ids


async def test_runs_are_listed_by_pages_with_the_newest_first(world: World) -> None:
    ids = [(await world.run()).id for _ in range(3)]

    first = await world.run_store.page("shop", "clicks", limit=2)
    second = await world.run_store.page("shop", "clicks", before=first.next, limit=2)

    assert [ids[2], ids[1]] == [run.id for run in first.runs]
    assert ids[1] == first.next
    assert ([ids[0]], None) == ([run.id for run in second.runs], second.next)
    with pytest.raises(InvalidError):
        await world.run_store.page("shop", "clicks", before="NONE", limit=2)


async def test_a_record_that_is_no_run_is_left_out_and_hides_no_other(world: World) -> None:
    first, second = [(await world.run()).id for _ in range(2)]
    await KeyValueStore(world.bus, streams.RUNS).put(f"shop.clicks.{second}", b"garbage")

    assert [first] == [run.id for run in (await world.run_store.page("shop", "clicks", limit=10)).runs]
    with pytest.raises(NotFoundError):
        await world.run_store.get("shop", "clicks", second)
