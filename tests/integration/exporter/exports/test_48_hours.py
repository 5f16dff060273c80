"""
48 hours of a bucket that refuses, played on a clock: a real stream, a store that speaks S3, the worker of an export.

The stream stores its messages with the time of today, so the source gives them the time of the story.
"""

import csv
import gzip
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from io import StringIO

import msgspec
import pytest
import structlog

from exporter.destinations.store_destination import StoreDestination
from exporter.exports.failures.failure import KEPT_S
from exporter.exports.job import ExportJob
from exporter.exports.progress import ExportProgress
from exporter.exports.progress_store import ProgressStore
from exporter.exports.run_store import Run, RunStore
from exporter.exports.runner import ExportRunner
from exporter.exports.schedule import Schedule
from exporter.exports.watching.probe import PROBE_EVERY_S, PROBE_NAME
from exporter.exports.watching.status import ExportStatus, status_of
from exporter.exports.watching.tracker import FailureTracker
from exporter.exports.window_writer import WriterDependencies
from exporter.exports.worker import ExportWorker, first_progress
from exporter.formats import FORMATS
from exporter.layouts import LAYOUTS
from exporter.pipeline.content import Content
from exporter.pipeline.lane import WHOLE, Lane
from exporter.pipeline.origin import Origin
from exporter.pipeline.ports import Destination, Operator
from exporter.pipeline.selection import EventSelection
from exporter.pipeline.source import EventSource, MessageRange
from shared.config.secret import Secret
from shared.contracts import streams, subjects
from shared.contracts.messages import Alert, Event, encode
from shared.errors import UnavailableError
from shared.messaging.bus import Bus
from shared.messaging.kv import KeyValueStore
from shared.messaging.message import Message
from shared.objects.config import S3StoreConfig, StoreLimits
from shared.objects.store import ObjectStore
from shared.runtime.telemetry import Metrics
from support.outgoing import open_store
from support.servers.stub_store import SECRET, Fault, StubStore

BEGIN = datetime(2026, 10, 23, 12, 0, tzinfo=UTC)
"""Two days before the clocks of Europe are set back."""
HOUR = timedelta(hours=1)
STEP = timedelta(minutes=15)
KEPT = timedelta(seconds=KEPT_S)
DENIED = Fault(status=403, code="AccessDenied", methods=frozenset({"PUT", "GET", "HEAD"}))
ORIGIN = Origin(app_key="shop", export_id="clicks")


class TimedRange:
    """Messages with the time of the story."""

    def __init__(self, messages: MessageRange, times: dict[int, datetime]) -> None:
        self._messages = messages
        self._times = times

    async def next(self) -> list[Message]:
        found = await self._messages.next()
        for message in found:
            message.at_ns = int(self._times[message.sequence].timestamp()) * 10**9
        return found


class TimedSource(EventSource):
    """The stream with the times of the story. It does not answer while `silent`."""

    def __init__(self, bus: Bus, times: dict[int, datetime]) -> None:
        super().__init__(bus)
        self.silent = False
        self._times = times

    @asynccontextmanager
    async def open(self, app_key: str, *, after: int, until: int, lane: Lane = WHOLE) -> AsyncIterator[MessageRange]:
        if self.silent:
            raise UnavailableError("NATS is not reached", retry_after_s=3600)
        async with super().open(app_key, after=after, until=until, lane=lane) as messages:
            yield TimedRange(messages, self._times)


