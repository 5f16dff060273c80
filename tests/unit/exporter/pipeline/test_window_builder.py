"""A window holds the selected events as one file for each part, ends when it is full, and can be built again."""

import csv
import gzip
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from io import StringIO

import msgspec

from exporter.formats.csv_gzip import CSV_GZIP
from exporter.pipeline.content import Content
from exporter.pipeline.events import read_message
from exporter.pipeline.ports import FileName, Reading, WindowLimits
from exporter.pipeline.selection import EventSelection
from exporter.pipeline.tables import Row, Table, table_of_text
from exporter.pipeline.window_builder import WindowBuilder
from shared.contracts.messages import Event, EventType, make_attributes

HOUR_NS = 3600 * 10**9
CLICKS = EventSelection(data="clicks")


class PartsByCode:
    """The smallest layout of clicks: a part for each code, with one column."""

    limits = WindowLimits()
    is_named_by_second = True

    def __init__(self, content: Content) -> None:
        self._selection = content.selection

    def read(self, data: bytes, sequence: int = 0) -> Reading:
        decoded = read_message(data, "app")
        clicks = [event for event in decoded.events if event.type == "click"]
        parts: dict[str, list[Row]] = {}
        for event in clicks:
            if event.code != "excluded":
                parts.setdefault(event.code, []).append([event.id])
        return Reading(parts, len(clicks), decoded.dropped, decoded.reason)

    def table(self, part: str) -> Table:
        return table_of_text(part, ["id"])

    def name(self, name: FileName) -> str:
        return f"{name.part}-{name.named_at:%H%M%S}"


class Stored(msgspec.Struct, frozen=True):
    """A message of the stream."""

    sequence: int
    data: bytes
    at_ns: int = 0


def events(*ids: str, kind: EventType = "click", code: str = "x") -> list[Event]:
    return [
        Event(id=name, app_key="app", type=kind, code=code, user_id="u", occurred_at=0, attributes=make_attributes({}))
        for name in ids
    ]


def message(sequence: int, *parts: list[Event], at_ns: int = 0) -> Stored:
    return Stored(sequence, msgspec.json.encode([event for part in parts for event in part]), at_ns)


@contextmanager
def opened_window(limits: WindowLimits | None = None, *, behind: bool = False) -> Iterator[WindowBuilder]:
    layout = PartsByCode(Content(selection=CLICKS))
    window = WindowBuilder("app export", layout, CSV_GZIP, limits=limits, behind=behind)
    try:
        yield window
    finally:
        window.close()


def ids_in(window: WindowBuilder, part: str = "x") -> list[str]:
    return [row[0] for row in csv.reader(StringIO(gzip.decompress(window.files[part].read()).decode()))][1:]


def test_events_of_the_type_become_rows_in_their_order() -> None:
    with opened_window() as window:
        window.add([message(3, events("a", "b"), events("c", kind="conversion")), message(8, events("d"))])
        window.finish()

        assert ["a", "b", "d"] == ids_in(window)
        assert (3, 8) == (window.first_sequence, window.last_sequence)
        assert (3, 3, 0) == (window.rows_in, window.rows_out, window.rows_dropped)


def test_each_part_is_a_file_of_its_own() -> None:
    with opened_window() as window:
        window.add([message(1, events("a"), events("b", code="y")), message(2, events("c", code="y"))])
        window.finish()

        assert ["x", "y"] == list(window.files)
        assert (["a"], ["b", "c"]) == (ids_in(window), ids_in(window, "y"))


def test_events_that_are_not_selected_are_counted_in_and_not_out() -> None:
    with opened_window() as window:
        window.add([message(1, events("a"), events("b", code="excluded"))])
        window.finish()

        assert ["a"] == ids_in(window)
        assert (2, 1) == (window.rows_in, window.rows_out)


def test_window_without_rows_has_no_file_and_moves_on() -> None:
    with opened_window() as window:
        window.add([message(4, events("b", code="excluded"))])
        window.finish()

        assert {} == window.files
        assert (0, 4) == (window.first_sequence, window.last_sequence)


