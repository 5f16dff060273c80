"""An export of all events with manifests, into a bucket in memory with a loader, for tests. No test lives here."""

import asyncio
import gzip
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from exporter.exports.job import ExportJob
from exporter.exports.manifests import Manifest
from exporter.exports.progress import LEASE_S
from exporter.exports.progress_store import ProgressStore
from exporter.exports.retry_budget import Signals
from exporter.exports.run_store import Run, RunStore
from exporter.exports.runner import ExportRunner
from exporter.exports.schedule import Schedule
from exporter.exports.window_writer import WriterDependencies
from exporter.exports.worker import first_progress_of
from exporter.formats import FORMATS
from exporter.layouts import LAYOUTS
from exporter.pipeline.content import Content
from exporter.pipeline.origin import Origin
from exporter.pipeline.ports import Destination, WindowLimits
from exporter.pipeline.selection import EventSelection
from exporter.pipeline.source import EventSource
from shared.contracts import streams, subjects
from shared.contracts.keys import export_progress_key
from shared.contracts.messages import Event, EventType, encode
from shared.contracts.subjects import partition_of
from shared.errors import ConflictError, MillraceError
from shared.messaging.bus import Bus
from shared.messaging.kv import KeyValueStore
from shared.runtime.telemetry import Metrics

ORIGIN = Origin(app_key="shop", export_id="events")
CONTENT = Content(selection=EventSelection(data="events"), layout="currents", format="ndjson.gz", manifest=True)
KINDS: tuple[EventType, ...] = ("event", "click", "conversion")


class LoadedBucket:
    """
    A bucket with a loader, which reads the files of each new manifest and takes them away, also in the middle of a run.

    `hangs_at` is the number of a put that does not return: `stored` tells whether its object is there all the same.
    """

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.loaded: list[str] = []
        self.windows: list[tuple[int, int]] = []
        self.puts = 0
        self.hangs_at: tuple[int, bool] | None = None
        self.hanging = asyncio.Event()
        self.refusal: MillraceError | None = None

    async def put(self, key: str, data: bytes, content_type: str) -> str:
        self.puts += 1
        if self.refusal is not None:
            raise self.refusal
        at, stored = self.hangs_at or (0, False)
        if self.puts == at and not stored:
            await self._hang()
        if key in self.objects:
            raise ConflictError("there is one")
        assert ("application/json" == content_type) == ("_manifest/" in key)
        self.objects[key] = data
        self.load()
        if self.puts == at:
            await self._hang()
        return ""

    async def read(self, key: str, size_bytes: int) -> bytes | None:
        data = self.objects.get(key)
        return data if data is not None and len(data) == size_bytes else None

    async def _hang(self) -> None:
        self.hangs_at = None
        self.hanging.set()
        await asyncio.Event().wait()

    @property
    def manifests(self) -> list[str]:
        return sorted(key for key in self.objects if key.startswith("raw/_manifest/"))

    def load(self) -> None:
        for key in self.manifests:
            manifest = msgspec.json.decode(self.objects[key], type=Manifest)
            window = (manifest.first_sequence, manifest.last_sequence)
            if window in self.windows:
                continue
            self.windows.append(window)
            assert f"raw/_manifest/{window[0]:010}-{window[1]:010}.json" == key
            rows = 0
            for file in manifest.files:
                data = self.objects.pop(file.key)
                assert (file.size_bytes, file.sha256) == (len(data), hashlib.sha256(data).hexdigest())
                lines = gzip.decompress(data).splitlines()
                assert file.rows == len(lines)
                rows += len(lines)
                self.loaded += [msgspec.json.decode(line)["id"] for line in lines]
            assert manifest.rows == rows
            assert manifest.types == tuple(sorted({file.type for file in manifest.files}))


class LoadedExport:
    """An export of all events with manifests, in windows of two events of a type."""

    def __init__(self, bus: Bus) -> None:
        self.bus = bus
        self.now = datetime(2026, 11, 22, 12, 0, 0, tzinfo=UTC)
        self.bucket = LoadedBucket()
        self.plans = KeyValueStore(bus, streams.PLANS)
        self.job = ExportJob(
            app_key="shop",
            export_id="events",
            revision=1,
            content=CONTENT,
            schedule=Schedule(every_s=900),
            layout_of=lambda content: LAYOUTS[content.layout](ORIGIN, content),
            format_of=lambda content: FORMATS[content.format],
            location="here",
            directory="raw",
            open_destination=self._open,
        )

    @asynccontextmanager
    async def _open(self) -> AsyncIterator[Destination]:
        yield self.bucket

    async def publish(self, *ids: str, kind: EventType = "event") -> None:
        events = [Event(id=one, app_key="shop", type=kind, code="x", user_id="u", occurred_at=1) for one in ids]
        await self.bus.publish(subjects.events("shop", partition_of("u")), encode(events))

    async def run(self, owner: str = "one") -> Run:
        """Run once, a lease after the step before, so that nobody's claim holds any more."""
        self.now += timedelta(seconds=LEASE_S)
        progress_store = ProgressStore(self.plans, export_progress_key("shop", self.job.export_id))
        if not await progress_store.load():
            await progress_store.begin(first_progress_of(self.job, 0, self.now))
        dependencies = WriterDependencies(
            source=EventSource(self.bus),
            run_store=RunStore(KeyValueStore(self.bus, streams.RUNS)),
            clock=lambda: self.now,
            limits=WindowLimits(rows=2, rows_behind=2),
        )

        async def alert(alert: object, message_id: str | None = None) -> None:
            pass

        runner = ExportRunner(dependencies, owner=owner, publish_alert=alert, metrics=Metrics())
        return await runner.run(self.job, progress_store, trigger="schedule", signals=Signals())

    async def killed(self) -> None:
        """Run until the put that hangs, and kill the run there."""
        running = asyncio.ensure_future(self.run())
        await self.bucket.hanging.wait()
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
