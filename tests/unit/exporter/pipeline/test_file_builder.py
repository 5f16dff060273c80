"""A file holds the selected events, stops when it is full, and is the same when it is built again."""

import csv
import gzip
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from io import StringIO

import msgspec

from exporter.formats.csv_gzip import CsvGzip
from exporter.pipeline.events import ExportedEvent
from exporter.pipeline.file_builder import ExportFileBuilder, FileLimits
from exporter.pipeline.selection import EventSelection
from shared.contracts.messages import Event, EventType, make_attributes

CLICKS = EventSelection(data="clicks")


class TwoColumns:
    """The smallest layout."""

    columns: Sequence[str] = ("id", "partner_id")

    def row(self, event: ExportedEvent) -> list[str]:
        return [event.id, str(event.attributes.get("partner_id", ""))]

    def name(self, at: datetime) -> str:
        return f"{at:%H%M%S}"


class Stored(msgspec.Struct, frozen=True):
    """A message of the stream."""

    sequence: int
    data: bytes


def events(*ids: str, kind: EventType = "click", partner_id: int = 4) -> list[Event]:
    return [
        Event(
            id=name,
            app_key="app",
            type=kind,
            code="x",
            user_id="u",
            occurred_at=0,
            attributes=make_attributes({"partner_id": partner_id}),
        )
        for name in ids
    ]


def message(sequence: int, *parts: list[Event]) -> Stored:
    return Stored(sequence, msgspec.json.encode([event for part in parts for event in part]))


@contextmanager
def opened_file(selection: EventSelection = CLICKS, limits: FileLimits | None = None) -> Iterator[ExportFileBuilder]:
    file = ExportFileBuilder("app", selection, TwoColumns(), CsvGzip, limits)
    try:
        yield file
    finally:
        file.close()


def ids_in(file: ExportFileBuilder) -> list[str]:
    return [row[0] for row in csv.reader(StringIO(gzip.decompress(file.read()).decode()))][1:]


def test_events_of_the_type_become_rows_in_their_order() -> None:
    with opened_file() as file:
        file.add([message(3, events("a", "b"), events("c", kind="conversion")), message(8, events("d"))])
        file.finish()

        assert ["a", "b", "d"] == ids_in(file)
        assert (3, 8) == (file.first_sequence, file.last_sequence)
        assert (3, 3, 0) == (file.rows_in, file.rows_out, file.rows_dropped)


def test_events_that_the_lists_exclude_are_counted_in_and_not_out() -> None:
    with opened_file(EventSelection(data="clicks", affiliates=(4,))) as file:
        file.add([message(1, events("a"), events("b", partner_id=5))])
        file.finish()

        assert ["a"] == ids_in(file)
        assert (2, 1) == (file.rows_in, file.rows_out)


def test_message_that_would_pass_the_limit_is_left_for_the_next_file() -> None:
    with opened_file(limits=FileLimits(rows=3)) as file:
        accepted = file.add([message(1, events("a", "b")), message(2, events("c", "d")), message(3, events("e"))])
        file.finish()

        assert 1 == accepted
        assert file.full
        assert ["a", "b"] == ids_in(file)


def test_message_larger_than_a_file_is_a_file_of_its_own() -> None:
    with opened_file(limits=FileLimits(rows=1)) as file:
        assert 1 == file.add([message(1, events("a", "b")), message(2, events("c"))])


def test_file_is_full_when_its_compressed_size_is_reached() -> None:
    noise = [
        message(number, events(*(f"{number}-{place * 7919 % 104729:x}" for place in range(5000))))
        for number in range(1, 40)
    ]
    with opened_file(limits=FileLimits(size_bytes=1000)) as file:
        accepted = file.add(noise)

        assert file.full
        assert 0 < accepted < len(noise)
        assert file.size_bytes >= 1000


def test_message_that_holds_no_events_is_dropped_and_counted() -> None:
    with opened_file() as file:
        file.add(
            [message(1, events("a")), Stored(2, b"\xff not json"), Stored(3, b'{"id": 1}'), message(4, events("b"))]
        )
        file.finish()

        assert ["a", "b"] == ids_in(file)
        assert 2 == file.rows_dropped
        assert 4 == file.last_sequence


def test_bad_events_and_those_of_another_app_are_dropped_and_counted_one_by_one() -> None:
    foreign = msgspec.structs.replace(events("foreign")[0], app_key="rival")
    data = msgspec.json.encode([*events("a"), foreign, *events("b")])
    with opened_file() as file:
        file.add([Stored(1, data), Stored(2, data.replace(b'"a"', b"NaN"))])
        file.finish()

        assert ["a", "b", "b"] == ids_in(file)
        assert (3, 3, 3) == (file.rows_in, file.rows_out, file.rows_dropped)


def test_file_is_the_same_when_it_is_built_again_from_other_batches() -> None:
    messages = [message(number, events(*(f"{number}.{place}" for place in range(50)))) for number in range(1, 400)]
    with opened_file(limits=FileLimits(rows=10_000)) as first, opened_file() as again:
        accepted = first.add(messages)
        first.finish()
        for one in messages[:accepted]:
            again.add([one])
        again.finish()

        assert first.read() == again.read()
        assert first.sha256 == again.sha256
        assert first.size_bytes == again.size_bytes == len(again.read())
