"""
Exports against what a user would write: from JetStream to files, in microseconds of CPU for an event of 300 bytes.

Ours is a whole run with its plans, its cursor and its record; the store keeps nothing, since every way would put the
same objects. Memory, fairness and idle cost are those of a process of the service with many exports.
"""

import tempfile
from collections.abc import Sequence
from pathlib import Path

from msgspec import Struct

from millrace.nats_servers.server import NatsServer
from millrace.verbs.bench import Report, Row, compare, rounds
from shared.contracts import streams
from shared.messaging.connection import connect
from shared.messaging.provisioning.making import provision
from shared.runtime.settings import Settings
from shared.runtime.telemetry import Metrics

from .events import ClickLoad, publish
from .many import many_exports
from .sides import CLICKS, EVENTS, avro_writer, csv_writer, fetched, our_reading, ours

NAME = "exports"
ROUNDS = 3
BATCH = 50
EXPORTS = 50


class Size(Struct, frozen=True):
    """The events of the comparisons: in messages of 50, in messages of one, and for each of many exports."""

    packed: int
    single: int
    each: int


SIZE = Size(packed=1_000_000, single=200_000, each=100_000)


async def rows(report: Report, size: Size = SIZE) -> list[Row]:
    """Microseconds of CPU, megabytes, shares, milliseconds."""
    return [
        *await _speed_rows(
            ClickLoad(size.packed, BATCH), f"messages of {BATCH}", report, csv_at_most=1 / 2.5, avro=1 / 3
        ),
        *await _speed_rows(ClickLoad(size.single, 1), "messages of one", report),
        *await _many_rows(size, report),
    ]


async def _speed_rows(
    load: ClickLoad, name: str, report: Report, *, csv_at_most: float | None = None, avro: float | None = None
) -> list[Row]:
    with tempfile.TemporaryDirectory(prefix="millrace-bench-") as folder:
        async with (
            NatsServer(Path(folder), sync_interval="2m") as server,
            connect("bench", server.url, metrics=Metrics(), wait_s=5) as bus,
        ):
            await provision(bus, Settings())
            await publish(server.url, load)
            assert (await bus.stream_state(streams.EVENTS)).messages == load.messages
            report(f"{ROUNDS} rounds in turn: {load.events} events in {name}, read alone")
            read = await rounds(ROUNDS, lambda: our_reading(bus, load), lambda: fetched(server.url, load))
            report(f"{ROUNDS} rounds in turn: the same as .csv.gz")
            text = await rounds(ROUNDS, lambda: ours(bus, load, CLICKS), lambda: csv_writer(server.url, load))
            report(f"{ROUNDS} rounds in turn: the same as .avro")
            avros = await rounds(ROUNDS, lambda: ours(bus, load, EVENTS), lambda: avro_writer(server.url, load))
    return [
        compare(f"{name}, read alone, against fetch()", *read, "us CPU"),
        compare(
            f"{name}, 63 columns to csv.gz, against fetch(), msgspec, csv.DictWriter and gzip at 6",
            *text,
            "us CPU",
            at_most=csv_at_most,
            ours_at_most=csv_at_most and 1e6 / 150_000,
            beside=_per_second(text[0]),
        ),
        compare(
            f"{name}, to avro, against fetch(), msgspec and fastavro",
            *avros,
            "us CPU",
            at_most=avro,
            beside=_per_second(avros[0]),
        ),
    ]


def _per_second(found: Sequence[float]) -> str:
    return f"{1e6 / sorted(found)[len(found) // 2]:.0f} rows a second of CPU"


async def _many_rows(size: Size, report: Report) -> list[Row]:
    found = await many_exports(EXPORTS, ClickLoad(size.each, BATCH), report)
    events = EXPORTS * size.each
    share = found.first_files_s / found.all_s
    return [
        compare(f"memory with {EXPORTS} exports and {events} events behind", [found.peak_mb], [300], "MB", at_most=1),
        compare(
            "until every export has a file, of the time of all",
            [share],
            [1 - 1 / EXPORTS],
            "share",
            ours_at_most=0.5,
            beside=f"{found.first_files_s:.1f} of {found.all_s:.1f} s; the other is one export after the other",
        ),
        compare("an idle export", [found.idle_ms], [1], "ms CPU a second", at_most=1),
    ]
