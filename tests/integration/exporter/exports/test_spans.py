"""Jobs with an end, as replays are: all events of the span and no other ones, once, wherever a run is killed."""

import pytest
from msgspec.structs import replace

from exporter.exports.job import Span
from exporter.exports.progress_store import ProgressStore
from shared.contracts.streams import EVENTS
from shared.messaging.bus import Bus
from shared.runtime.settings import Settings
from support.loaded_export import LoadedExport

PUTS = 4
"""Those of two windows of one type: two files and two manifests."""


@pytest.fixture
async def replay(export_bus: Bus) -> LoadedExport:
    """A replay of the events `e2` to `e5` of eight."""
    replay = LoadedExport(export_bus)
    for number in range(8):
        await replay.publish(f"e{number}")
    replay.job = replace(replay.job, export_id="events=r", span=Span(first_sequence=3, last_sequence=6))
    return replay


@pytest.mark.parametrize("stored", [False, True])
@pytest.mark.parametrize("put", range(1, PUTS + 1))
async def test_every_event_of_a_span_is_written_once_when_a_run_is_killed_at_a_put(
    replay: LoadedExport, put: int, stored: bool
) -> None:
    replay.bucket.hangs_at = (put, stored)

    await replay.killed()
    run = await replay.run(owner="two")

    assert "completed" == run.state
    assert ["e2", "e3", "e4", "e5"] == sorted(replay.bucket.loaded)
    assert [(3, 4), (5, 6)] == sorted(replay.bucket.windows)


async def test_span_is_over_when_its_last_event_is_delivered(replay: LoadedExport) -> None:
    progress_store = ProgressStore(replay.plans, "shop.events=r")

    run = await replay.run()

    assert await progress_store.load()
    assert replay.job.is_done(progress_store.progress)
    assert (3, 6, 4) == (run.first_sequence, run.last_sequence, run.rows_out)


async def test_expired_events_of_a_span_are_counted_and_no_later_ones(replay: LoadedExport, settings: Settings) -> None:
    await replay.bus.js.purge_stream(EVENTS.name, seq=5)

    run = await replay.run()

    assert ("completed", 2, 2) == (run.state, run.rows_out, run.rows_dropped)
    assert ["e4", "e5"] == replay.bucket.loaded


async def test_span_that_has_expired_is_over_with_everything_counted(replay: LoadedExport) -> None:
    await replay.bus.js.purge_stream(EVENTS.name, seq=8)

    run = await replay.run()

    assert ("completed", 0, 4) == (run.state, run.rows_out, run.rows_dropped)
    assert {} == replay.bucket.objects


async def test_replay_fails_when_the_stream_was_made_anew(replay: LoadedExport) -> None:
    replay.job = replace(replay.job, span=Span(first_sequence=3, last_sequence=60))

    run = await replay.run()

    assert "failed" == run.state
    assert run.error is not None
    assert "EVENTS was made anew" in run.error.message
