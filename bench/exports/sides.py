"""
Those that are compared: all clicks of `EVENTS` as files. Each gives the microseconds of CPU of this process for one.

The others are what a user would write: nats-py's `fetch()`, msgspec, and the writers of the standard library and of
fastavro, with one file for all, no plan, no exactness and no care for an event that cannot be read.
"""

import csv
import gzip
import io
import itertools
import resource
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import fastavro
import fastavro.write
import msgspec
import nats
from nats.js.api import AckPolicy, ConsumerConfig

from exporter.exports.job import ExportJob
from exporter.exports.progress_store import ProgressStore
from exporter.exports.retry_budget import Signals
from exporter.exports.run_store import RunStore
from exporter.exports.runner import ExportRunner
from exporter.exports.schedule import Schedule
from exporter.exports.window_writer import WriterDependencies
from exporter.exports.worker import first_progress
from exporter.formats import FORMATS
from exporter.formats.avro import schema_of
from exporter.layouts import LAYOUTS
from exporter.layouts.affise import CLICK_COLUMNS
from exporter.layouts.currents.schemas import newest_schema
from exporter.pipeline.content import Content
from exporter.pipeline.origin import Origin
from exporter.pipeline.ports import Destination
from exporter.pipeline.selection import EventSelection
from exporter.pipeline.source import EventSource
from shared.contracts import streams, subjects
from shared.contracts.keys import export_progress_key
from shared.messaging.bus import Bus
from shared.messaging.kv import KeyValueStore
from shared.runtime.telemetry import Metrics

from .events import APP, ClickLoad

CLICKS = Content(selection=EventSelection(data="clicks"))
EVENTS = Content(selection=EventSelection(data="events"), layout="currents", format="avro")
FETCHED = 500
GZIP_LEVEL = 6

_numbers = itertools.count()


class Forgetting:
    """A store that keeps nothing. Satisfies `Destination`."""

    async def put(self, key: str, data: bytes, content_type: str) -> str:
        return ""

    async def read(self, key: str, size_bytes: int) -> bytes | None:
        return None


def cpu_s() -> float:
    """Seconds of CPU of this process, with all its threads."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


async def ours(bus: Bus, load: ClickLoad, content: Content) -> float:
    """A run of an export, with its plans and its record, into a store that keeps nothing."""
    origin = Origin(app_key=APP, export_id=f"bench-{next(_numbers)}")

    @asynccontextmanager
    async def open_destination() -> AsyncIterator[Destination]:
        yield Forgetting()

    job = ExportJob(
        app_key=APP,
        export_id=origin.export_id,
        revision=1,
        content=content,
        schedule=Schedule(every_s=900),
        layout_of=lambda content: LAYOUTS[content.layout](origin, content),
        format_of=lambda content: FORMATS[content.format],
        location="nowhere",
        directory="bench",
        open_destination=open_destination,
    )
    dependencies = WriterDependencies(
        source=EventSource(bus), run_store=RunStore(KeyValueStore(bus, streams.RUNS)), clock=lambda: datetime.now(UTC)
    )
    runner = ExportRunner(dependencies, owner="bench", publish_alert=bus.alert, metrics=Metrics())
    progress_store = ProgressStore(KeyValueStore(bus, streams.PLANS), export_progress_key(APP, origin.export_id))
    await progress_store.begin(first_progress(job.schedule, 0, dependencies.clock()))
    began = cpu_s()
    run = await runner.run(job, progress_store, trigger="manual", signals=Signals())
    used_s = cpu_s() - began
    assert (run.state, run.rows_out) == ("completed", load.events), run
    return 1e6 * used_s / load.events


async def our_reading(bus: Bus, load: ClickLoad) -> float:
    """The messages alone, as an export reads them."""
    source = EventSource(bus)
    until = (await source.state()).last_sequence
    began, got = cpu_s(), 0
    async with source.open(APP, after=0, until=until) as events:
        while messages := await events.next():
            got += len(messages)
    assert got == load.messages
    return 1e6 * (cpu_s() - began) / load.events


async def fetched(nats_url: str, load: ClickLoad, take: Callable[[bytes], None] = lambda data: None) -> float:
    """Messages of `fetch()`, each taken by a function."""
    async with await nats.connect(nats_url) as client:
        subscription = await client.jetstream().pull_subscribe(
            subjects.events_of_app(APP),
            durable=f"bench-{next(_numbers)}",
            stream=streams.EVENTS.name,
            config=ConsumerConfig(ack_policy=AckPolicy.NONE),
        )
        began, got = cpu_s(), 0
        while got < load.messages:
            for message in await subscription.fetch(min(FETCHED, load.messages - got)):
                take(message.data)
                got += 1
        used_s = cpu_s() - began
        await subscription.unsubscribe()
    return 1e6 * used_s / load.events


async def csv_writer(nats_url: str, load: ClickLoad) -> float:
    """`csv.DictWriter` into gzip of level 6, the columns of a file of clicks."""
    with (
        gzip.GzipFile(fileobj=io.BytesIO(), mode="wb", compresslevel=GZIP_LEVEL) as packed,
        io.TextIOWrapper(packed, newline="") as text,
    ):
        writer = csv.DictWriter(text, CLICK_COLUMNS, restval="", extrasaction="ignore")
        writer.writeheader()

        def take(data: bytes) -> None:
            for event in msgspec.json.decode(data):
                fields = {"id": event["id"], "created_at": event["occurred_at"], "user_id": event["user_id"]}
                writer.writerow(event["attributes"] | fields)

        began = cpu_s()
        await fetched(nats_url, load, take)
        text.flush()
    return 1e6 * (cpu_s() - began) / load.events


async def avro_writer(nats_url: str, load: ClickLoad) -> float:
    """fastavro's `Writer` with deflate, and the schema of a file of clicks."""
    schema: dict[str, Any] = schema_of(newest_schema("millrace.click")[1])
    writer = fastavro.write.Writer(io.BytesIO(), fastavro.parse_schema(schema), codec="deflate")

    def take(data: bytes) -> None:
        for event in msgspec.json.decode(data):
            writer.write(
                {
                    "id": event["id"],
                    "user_id": event["user_id"],
                    "app_id": event["app_key"],
                    "name": event["code"],
                    "time": event["occurred_at"] // 1000,
                    "external_user_id": event.get("ext_id"),
                    "occurred_at": event["occurred_at"],
                    "properties": msgspec.json.encode(event["attributes"]).decode(),
                    "user_properties": None,
                }
            )

    began = cpu_s()
    await fetched(nats_url, load, take)
    writer.flush()
    return 1e6 * (cpu_s() - began) / load.events
