"""`/reports`: the customer gets by SFTP the files that the exporter leaves for the app, and nothing else."""

import csv
import gzip
import hashlib
from typing import Any

import asyncssh
import msgspec
import pytest

from exporter.app import SERVICE as EXPORTER
from ftp_gateway.sftp.app_report_folder import PART_BYTES
from shared.contracts import subjects
from shared.contracts.messages import Event, encode
from shared.contracts.subjects import partition_of
from shared.messaging.bus import Bus
from shared.objects.app_reports import open_reports
from shared.runtime.settings import Settings
from support.clients.ftp_gateway import Gateway, read, write
from support.outgoing import open_outgoing
from support.run_service import RunService
from support.servers.moto import MotoServer
from support.waiting import until


@pytest.fixture(params=["directory", "bucket"])
async def settings(request: pytest.FixtureRequest, settings: Settings, moto: MotoServer) -> Settings:
    """The store of reports is a directory or a bucket; both services have the same."""
    if request.param == "directory":
        return settings
    await moto.create_bucket("platform")
    return msgspec.structs.replace(
        settings,
        reports_bucket="platform",
        reports_region=moto.region,
        reports_endpoint_url=moto.url,
        reports_access_key_id=moto.credentials.access_key_id,
        reports_secret_access_key=moto.credentials.secret_access_key.reveal(),
    )


@pytest.fixture
async def gateway(gateway: Gateway) -> Gateway:
    await gateway.user(app_key="rival")
    return gateway


async def put(settings: Settings, name: str, data: bytes, *, app_key: str = "shop") -> None:
    async with open_outgoing() as outgoing, open_reports(settings, outgoing) as store:
        await store.put(f"{app_key}/{name}", data, content_type="text/plain")


async def test_file_of_an_export_is_got_by_sftp(gateway: Gateway, run_service: RunService, bus: Bus) -> None:
    async with run_service(EXPORTER) as exporter, gateway.sftp() as client, gateway.sftp("rival.nightly") as rival:
        export = f"{exporter.url}/v1/apps/shop/exports/clicks"
        form = {"data": "clicks", "destination": {"type": "gateway", "directory": "clicks"}}
        async with gateway.http.put(export, json=form) as answer:
            assert 200 == answer.status, await answer.text()
        event = Event(id="a", app_key="shop", type="click", code="click", user_id="u", occurred_at=1_795_314_667_123)
        await bus.publish(subjects.events("shop", partition_of("u")), encode([event]))
        async with gateway.http.post(f"{export}/flush") as answer:
            assert "completed" == (await answer.json())["state"]

        [name] = set(await client.listdir("/reports")) - {".", ".."}
        data = await read(client, f"/reports/{name}")
        others = set(await rival.listdir("/reports")) - {".", ".."}
        with pytest.raises(asyncssh.SFTPNoSuchFile):
            await rival.stat(f"/reports/{name}")

    assert (name.startswith("clicks_20"), name.endswith(".csv.gz")) == (True, True)
    assert ["a"] == [row["id"] for row in csv.DictReader(gzip.decompress(data).decode().splitlines())]
    assert set() == others


async def test_report_of_many_parts_is_read_whole_and_from_anywhere(gateway: Gateway, settings: Settings) -> None:
    data = b"".join(hashlib.sha256(b"%d" % number).digest() for number in range(3 * PART_BYTES // 32)) + b"the end"
    await put(settings, "big.bin", data)

    async with gateway.sftp() as client, client.open("/reports/big.bin", "rb") as file:
        whole: Any = await file.read()
        parts: list[Any] = [
            await file.read(2000, PART_BYTES - 1000),
            await file.read(2000, len(data) - 3),
            await file.read(10, len(data) + PART_BYTES),
        ]
        size = (await file.stat()).size

    assert len(data) == size
    # Compared as a whole: pytest would take minutes to show where megabytes differ.
    assert (whole == data) is True
    assert [data[PART_BYTES - 1000 : PART_BYTES + 1000], b"end", b""] == parts


async def test_empty_report_is_read(gateway: Gateway, settings: Settings) -> None:
    await put(settings, "empty.csv", b"")

    async with gateway.sftp() as client:
        assert (0, b"") == (await client.getsize("/reports/empty.csv"), await read(client, "/reports/empty.csv"))


async def test_reports_are_read_only(gateway: Gateway, settings: Settings) -> None:
    await put(settings, "a.csv", b"as it was")

    async with gateway.sftp() as client:
        attributes = await client.stat("/reports/a.csv")
        for change in (
            write(client, "/reports/a.csv", b"other"),
            write(client, "/reports/b.csv", b"new"),
            client.remove("/reports/a.csv"),
            client.rename("/reports/a.csv", "/a.csv"),
            client.posix_rename("/reports/a.csv", "/reports/b.csv"),
            client.mkdir("/reports/folder"),
        ):
            with pytest.raises(asyncssh.SFTPPermissionDenied):
                await change
        await client.utime("/reports/a.csv", (1.0, 1.0))
        with pytest.raises(asyncssh.SFTPFailure, match="a file"):
            await client.listdir("/reports/a.csv")

        assert b"as it was" == await read(client, "/reports/a.csv")
        assert 0o440 == (attributes.permissions or 0) & 0o777
        assert {".", "..", "a.csv"} == set(await client.listdir("/reports"))


async def test_names_that_no_path_can_have_are_left_out(gateway: Gateway, settings: Settings) -> None:
    for name in ("a.csv", "Ağustos raporu.csv", "back\\slash.csv", "x" * 201, ".millrace-probe-1", "deep/er.csv"):
        await put(settings, name, b"x")

    async with gateway.sftp() as client:
        names = set(await client.listdir("/reports"))
        for hidden in (".millrace-probe-1", "deep/er.csv", "none.csv", "a#1"):
            assert not await client.exists(f"/reports/{hidden}")

    assert {".", "..", "a.csv", "Ağustos raporu.csv"} == names


async def test_new_report_is_read_at_once_and_listed_soon(gateway: Gateway, settings: Settings) -> None:
    async with gateway.sftp() as client:
        assert 2 == len(await client.listdir("/reports"))
        await put(settings, "a.csv", b"new")

        assert b"new" == await read(client, "/reports/a.csv")

        async def listed() -> bool:
            return "a.csv" in await client.listdir("/reports")

        await until(listed, within_s=15)


@pytest.mark.parametrize("settings", ["bucket"], indirect=True)
async def test_store_that_is_away_fails_reports_alone(gateway: Gateway, settings: Settings, moto: MotoServer) -> None:
    await put(settings, "a.csv", b"x")
    await moto.demand_real_keys()

    async with gateway.sftp() as client:
        with pytest.raises(asyncssh.SFTPError):
            await client.listdir("/reports")
        with pytest.raises(asyncssh.SFTPError):
            await client.stat("/reports/a.csv")
        assert "reports" in await client.listdir("/")
