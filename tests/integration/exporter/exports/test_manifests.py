"""Manifests: a loader that waits for them sees every window whole, once, wherever a run is killed."""

import msgspec
import pytest
from msgspec.structs import replace

from exporter.exports.manifests import Manifest
from exporter.pipeline.selection import EventSelection
from shared.errors import CredentialsError
from shared.messaging.bus import Bus
from support.loaded_export import CONTENT, KINDS, LoadedExport


@pytest.fixture
async def export(export_bus: Bus) -> LoadedExport:
    return LoadedExport(export_bus)


PUTS = 8
"""Those of two windows with three types of events each: six files and two manifests."""


@pytest.mark.parametrize("stored", [False, True])
@pytest.mark.parametrize("put", range(1, PUTS + 1))
async def test_loader_gets_every_event_once_when_a_run_is_killed_at_a_put(
    export: LoadedExport, put: int, stored: bool
) -> None:
    ids = []
    for number in range(4):
        for kind in KINDS:
            ids.append(f"{kind}{number}")
            await export.publish(ids[-1], kind=kind)
    export.bucket.hangs_at = (put, stored)

    await export.killed()
    run = await export.run(owner="two")

    assert "completed" == run.state
    assert sorted(ids) == sorted(export.bucket.loaded)
    assert [(1, 6), (7, 12)] == sorted(export.bucket.windows)
    assert export.bucket.manifests == sorted(export.bucket.objects)


async def test_window_without_files_has_no_manifest(export: LoadedExport) -> None:
    selection = EventSelection(data="events", types=("millrace.click",))
    export.job = replace(export.job, content=replace(CONTENT, selection=selection))
    await export.publish("a")

    run = await export.run()

    assert ("completed", {}) == (run.state, export.bucket.objects)


@pytest.mark.parametrize("planned", [False, True])
async def test_planned_window_keeps_its_form_when_the_option_changes(export: LoadedExport, planned: bool) -> None:
    export.job = replace(export.job, content=replace(CONTENT, manifest=planned))
    await export.publish("a")
    export.bucket.refusal = CredentialsError("refused")
    await export.run()
    export.bucket.refusal = None
    export.job = replace(export.job, content=replace(CONTENT, manifest=not planned), revision=2)
    await export.publish("b")

    await export.run()

    assert ["0000000001-0000000001.json" if planned else "0000000002-0000000002.json"] == [
        key.removeprefix("raw/_manifest/") for key in export.bucket.manifests
    ]


async def test_run_fails_where_the_name_of_a_manifest_is_taken(export: LoadedExport) -> None:
    await export.publish("a")
    export.bucket.windows.append((1, 1))
    export.bucket.objects["raw/_manifest/0000000001-0000000001.json"] = msgspec.json.encode(
        Manifest(
            app_key="shop",
            export_id="other",
            first_sequence=1,
            last_sequence=1,
            rows=0,
            size_bytes=0,
            types=(),
            files=(),
        )
    )

    run = await export.run()

    assert "failed" == run.state
    assert run.error is not None
    assert "raw/_manifest/0000000001-0000000001.json" in run.error.message