class Story:
    """An export of clicks into a stub, with one worker at a time. `offset` is what its clock is wrong by."""

    def __init__(self, bus: Bus, stub: StubStore, store: ObjectStore) -> None:
        self.stub = stub
        self._store = store
        self.true_time = BEGIN
        self.offset = timedelta()
        self.times: dict[int, datetime] = {}
        self.published: list[str] = []
        self.at: dict[str, datetime] = {}
        self.alerts: list[Alert] = []
        self.states: list[str] = []
        self.gone_before: datetime | None = None
        self.revision = 1
        self.operator: Operator = "provider"
        self.run_store = RunStore(KeyValueStore(bus, streams.RUNS))
        self.source = TimedSource(bus, self.times)
        self._bus = bus
        self._plans = KeyValueStore(bus, streams.PLANS)
        self._owners = 0
        self.worker = self.restarted()

    def clock(self) -> datetime:
        return self.true_time + self.offset

    @asynccontextmanager
    async def _open(self) -> AsyncIterator[Destination]:
        yield StoreDestination(self._store)

    def restarted(self) -> ExportWorker:
        """The worker of another process, which knows what is stored alone."""
        self._owners += 1
        dependencies = WriterDependencies(source=self.source, run_store=self.run_store, clock=self.clock)
        runner = ExportRunner(
            dependencies, owner=f"process {self._owners}", publish_alert=self._take_alert, metrics=Metrics()
        )
        job = ExportJob(
            app_key="shop",
            export_id="clicks",
            revision=self.revision,
            content=Content(selection=EventSelection(data="clicks")),
            schedule=Schedule(every_s=900),
            layout_of=lambda content: LAYOUTS[content.layout](ORIGIN, content),
            format_of=lambda content: FORMATS[content.format],
            location="here",
            directory="raw",
            open_destination=self._open,
            operator=self.operator,
        )
        return ExportWorker(
            job, ProgressStore(self._plans, "shop.clicks"), runner, Metrics(), delay_s=0, on_lanes_changed=print
        )

    async def _take_alert(self, alert: Alert) -> None:
        self.alerts.append(alert)

    async def publish(self) -> None:
        name = f"e{len(self.published)}"
        event = Event(id=name, app_key="shop", type="click", code="click", user_id="u", occurred_at=1)
        sequence = (await self._bus.publish(subjects.events("shop", 0), encode([event]))).sequence
        self.published.append(name)
        self.at[name] = self.times[sequence] = self.true_time

    async def begin(self) -> None:
        """The first progress, before the first event."""
        progress_store = ProgressStore(self._plans, "shop.clicks")
        await progress_store.begin(first_progress(self.worker.job.schedule, 0, self.clock()))

    async def work(self) -> None:
        """Let the worker do what is due at this moment, and look at what came of it."""
        attempts = len(self.stub.requests)
        while await self.worker.run_if_due() == 0:
            pass
        status = await self.status()
        if status is not None and (not self.states or self.states[-1] != status.state):
            self.states.append(status.state)
        if status is not None and status.dropped and len(self.stub.requests) > attempts and self.stub.fault:
            # An attempt has failed, and dropped what is over 48 h old at its time.
            self.gone_before = self.clock() - KEPT

    async def play(self, hours: float, *, every: timedelta = HOUR) -> None:
        """Let time pass, with an event now and then."""
        end = self.true_time + hours * HOUR
        while self.true_time < end:
            if (self.true_time - BEGIN) % every == timedelta():
                await self.publish()
            await self.work()
            self.true_time += STEP

    async def attempt(self, *, after: timedelta = HOUR / 4) -> None:
        """Let the worker do what is due a while later."""
        self.true_time += after
        await self.work()

    async def status(self) -> ExportStatus | None:
        found = await self._plans.get("shop.clicks")
        return status_of(msgspec.json.decode(found.data, type=ExportProgress), self.clock()) if found else None

    async def runs(self) -> list[Run]:
        found: list[Run] = []
        before: str | None = None
        while True:
            page = await self.run_store.page("shop", "clicks", before=before, limit=500)
            found += page.runs
            before = page.next
            if before is None:
                return found

    async def progress(self) -> ExportProgress:
        found = await self._plans.get("shop.clicks")
        assert found is not None
        return msgspec.json.decode(found.data, type=ExportProgress)

    @property
    def kinds(self) -> list[str]:
        return [alert.kind for alert in self.alerts]

    @property
    def delivered(self) -> list[str]:
        """The ids of all rows, in the order of the files' names."""
        files = {key: body for key, (body, _) in self.stub.objects.items() if not key.endswith(PROBE_NAME)}
        return [
            row[0]
            for key in sorted(files)
            for row in list(csv.reader(StringIO(gzip.decompress(files[key]).decode())))[1:]
        ]


@pytest.fixture
async def story(export_bus: Bus) -> AsyncIterator[Story]:
    async with StubStore("s3") as stub:
        config = S3StoreConfig(
            bucket="media",
            region="eu-west-1",
            access_key_id="stub",
            secret_access_key=Secret(SECRET),
            endpoint_url=stub.url,
        )
        async with open_store(config, StoreLimits(retries=0)) as store:
            story = Story(export_bus, stub, store)
            await story.begin()
            yield story


