"""Runs into stores that misbehave: in the end the objects are the events, each once, and an error says what to do."""

import csv
import gzip
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from io import StringIO
from typing import Any

import pytest
from msgspec.structs import replace

from exporter.destinations.azure import AzureConfig
from exporter.destinations.platform import Platform
from exporter.destinations.s3 import S3Config
from exporter.exports import retry_budget
from exporter.exports.job import ExportJob
from exporter.exports.progress_store import ProgressStore
from exporter.exports.retry_budget import Signals
from exporter.exports.run_store import Run, RunStore
from exporter.exports.runner import ExportRunner
from exporter.exports.schedule import Schedule
from exporter.exports.window_writer import WriterDependencies
from exporter.exports.worker import first_progress
from exporter.formats import FORMATS
from exporter.layouts import LAYOUTS
from exporter.layouts.affise import AffiseLayout
from exporter.pipeline.content import Content
from exporter.pipeline.origin import Origin
from exporter.pipeline.ports import FileName, WindowLimits
from exporter.pipeline.selection import EventSelection
from exporter.pipeline.source import EventSource
from shared.config.secret import Secret
from shared.contracts import streams, subjects
from shared.contracts.messages import Alert, Event, encode
from shared.contracts.subjects import partition_of
from shared.messaging.bus import Bus
from shared.messaging.kv import KeyValueStore
from shared.objects.app_reports import open_reports
from shared.objects.config import StoreLimits
from shared.runtime.retry import Backoff
from shared.runtime.settings import Settings
from shared.runtime.telemetry import Metrics
from support.outgoing import aws_clients, open_outgoing
from support.servers.stub_store import SECRET, Fault, StubStore

ORIGIN = Origin(app_key="shop", export_id="clicks")
NOON = datetime(2026, 11, 22, 12, 0, 0, tzinfo=UTC)
IDS = ["a", "b", "c", "d", "e", "f"]
SHORT = StoreLimits(connect_s=2, request_s=1, retries=0)


class NamedBySequence(AffiseLayout):
    """Clicks under names that a window alone has, as files of events are."""

    is_named_by_second = False  # type: ignore[misc]

    def name(self, name: FileName) -> str:
        return f"{name.first_sequence:010}"


class FaultyWorld:
    """An export of six clicks, two in a file, into a stub of a store. The clock moves by a period with each run."""

    def __init__(self, bus: Bus, stub: StubStore, platform: Platform) -> None:
        self.stub = stub
        self.alerts: list[Alert] = []
        self._bus = bus
        self._now = NOON
        self._plans = KeyValueStore(bus, streams.PLANS)
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
            open_destination=lambda: self._config().open("shop", platform, limits=SHORT),
        )

    def _config(self) -> S3Config | AzureConfig:
        fields: dict[str, Any] = {"directory": "raw", "endpoint_url": self.stub.url}
        if self.stub.speaks == "s3":
            return S3Config(bucket="media", region="eu-west-1", access_key="stub", secret_key=Secret(SECRET), **fields)
        fields["endpoint_url"] += "/stub"
        return AzureConfig(account_name="stub", account_key=Secret(SECRET), container="media", **fields)

    async def publish(self) -> None:
        for pair in zip(IDS[::2], IDS[1::2], strict=True):
            events = [
                Event(id=one, app_key="shop", type="click", code="click", user_id="u", occurred_at=1) for one in pair
            ]
            await self._bus.publish(subjects.events("shop", partition_of("u")), encode(events))

    async def run(self) -> Run:
        self._now += timedelta(minutes=15)
        progress_store = ProgressStore(self._plans, "shop.clicks")
        if not await progress_store.load():
            await progress_store.begin(first_progress(self.job.schedule, 0, self._now))
        dependencies = WriterDependencies(
            source=EventSource(self._bus),
            run_store=RunStore(KeyValueStore(self._bus, streams.RUNS)),
            clock=lambda: self._now,
            limits=WindowLimits(rows=2, rows_behind=2),
        )

        async def record(alert: Alert) -> None:
            self.alerts.append(alert)

        runner = ExportRunner(dependencies, owner="one", publish_alert=record, metrics=Metrics())
        run = await runner.run(self.job, progress_store, trigger="schedule", signals=Signals())
        assert SECRET not in f"{run} {self.alerts}"
        return run

    @property
    def files(self) -> dict[str, bytes]:
        """The objects below the directory of the export."""
        return {path: body for path, (body, _) in self.stub.objects.items() if "/raw/" in path}

    @property
    def ids(self) -> list[str]:
        """The ids of all rows of all objects, in the order of their names."""
        texts = [gzip.decompress(body).decode() for _, body in sorted(self.files.items())]
        return [row[0] for text in texts for row in list(csv.reader(StringIO(text)))[1:]]