def test_message_that_would_pass_the_limit_is_left_for_the_next_window() -> None:
    with opened_window(WindowLimits(rows=3)) as window:
        accepted = window.add([message(1, events("a", "b")), message(2, events("c", "d")), message(3, events("e"))])
        window.finish()

        assert 1 == accepted
        assert window.full
        assert ["a", "b"] == ids_in(window)


def test_rows_are_limited_by_part() -> None:
    with opened_window(WindowLimits(rows=2)) as window:
        accepted = window.add(
            [message(1, events("a", "b")), message(2, events("c", "d", code="y")), message(3, events("e", code="y"))]
        )

        assert 2 == accepted
        assert window.full


def test_window_of_an_export_that_is_behind_is_larger() -> None:
    with opened_window(WindowLimits(rows=1, rows_behind=3), behind=True) as window:
        assert 3 == window.add([message(number, events(str(number))) for number in range(1, 6)])


def test_message_larger_than_a_file_is_a_file_of_its_own() -> None:
    with opened_window(WindowLimits(rows=1)) as window:
        assert 1 == window.add([message(1, events("a", "b")), message(2, events("c"))])


def test_window_ends_before_it_has_too_many_parts() -> None:
    with opened_window(WindowLimits(parts=2)) as window:
        assert 2 == window.add([message(number, events("a", code=f"c{number}")) for number in range(1, 5)])


def test_hourly_window_ends_with_the_hour_in_which_its_messages_were_stored() -> None:
    with opened_window(WindowLimits(period_s=3600)) as window:
        accepted = window.add(
            [
                message(1, events("z", code="excluded"), at_ns=HOUR_NS - 9),
                message(2, events("a"), at_ns=HOUR_NS),
                message(3, events("b"), at_ns=2 * HOUR_NS - 1),
                message(4, events("c"), at_ns=2 * HOUR_NS),
            ]
        )

        assert 3 == accepted
        assert window.full
        assert datetime(1970, 1, 1, 1, tzinfo=UTC) == window.queued_at


def test_window_is_full_when_the_compressed_size_of_a_file_is_reached() -> None:
    noise = [
        message(number, events(*(f"{number}-{place * 7919 % 104729:x}" for place in range(5000))))
        for number in range(1, 40)
    ]
    with opened_window(WindowLimits(size_bytes=1000)) as window:
        accepted = window.add(noise)

        assert window.full
        assert 0 < accepted < len(noise)
        assert window.files["x"].size_bytes >= 1000


def test_message_that_holds_no_events_is_dropped_and_counted() -> None:
    with opened_window() as window:
        window.add(
            [message(1, events("a")), Stored(2, b"\xff not json"), Stored(3, b'{"id": 1}'), message(4, events("b"))]
        )
        window.finish()

        assert ["a", "b"] == ids_in(window)
        assert 2 == window.rows_dropped
        assert 4 == window.last_sequence


def test_bad_events_and_those_of_another_app_are_dropped_and_counted_one_by_one() -> None:
    foreign = msgspec.structs.replace(events("foreign")[0], app_key="rival")
    data = msgspec.json.encode([*events("a"), foreign, *events("b")])
    with opened_window() as window:
        window.add([Stored(1, data), Stored(2, data.replace(b'"a"', b"NaN"))])
        window.finish()

        assert ["a", "b", "b"] == ids_in(window)
        assert (3, 3, 3) == (window.rows_in, window.rows_out, window.rows_dropped)


def test_window_is_the_same_when_it_is_built_again_from_other_batches() -> None:
    messages = [
        message(number, events(*(f"{number}.{place}" for place in range(50)), code=f"c{number % 3}"))
        for number in range(1, 400)
    ]
    with opened_window(WindowLimits(rows=5_000)) as first, opened_window() as again:
        accepted = first.add(messages)
        first.finish()
        for one in messages[:accepted]:
            again.add([one])
        again.finish()

        assert 0 < accepted < len(messages)
        assert files_of(first) == files_of(again)


def files_of(window: WindowBuilder) -> Sequence[tuple[str, str, int, bytes]]:
    """The files of a finished window, with hash and size."""
    found = [(part, file.sha256, file.size_bytes, file.read()) for part, file in window.files.items()]
    assert all(len(data) == size_bytes for _, _, size_bytes, data in found)
    return found
