"""The record of a run counts each window once, and rows in are always rows out, filtered and dropped."""

from datetime import UTC, datetime

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from exporter.exports.progress import PlannedFile, WindowPlan
from exporter.exports.run_store import MOST_FILES, Run, counted, with_window
from exporter.pipeline.content import Content
from exporter.pipeline.selection import EventSelection

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
RUN = Run(id="r1", app_key="shop", export_id="clicks", trigger="manual", started_at=NOON)


def plan(last: int, *rows: int, filtered: int = 0, dropped: int = 0) -> WindowPlan:
    return WindowPlan(
        named_at=NOON,
        revision=1,
        location="here",
        content=Content(selection=EventSelection(data="clicks")),
        first_sequence=last,
        last_sequence=last,
        rows_in=sum(rows) + filtered,
        rows_dropped=dropped,
        files=tuple(
            PlannedFile(key=f"{last}/{place}", rows=one, size_bytes=10, sha256="ab") for place, one in enumerate(rows)
        ),
    )


windows = st.lists(
    st.tuples(st.lists(st.integers(1, 9), max_size=3), st.integers(0, 9), st.integers(0, 9), st.integers(1, 3)),
    max_size=20,
)


@given(windows=windows, gap=st.integers(0, 5))
def test_rows_in_are_rows_out_filtered_and_dropped_however_often_a_window_is_told(
    windows: list[tuple[list[int], int, int, int]], gap: int
) -> None:
    run = counted(RUN, rows_dropped=gap)
    for last, (rows, filtered, dropped, times) in enumerate(windows, start=1):
        for _ in range(times):
            run = with_window(run, plan(last, *rows, filtered=filtered, dropped=dropped), {})

    out, kept, lost = (sum(sum(one[0]) for one in windows), sum(w[1] for w in windows), sum(w[2] for w in windows))
    assert (out, kept, lost + gap) == (run.rows_out, run.rows_filtered, run.rows_dropped)
    assert run.rows_in == run.rows_out + run.rows_filtered + run.rows_dropped
    assert sum(len(one[0]) for one in windows) == len(run.files)


def test_record_of_a_run_of_very_many_files_counts_those_that_it_does_not_list() -> None:
    run = with_window(with_window(RUN, plan(1, *[1] * (MOST_FILES - 1)), {}), plan(2, *[1] * 5), {})

    assert (MOST_FILES, 4, MOST_FILES + 4) == (len(run.files), run.files_omitted, run.rows_out)
    assert (MOST_FILES + 4) * 10 == run.size_bytes
    assert run == with_window(run, plan(2, *[1] * 5), {})


def test_file_has_the_etag_that_the_store_gave() -> None:
    run = with_window(RUN, plan(1, 3, 4), {"1/1": "etag"})

    assert [("", "ab"), ("etag", "ab")] == [(file.etag, file.sha256) for file in run.files]


def test_window_that_the_release_before_has_counted_is_not_counted_again() -> None:
    run = msgspec.structs.replace(with_window(RUN, plan(1, 3), {}), counted_to=0)

    assert run == with_window(run, plan(1, 3), {})
