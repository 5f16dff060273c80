"""Status of a file: by HTTP while it is here and after, and by `ftp.file.<app>.<state>`."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime

import pytest
from nats.js.api import DiscardPolicy

from ftp_gateway.app import SERVICE
from ftp_gateway.parsing.formats import CHUNK_ROWS
from ftp_gateway.processing.publisher import PACK_CHUNKS
from shared.contracts import streams, subjects
from shared.contracts.messages import FileChanged, encode
from shared.messaging.bus import Bus
from shared.runtime.settings import Settings
from support.clients.ftp_gateway import ROW, Gateway, events, process, rows, wait_gone, write
from support.run_service import running
from support.waiting import until

MIXED = b"1;Hello;https://x.example\n2;no link\n1;Again;https://x.example\n;Hello;https://x.example\n"


async def stop_after(bus: Bus, messages: int | None) -> None:
    """Limit `PUSH` to so many messages, or to no number."""
    config = (await bus.js.stream_info(streams.PUSH.name)).config
    await bus.js.update_stream(config.evolve(max_msgs=messages or -1, discard=DiscardPolicy.NEW))


def figures(event: FileChanged) -> tuple[str, int, int, int, int, str | None]:
    return event.file_name, event.rows, event.rows_ok, event.rows_bad, event.duplicates, event.reason


async def test_every_state_of_a_file_is_published_with_its_figures(gateway: Gateway, bus: Bus) -> None:
    async with gateway.sftp() as client:
        result = await process(client, "/mixed.csv", MIXED)
        await process(client, "/again.csv", MIXED)
        await process(client, "/broken.csv", MIXED + b"3;Hel")
    async with gateway.connect() as connection, connection.start_sftp_client() as client:
        file = await client.open("/part.csv", "wb")
        await file.write(ROW)
        connection.abort()
    await until(lambda: events(bus, "partial"))

    assert [
        ("mixed.csv", 4, 2, 2, 1, None),
        ("again.csv", 4, 2, 2, 1, None),
        ("broken.csv", 5, 0, 5, 1, None),
    ] == [figures(event) for event in await events(bus, "received")]
    [completed] = await events(bus, "completed")
    [duplicate] = await events(bus, "duplicate")
    [failed] = await events(bus, "failed")
    [partial] = await events(bus, "partial")
    assert ("mixed.csv", 4, 2, 2, 1, None) == figures(completed)
    assert ("again.csv", 4, 0, 2, 1, None) == figures(duplicate)
    assert ("broken.csv", 5, 0, 5, 1, "truncated") == figures(failed)
    assert ("part.csv", len(ROW)) == (partial.file_name, partial.size_bytes)
    assert (result["seconds"], result["file_id"]) == (completed.seconds, completed.file_id)
    assert {"rows": 4, "ok": 2, "failed": 2, "duplicates": 1}.items() <= result.items()


@pytest.fixture
async def replica(gateway: Gateway, settings: Settings) -> AsyncIterator[Gateway]:
    """Another gateway, on the same spool."""
    async with running(SERVICE, settings) as other:
        yield Gateway(other, gateway.http)


async def test_progress_of_a_file_is_shown_by_every_replica_while_it_is_published(
    gateway: Gateway, replica: Gateway, bus: Bus
) -> None:
    half = PACK_CHUNKS * CHUNK_ROWS
    data = b"".join(b"%d;Hello;https://x.example\n" % number for number in range(2 * half)) + b"no row\n"
    await stop_after(bus, PACK_CHUNKS)

    async with gateway.sftp() as client:
        await write(client, "/big.csv", data)

        async def halfway() -> bool:
            found = await gateway.files(state="processing")
            return bool(found) and half - 10 < found[0].get("rows_ok", 0) <= half

        await until(halfway)
        [file] = await gateway.files()
        assert file == await gateway.file(file["file_id"])
        [elsewhere] = await replica.files()
        # The moment of the last write is measured by each for itself.
        assert file | {"at": ""} == elsewhere | {"at": ""}
        await stop_after(bus, None)
        await wait_gone(client, "/big.csv")

    assert ("processing", 2 * half + 1, 1) == (file["state"], file["rows"], file["rows_bad"])
    done = await gateway.file(file["file_id"])
    assert ("completed", 2 * half + 1, 2 * half, 1) == (done["state"], done["rows"], done["rows_ok"], done["rows_bad"])
    assert 2 * half == len(await rows(bus))


async def test_files_are_listed_by_state_and_page(gateway: Gateway) -> None:
    async with gateway.sftp() as client:
        for number in range(3):
            await process(client, f"/{number}.csv", b"%d;Hello;https://x.example\n" % number)
        await process(client, "/empty.csv", b"")
        await write(client, "/later.csv.part")

    first = await gateway.files(state="completed", limit=2)
    rest = await gateway.files(state="completed", limit=2, before=first[-1]["at"])

    assert [["2.csv", "1.csv"], ["0.csv"]] == [[file["name"] for file in page] for page in (first, rest)]
    assert ["empty.csv"] == [file["name"] for file in await gateway.files(state="failed")]
    assert ["later.csv.part"] == [file["name"] for file in await gateway.files(state="uploaded")]
    assert ["later.csv.part", "empty.csv"] == [file["name"] for file in await gateway.files(limit=2)]


async def test_event_that_cannot_be_read_hides_no_file(gateway: Gateway, bus: Bus) -> None:
    async with gateway.sftp() as client:
        result = await process(client, "/a.csv", ROW)
    await bus.publish(subjects.ftp_file("shop", "completed"), b"garbage")

    assert ["a.csv"] == [file["name"] for file in await gateway.files(state="completed")]
    assert "a.csv" == (await gateway.file(result["file_id"]))["name"]


async def test_one_file_is_shown_as_it_was_last(gateway: Gateway) -> None:
    async with gateway.sftp() as client:
        result = await process(client, "/monday.csv", ROW)
        first = await gateway.file(result["file_id"])
        await process(client, "/tuesday.csv", ROW)
        second = await gateway.file(result["file_id"])

    assert ("monday.csv", "completed", 1, result["seconds"]) == (
        first["name"],
        first["state"],
        first["rows_ok"],
        first["seconds"],
    )
    assert ("tuesday.csv", "duplicate") == (second["name"], second["state"])
    await gateway.file("0" * 64, status=404)


async def test_the_files_of_an_app_are_found_behind_those_of_others(
    gateway: Gateway, bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shared.messaging.reverse_scan.FIRST_RANGE", 5)
    async with gateway.sftp() as client:
        monday = await process(client, "/monday.csv", ROW)
        for number in range(40):
            event = FileChanged(
                app_key="rival",
                file_id=str(number),
                file_name="r.csv",
                kind="push",
                state="completed",
                at=datetime.now(UTC),
            )
            await bus.publish(subjects.ftp_file("rival", "completed"), encode(event))
        await process(client, "/tuesday.csv", b"2;Hello;https://x.example\n")

    assert ["tuesday.csv", "monday.csv"] == [file["name"] for file in await gateway.files()]
    assert "monday.csv" == (await gateway.file(monday["file_id"]))["name"]
