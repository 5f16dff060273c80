"""Processing of an uploaded file, from the rename or the settled close to the stream, the report and the event."""

import codecs
from pathlib import Path

import asyncssh
import pytest

from millrace.nats_servers.server import NatsServer
from shared.contracts import streams, subjects
from shared.contracts.messages import ProfileBatch, PushBatch, decode, make_profile_attributes
from shared.messaging.bus import Bus
from shared.profiles.store import Profiles
from support.clients.ftp_gateway import ROW, Gateway, events, process, read, rows, wait_gone, write
from support.stored_messages import messages
from support.waiting import until

DEMO = Path(__file__).parents[4] / "demo"


@pytest.fixture
async def gateway(gateway: Gateway) -> Gateway:
    await gateway.user(app_key="rival")
    return gateway


async def test_a_push_file_becomes_commands_and_a_report_and_is_deleted(gateway: Gateway, bus: Bus) -> None:
    async with gateway.sftp() as client:
        result = await process(client, "/push.csv", (DEMO / "push.csv").read_bytes())
        report = (await read(client, "/errors/push.csv.report.csv")).decode("utf-8-sig").splitlines()

    sent = await rows(bus)
    assert ["12345", "67890", "54321", "98765", "13579", "11223", "00042"] == [row.ext_id for row in sent]
    assert sent[3].text == "Welcome to our platform!\nNew articles are available in your feed."
    assert report[0] == "line;code;message;excerpt"
    assert [["6", "ext_id_missing"], ["7", "columns"]] == [line.split(";")[:2] for line in report[1:]]
    assert {"rows": 9, "ok": 7, "failed": 2, "outcome": "done_with_errors"}.items() <= result.items()
    [completed] = await events(bus, "completed")
    assert (7, 2, result["file_id"]) == (completed.rows_ok, completed.rows_bad, completed.file_id)


async def test_a_profile_file_reaches_the_profiles(gateway: Gateway, bus: Bus) -> None:
    async with gateway.sftp() as client:
        await process(client, "/Profile/profile.txt", (DEMO / "profile.txt").read_bytes())

    profiles = Profiles(bus)
    await until(lambda: profiles.get("shop", "54321"))
    found = [await profiles.get("shop", ext_id) for ext_id in ("12345", "67890", "54321")]
    expected = ({"city": "İzmir", "age": 25}, {"city": "more ~ data", "age": 30}, {"city": "Ankara"})
    assert [make_profile_attributes(values) for values in expected] == [
        profile.attributes for profile in found if profile
    ]
    assert found[0] is not None
    assert ("ayse@example.com", ("token123",)) == (found[0].email, found[0].device_tokens)
    [batch] = await messages(bus, streams.PROFILE_UPDATES, subjects.profile_update("shop", "*"))
    assert [2, 3, 4] == [row.line for row in decode(batch.data, ProfileBatch).rows]


async def test_unknown_users_are_rows_of_the_report_where_the_app_refuses_them(gateway: Gateway, bus: Bus) -> None:
    await gateway.put("/v1/apps/shop", {"settle_s": 0.05, "unknown_users": "reject"})
    await Profiles(bus).merge("shop", "12345", attributes=make_profile_attributes({"city": "Bursa"}))

    async with gateway.sftp() as client:
        result = await process(client, "/Profile/p.txt", (DEMO / "profile.txt").read_bytes())

    assert (1, 2) == (result["ok"], result["failed"])
    [batch] = await messages(bus, streams.PROFILE_UPDATES, subjects.profile_update("shop", "*"))
    assert ["12345"] == [row.ext_id for row in decode(batch.data, ProfileBatch).rows]


async def test_a_large_file_goes_out_in_chunks_of_five_hundred(gateway: Gateway, bus: Bus) -> None:
    async with gateway.sftp() as client:
        result = await process(client, "/big.csv", b"".join(b"%d;Hello;https://x.example\n" % n for n in range(1700)))

    found = await messages(bus, streams.PUSH, subjects.push_send("shop", result["file_id"]))
    parts = [decode(message.data, PushBatch) for message in found]
    assert [(1, 500), (501, 1000), (1001, 1500), (1501, 1700)] == [(part.first_line, part.last_line) for part in parts]
    assert [f"{result['file_id']}:{line}" for line in range(1, 1701)] == [row.id for part in parts for row in part.rows]