@pytest.fixture(params=["s3", "azure"])
async def world(
    request: pytest.FixtureRequest, export_bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[FaultyWorld]:
    monkeypatch.setattr(retry_budget, "BACKOFF", Backoff(first_s=0.01, max_s=0.05))

    async def external_id(app_key: str) -> str:
        return f"{app_key}:unused"

    async with StubStore(request.param) as stub, open_outgoing() as outgoing, aws_clients() as aws:
        opened = partial(open_reports, Settings(), outgoing)
        platform = Platform(
            outgoing=outgoing, allow_private=True, open_reports=opened, aws=aws, external_id=external_id
        )
        world = FaultyWorld(export_bus, stub, platform)
        await world.publish()
        yield world


PUT = frozenset({"PUT"})
SLOW = {"s3": "SlowDown", "azure": "ServerBusy"}
DENIED = {"s3": "AccessDenied", "azure": "AuthorizationFailure"}
SKEWED = {"s3": "RequestTimeTooSkewed", "azure": "AuthenticationFailed"}

PASSING: dict[str, Callable[[str], Fault]] = {
    "500": lambda speaks: Fault(status=500, code="InternalError", methods=PUT, times=3),
    "503": lambda speaks: Fault(status=503, code=SLOW[speaks], methods=PUT, times=3),
    "503 without a body": lambda speaks: Fault(status=503, methods=PUT, times=3),
    "409 of two writers at once": lambda speaks: Fault(
        status=409, code="ConditionalRequestConflict", methods=PUT, times=2
    ),
    "409 of another reason": lambda speaks: Fault(status=409, code="SomethingElse", methods=PUT, times=2),
    "hang": lambda speaks: Fault(deed="hang", methods=PUT, times=1),
    "close": lambda speaks: Fault(deed="close", methods=PUT, times=2),
    "close in the upload": lambda speaks: Fault(deed="close in upload", methods=PUT, times=2),
    "close after storing": lambda speaks: Fault(deed="store and close", methods=PUT, times=2),
    "no HTTP": lambda speaks: Fault(deed="garbage", methods=PUT, times=2),
    "501 to a condition": lambda speaks: Fault(status=501, code="NotImplemented", methods=PUT, conditional=True),
    "304 to a condition": lambda speaks: Fault(status=304, methods=PUT, conditional=True),
}
"""Faults that end within one run, or that a run gets by."""


@pytest.mark.parametrize("fault", PASSING.values(), ids=PASSING)
async def test_run_gets_by_and_stores_each_row_once(world: FaultyWorld, fault: Callable[[str], Fault]) -> None:
    # A file that is taken for another writer's fails the run.
    world.job = replace(world.job, layout_of=lambda content: NamedBySequence(ORIGIN, content))
    world.stub.fault = fault(world.stub.speaks)

    run = await world.run()

    assert ("completed", None) == (run.state, run.error)
    assert IDS == world.ids
    assert 3 == len(world.files) == len(run.files)
    assert [] == world.alerts


@pytest.mark.parametrize("deed", ["close after storing", "close"])
async def test_object_whose_answer_was_lost_is_recognized_by_a_later_run(world: FaultyWorld, deed: str) -> None:
    """The process dies after each upload, so that a later run finds the objects or not."""
    stored = "store and close" if deed == "close after storing" else "close"
    for _ in range(3):
        world.stub.fault = Fault(deed=stored, methods=PUT, times=1)  # type: ignore[arg-type]
        await world.run()

    assert IDS == world.ids
    assert 3 == len(world.files)


@pytest.mark.parametrize("codes", [DENIED, SKEWED], ids=["denied", "clock skew"])
async def test_refusal_for_an_hour_loses_and_repeats_nothing(world: FaultyWorld, codes: dict[str, str]) -> None:
    code = codes[world.stub.speaks]
    world.stub.fault = Fault(status=403, code=code)
    failed = [await world.run() for _ in range(4)]
    assert {} == world.files
    world.stub.fault = None

    run = await world.run()

    assert ["failed"] * 4 == [one.state for one in failed]
    for one in failed:
        assert one.error is not None
        assert f"{code}: " in one.error.message
        assert codes is not SKEWED or "clock" in one.error.message
    assert "completed" == run.state
    assert IDS == world.ids
    assert 3 == len(world.files)


async def test_object_of_another_writer_is_left_and_stops_the_export(world: FaultyWorld) -> None:
    world.job = replace(world.job, layout_of=lambda content: NamedBySequence(ORIGIN, content))
    account = "" if world.stub.speaks == "s3" else "/stub"
    taken = f"{account}/media/raw/0000000002.csv.gz"
    world.stub.objects[taken] = b"not ours", {}

    runs = [await world.run() for _ in range(2)]

    for run in runs:
        assert run.error is not None
        assert ("failed", "conflict") == (run.state, run.error.code)
        assert "raw/0000000002.csv.gz" in run.error.message
    assert b"not ours" == world.files[taken]
    assert 2 == len(world.files)

    del world.stub.objects[taken]
    assert "completed" == (await world.run()).state
    assert IDS == world.ids


async def test_right_to_read_is_named_where_it_is_needed_and_missing(world: FaultyWorld) -> None:
    account = "" if world.stub.speaks == "s3" else "/stub"
    world.stub.objects[f"{account}/media/raw/2026/11/22/2026-11-22 12:15:00.csv.gz"] = b"not ours", {}
    world.stub.fault = Fault(status=403, code=DENIED[world.stub.speaks], methods=frozenset({"HEAD", "GET"}))

    run = await world.run()

    assert run.error is not None
    assert ("failed", "denied") == (run.state, run.error.code)
    assert "expected the right to read it" in run.error.message
    assert 1 == len(world.files)


async def test_name_that_another_writer_has_is_passed_over_where_names_are_seconds(world: FaultyWorld) -> None:
    account = "" if world.stub.speaks == "s3" else "/stub"
    taken = f"{account}/media/raw/2026/11/22/2026-11-22 12:15:00.csv.gz"
    theirs = gzip.compress(b"not ours\n")
    world.stub.objects[taken] = theirs, {}

    run = await world.run()

    assert "completed" == run.state
    assert theirs == world.files[taken]
    assert IDS == world.ids
    assert 4 == len(world.files)