@pytest.mark.timeout(300)
@pytest.mark.parametrize("telling", ["undisturbed", "restarts", "clock set back"])
async def test_events_over_48_hours_alone_are_dropped_and_all_others_come_once_and_in_order(
    story: Story, telling: str
) -> None:
    await story.play(2)
    assert ["active"] == story.states
    story.stub.fault = DENIED

    with structlog.testing.capture_logs() as logs:
        if telling == "restarts":
            for _ in range(7):
                await story.play(7)
                story.worker = story.restarted()
        elif telling == "clock set back":
            await story.play(20)
            story.offset = -2 * HOUR
            await story.play(31.5)
        else:
            await story.play(49)
    failing = await story.status()
    story.stub.fault = None
    await story.play(3)

    assert story.gone_before is not None
    gone = [name for name in story.published if story.at[name] < story.gone_before]
    assert ["active", "blocked", "dropping", "active"] == story.states
    assert [
        "export-failed",
        "export-failing-50",
        "export-failing-90",
        "events-dropped",
        "export-recovered",
    ] == story.kinds
    early = story.published[:2]
    assert [name for name in story.published if name not in gone or name in early] == story.delivered
    lost = [name for name in gone if name not in early]
    assert len(lost) >= 1

    sequences = sorted(story.times)
    drops = [entry for entry in logs if entry["event"] == "old_events_dropped"]
    assert len(lost) == sum(entry["events"] for entry in drops)
    span = sequences[story.published.index(lost[0])], sequences[story.published.index(lost[-1])]
    assert span == (drops[0]["first_sequence"], drops[-1]["last_sequence"])
    assert failing is not None
    assert failing.dropped is not None
    assert (len(lost), *span) == (
        failing.dropped.events,
        failing.dropped.first_sequence,
        failing.dropped.last_sequence,
    )
    assert ("denied", "customer", 100.0) == (failing.code, failing.fault, failing.used_percent)
    assert failing.oldest_undelivered is not None
    assert story.at[story.published[story.published.index(lost[-1]) + 1]] == failing.oldest_undelivered.at
    assert f"{len(lost)} events (sequences {span[0]} to {span[1]}) were dropped" in story.alerts[-1].message
    runs = await story.runs()
    assert len(lost) == sum(run.rows_dropped for run in runs)
    assert len(story.delivered) == sum(run.rows_out for run in runs)
    assert await story.status() is not None


@pytest.mark.timeout(300)
async def test_platform_at_fault_drops_nothing_however_long(story: Story) -> None:
    story.source.silent = True
    for _ in range(30):
        await story.publish()
        await story.attempt(after=2 * HOUR)
    failing = await story.status()
    story.source.silent = False
    await story.attempt(after=HOUR)

    assert failing is not None
    assert ("retrying", "platform", 0.0, None) == (failing.state, failing.fault, failing.used_percent, failing.dropped)
    assert ["export-failed", "export-recovered"] == story.kinds
    assert story.published == story.delivered


@pytest.mark.timeout(300)
async def test_idle_destination_is_probed_and_its_failure_drops_nothing(story: Story) -> None:
    await story.publish()
    await story.attempt()
    story.stub.fault = DENIED
    for _ in range(51):
        await story.attempt(after=HOUR)

    failing = await story.status()
    assert failing is not None
    assert ("blocked", 100.0, None, None) == (
        failing.state,
        failing.used_percent,
        failing.oldest_undelivered,
        failing.dropped,
    )
    assert ["export-failed", "export-failing-50", "export-failing-90"] == story.kinds
    assert "a probe of the destination failed" in story.alerts[0].message

    await story.publish()
    await story.attempt()
    assert "dropping" == story.states[-1]
    story.stub.fault = None
    await story.attempt()
    assert story.published == story.delivered
    assert "export-recovered" == story.kinds[-1]


async def test_probe_comes_every_quarter_of_an_hour_and_writes_one_object(story: Story) -> None:
    await story.publish()
    await story.attempt()
    story.stub.requests.clear()
    for _ in range(12):
        await story.attempt(after=timedelta(seconds=PROBE_EVERY_S / 3))

    assert [("PUT", f"/media/raw/{PROBE_NAME}")] * 4 == story.stub.requests
    assert 2 == len(story.stub.objects)


async def test_edit_lets_a_failing_export_try_at_once(story: Story) -> None:
    await story.publish()
    story.stub.fault = DENIED
    await story.attempt()
    story.stub.fault = None
    await story.work()
    assert [] == story.delivered

    story.revision = 2
    story.worker = story.restarted()
    await story.work()

    assert story.published == story.delivered
    assert "active" == story.states[-1]


async def test_process_that_dies_before_it_tells_has_another_one_tell(
    story: Story, monkeypatch: pytest.MonkeyPatch
) -> None:
    await story.publish()
    story.stub.fault = DENIED

    async def die(self: FailureTracker, progress_store: ProgressStore) -> None:
        if progress_store.progress.alerts:
            raise RuntimeError("killed")

    with monkeypatch.context() as patched:
        patched.setattr(FailureTracker, "tell", die)
        with pytest.raises(RuntimeError):
            await story.attempt()
    assert [] == story.kinds
    story.worker = story.restarted()
    await story.work()
    await story.attempt()

    assert ["export-failed"] == story.kinds
    assert () == (await story.progress()).alerts