async def test_a_file_with_a_bad_row_is_accepted_whole_or_not_at_all_where_the_app_says_so(
    gateway: Gateway, bus: Bus
) -> None:
    await gateway.put("/v1/apps/shop", {"settle_s": 0.05, "all_or_nothing": True})

    async with gateway.sftp() as client:
        refused = await process(client, "/refused.csv", ROW + b"bad\n")
        report = await read(client, "/errors/refused.csv.report.csv")
        nothing = await rows(bus)
        taken = await process(client, "/taken.csv", ROW)

    assert ("rejected", "all_or_nothing", 2) == (refused["outcome"], refused["reason"], refused["failed"])
    assert ["line", "", "2"] == [line.partition(";")[0] for line in report.decode("utf-8-sig").splitlines()]
    assert [] == nothing
    assert "done" == taken["outcome"]


async def test_a_rename_commits_at_once_and_the_name_stays_visible_for_the_settle_delay(
    gateway: Gateway, bus: Bus
) -> None:
    await gateway.put("/v1/apps/shop", {"settle_s": 600})

    async with gateway.sftp() as client:
        await write(client, "/push.csv.filepart", ROW)
        assert [] == await rows(bus)
        await client.rename("/push.csv.filepart", "/push.csv")
        await until(lambda: events(bus, "completed"))
        await client.utime("/push.csv", (1.0, 1.0))
        size = await client.getsize("/push.csv")

    assert len(ROW) == size
    assert ["1"] == [row.ext_id for row in await rows(bus)]


async def test_a_file_under_a_temporary_name_is_left_alone(gateway: Gateway, bus: Bus) -> None:
    async with gateway.sftp() as client:
        for name in ("a.csv.part", "a.csv.tmp", ".in.a.csv", "~a.csv", "a.csv.partial", "a.csv.uploading"):
            await write(client, f"/{name}", ROW)
        await process(client, "/last.csv", b"2;Last;https://x.example\n")
        names = await client.listdir("/")

    assert ["2"] == [row.ext_id for row in await rows(bus)]
    assert {"a.csv.part", ".in.a.csv"} <= set(names)
    assert {"uploaded"} == {file["state"] for file in await gateway.files() if file["name"] != "last.csv"}


async def test_an_upload_that_breaks_off_is_a_part_and_can_be_resumed(gateway: Gateway, bus: Bus) -> None:
    data = b"1;Hello;https://x.example\n2;Ho;https://y.example\n"

    async with gateway.connect() as connection, connection.start_sftp_client() as client:
        file = await client.open("/push.csv", "wb")
        await file.write(data[:30])
        connection.abort()
    await until(lambda: events(bus, "partial"))
    async with gateway.sftp() as client:
        size = await client.getsize("/push.csv")
        assert [] == await rows(bus)
        with pytest.raises(asyncssh.SFTPFailure, match="resume it first"):
            await client.rename("/push.csv", "/other.csv")
        async with client.open("/push.csv", "r+b") as resumed:
            await resumed.write(data[30:], 30)
        await wait_gone(client, "/push.csv")

    assert size == 30
    assert ["1", "2"] == [row.ext_id for row in await rows(bus)]


async def test_the_same_content_again_is_reported_and_not_sent(gateway: Gateway, bus: Bus) -> None:
    async with gateway.sftp() as client:
        first = await process(client, "/monday.csv", ROW)
        second = await process(client, "/tuesday.csv", ROW)
        report = await read(client, "/errors/tuesday.csv.report.csv")

    assert (first["file_id"], "duplicate") == (second["file_id"], second["outcome"])
    assert b";duplicate;" in report
    assert b".resend.csv sends it" in report
    assert len(await rows(bus)) == 1
    assert ["tuesday.csv"] == [event.file_name for event in await events(bus, "duplicate")]


async def test_the_same_name_with_other_content_is_no_problem(gateway: Gateway, bus: Bus) -> None:
    async with gateway.sftp() as client:
        await process(client, "/push.csv", ROW)
        await process(client, "/push.csv", b"2;Ho;https://y.example\n")

    assert ["1", "2"] == [row.ext_id for row in await rows(bus)]


@pytest.mark.parametrize(
    ("path", "data", "outcome", "reason"),
    [
        ("/a.csv", b"", "empty", "empty"),
        ("/a.csv", codecs.BOM_UTF8, "empty", "empty"),
        ("/a.csv", ROW + b"2;Ho;htt", "truncated", "truncated"),
        ("/a.csv", "1;Çağrı;https://x\n".encode("cp1254"), "rejected", "encoding"),
        ("/a.csv", b"1;a\0b;https://x\n", "rejected", "nul"),
        ("/Profile/a.txt", b"~~~city~shoes\n1~~~1~2\n", "rejected", "unknown_attribute"),
        ("/Profile/a.txt", b"city~age\n1~~~1~2\n", "rejected", "pattern"),
    ],
)
async def test_a_file_that_is_refused_whole_has_no_effect_but_its_report(
    gateway: Gateway, bus: Bus, path: str, data: bytes, outcome: str, reason: str
) -> None:
    await gateway.put("/v1/apps/shop", {"settle_s": 0, "profile_attributes": {"city": "string", "age": "number"}})

    async with gateway.sftp() as client:
        result = await process(client, path, data)
        report = await read(client, f"/errors/{path.rpartition('/')[2]}.report.csv")

    assert (outcome, reason, 0) == (result["outcome"], result["reason"], result.get("ok", 0))
    assert reason.encode() in report
    assert [reason] == [event.reason for event in await events(bus, "failed")]
    assert [] == await rows(bus)


async def test_a_file_in_the_fallback_encoding_is_read_where_the_app_has_one(gateway: Gateway, bus: Bus) -> None:
    await gateway.put("/v1/apps/shop", {"settle_s": 0, "fallback_encoding": "windows-1254"})

    async with gateway.sftp() as client:
        await process(client, "/a.csv", "1;Çağrı İçin;https://x\r\n".encode("cp1254"))

    assert ["Çağrı İçin"] == [row.text for row in await rows(bus)]


async def test_a_removed_file_is_never_processed(gateway: Gateway, bus: Bus) -> None:
    await gateway.put("/v1/apps/shop", {"settle_s": 600})

    async with gateway.sftp() as client:
        await write(client, "/push.csv", ROW)
        assert ["waiting"] == [file["state"] for file in await gateway.files()]
        await client.remove("/push.csv")
        await gateway.put("/v1/apps/shop", {"settle_s": 0})
        await process(client, "/other.csv", b"2;Ho;https://y.example\n")

    assert ["2"] == [row.ext_id for row in await rows(bus)]


async def test_files_of_another_tenant_are_neither_seen_nor_touched(gateway: Gateway) -> None:
    await gateway.put("/v1/apps/shop", {"settle_s": 600})

    async with gateway.sftp() as client, gateway.sftp("rival.nightly") as rival:
        await write(client, "/push.csv", ROW)
        seen = await rival.listdir("/")
        with pytest.raises(asyncssh.SFTPNoSuchFile):
            await rival.remove("/push.csv")
        with pytest.raises(asyncssh.SFTPNoSuchFile):
            await rival.stat("/../shop/push.csv")

    assert {".", "..", "Profile", "errors", "reports"} == set(seen)


async def test_what_became_of_a_file_is_listed_with_its_counts(gateway: Gateway) -> None:
    async with gateway.sftp() as client:
        await process(client, "/push.csv", (DEMO / "push.csv").read_bytes())
        await process(client, "/empty.csv", b"")

    listed = await gateway.files()
    assert [("empty.csv", "failed", "empty"), ("push.csv", "completed", None)] == [
        (file["name"], file["state"], file.get("reason")) for file in listed
    ]
    assert (7, 2) == (listed[1]["rows_ok"], listed[1]["rows_bad"])


async def test_a_file_waits_for_a_broker_that_is_away(gateway: Gateway, bus: Bus, nats_server: NatsServer) -> None:
    async with gateway.sftp() as client:
        await nats_server.kill()
        await write(client, "/push.csv", ROW)
        await until(lambda: not gateway.running.mesh.bus.connected)
        assert await client.exists("/push.csv")
        await nats_server.start()
        await wait_gone(client, "/push.csv")

    await until(lambda: bus.connected)
    assert ["1"] == [row.ext_id for row in await rows(bus)]
    assert len(await events(bus, "completed")) == 1
