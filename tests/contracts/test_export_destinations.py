"""Every destination of `DestinationConfig` keeps the promises of `exporter.pipeline.ports.Destination`."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, get_args

import msgspec
import pytest

from exporter.destinations import DestinationConfig
from exporter.destinations.connection_test import probe_store
from exporter.destinations.gateway import GatewayConfig
from exporter.destinations.platform import Platform
from exporter.destinations.s3 import S3Config
from exporter.destinations.store_destination import StoreDestination
from shared.aws.clients import AwsClients
from shared.config.secret import Secret
from shared.errors import ConflictError, InvalidError, MillraceError
from shared.objects.app_reports import open_reports
from shared.runtime.settings import Settings
from support.outgoing import open_outgoing
from support.servers.moto import MotoServer

GZIP = "application/gzip"
KEY = "raw/2026/11/22/2026-11-22 02:45:00.csv.gz"


async def s3(moto: MotoServer) -> S3Config:
    await moto.create_bucket("exports")
    return S3Config(
        bucket="exports",
        region=moto.region,
        access_key=moto.credentials.access_key_id,
        secret_key=moto.credentials.secret_access_key,
        directory="raw",
        endpoint_url=moto.url,
    )


async def gateway(moto: MotoServer) -> GatewayConfig:
    return GatewayConfig(directory="raw")


DESTINATIONS: dict[type[DestinationConfig], Callable[[MotoServer], Awaitable[DestinationConfig]]] = {
    S3Config: s3,
    GatewayConfig: gateway,
}
"""Makes an empty place for each member of the union, and returns the configuration that leads there."""


def test_every_destination_has_a_place() -> None:
    assert set(get_args(DestinationConfig)) == set(DESTINATIONS)


@pytest.fixture
async def platform(tmp_path: Path) -> AsyncIterator[Platform]:
    async def external_id(app_key: str) -> str:
        return f"{app_key}:of-a-test"

    async with open_outgoing() as outgoing, AwsClients(outgoing) as aws:
        opened = partial(open_reports, Settings(data_dir=str(tmp_path)), outgoing)
        yield Platform(outgoing=outgoing, allow_private=True, open_reports=opened, aws=aws, external_id=external_id)


@pytest.fixture(params=DESTINATIONS, ids=lambda config: config.__name__)
async def config(request: pytest.FixtureRequest, moto: MotoServer) -> DestinationConfig:
    return await DESTINATIONS[request.param](moto)


@pytest.fixture
async def s3_config(moto: MotoServer) -> S3Config:
    return await s3(moto)


@pytest.fixture
async def destination(config: DestinationConfig, platform: Platform) -> AsyncIterator[StoreDestination]:
    async with config.open("shop", platform) as destination:
        yield destination


@asynccontextmanager
async def changed(config: S3Config, platform: Platform, **fields: Any) -> AsyncIterator[StoreDestination]:
    async with msgspec.structs.replace(config, **fields).open("shop", platform) as destination:
        yield destination


async def test_object_is_read_back_as_it_was_put(destination: StoreDestination) -> None:
    await destination.put(KEY, b"\x1f\x8b bytes", GZIP)

    assert b"\x1f\x8b bytes" == await destination.read(KEY, 8)


async def test_object_is_not_overwritten_when_there_is_one(destination: StoreDestination) -> None:
    await destination.put(KEY, b"first", GZIP)

    with pytest.raises(ConflictError):
        await destination.put(KEY, b"second", GZIP)

    assert b"first" == await destination.read(KEY, 5)


async def test_nothing_is_read_when_there_is_no_object_of_the_size(destination: StoreDestination) -> None:
    await destination.put(KEY, b"first", GZIP)

    assert None is await destination.read(KEY, 6)
    assert None is await destination.read("raw/none", 5)


async def test_object_as_large_as_a_file_is_put_in_one_piece(destination: StoreDestination) -> None:
    data = bytes(range(256)) * (20 << 12)

    await destination.put(KEY, data, GZIP)

    assert data == await destination.read(KEY, len(data))


async def test_probe_passes_and_leaves_nothing_when_everything_is_allowed(
    config: DestinationConfig, platform: Platform
) -> None:
    report = await probe_store(lambda: config.open("shop", platform), "raw/.probe")

    assert ("ok", ["ok"] * 4) == (report.status, [step.status for step in report.steps])
    assert ["open", "put", "get", "delete"] == [step.name for step in report.steps]
    async with config.open("shop", platform) as destination:
        assert None is await destination.read("raw/.probe", 59)


async def test_missing_bucket_is_reported(s3_config: S3Config, platform: Platform) -> None:
    async with changed(s3_config, platform, bucket="nobodys") as destination:
        with pytest.raises(MillraceError) as caught:
            await destination.put(KEY, b"x", GZIP)

    assert "not_found" == caught.value.code
    assert "NoSuchBucket" in caught.value.message


async def test_unknown_keys_are_refused(s3_config: S3Config, platform: Platform, moto: MotoServer) -> None:
    await moto.demand_real_keys()
    async with changed(
        s3_config, platform, access_key="AKIANOBODY", secret_key=Secret("wrong-wrong-wrong")
    ) as destination:
        with pytest.raises(MillraceError) as caught:
            await destination.put(KEY, b"x", GZIP)

    assert "credentials" == caught.value.code
    assert "wrong-wrong-wrong" not in str(caught.value)


async def test_probe_reports_the_step_the_code_and_what_to_do(
    s3_config: S3Config, platform: Platform, moto: MotoServer
) -> None:
    await moto.demand_real_keys()
    wrong = changed(s3_config, platform, access_key="AKIANOBODY", secret_key=Secret("wrong-wrong-wrong"))

    report = await probe_store(lambda: wrong, "raw/.probe")

    assert ["ok", "failed", "skipped", "skipped"] == [step.status for step in report.steps]
    failed = report.steps[1]
    assert ("put", "InvalidAccessKeyId") == (failed.name, failed.code)
    assert failed.hint


async def test_probe_warns_when_it_may_not_delete(s3_config: S3Config, platform: Platform, moto: MotoServer) -> None:
    keys = await moto.create_user("writer", actions=("s3:PutObject", "s3:GetObject"))
    await moto.demand_real_keys()
    writer = changed(s3_config, platform, access_key=keys.access_key_id, secret_key=keys.secret_access_key)

    report = await probe_store(lambda: writer, "raw/.probe")

    assert "warning" == report.status
    assert ["ok", "ok", "ok", "warning"] == [step.status for step in report.steps]
    assert "AccessDenied" == report.steps[3].code


async def test_probe_ends_in_time_when_the_store_does_not_answer() -> None:
    class Silent:
        async def put(self, key: str, data: bytes, content_type: str) -> None:
            await asyncio.Event().wait()

        async def read(self, key: str, size_bytes: int) -> bytes | None:
            return None

        async def delete(self, key: str) -> None:
            return

    @asynccontextmanager
    async def silent() -> AsyncIterator[Silent]:
        yield Silent()

    report = await probe_store(silent, "raw/.probe", deadline_s=0.05)

    assert ("put", "failed", "timeout") == (report.steps[1].name, report.steps[1].status, report.steps[1].code)


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"secret_key": Secret("")}, "destination.secret_key"),
        ({"secret_key": Secret("two words")}, "destination.secret_key"),
        ({"directory": "a/../b"}, "destination.directory"),
        ({"directory": "a\nb"}, "destination.directory"),
        ({"endpoint_url": "http://store.example.com"}, "destination.endpoint_url"),
        ({"endpoint_url": "https://127.0.0.1:9000"}, "destination.endpoint_url"),
    ],
)
async def test_form_is_refused_when_a_field_cannot_be_right(
    s3_config: S3Config, fields: dict[str, Any], field: str
) -> None:
    values: dict[str, Any] = {"endpoint_url": ""} | fields

    with pytest.raises(InvalidError) as caught:
        msgspec.structs.replace(s3_config, **values).check(allow_private=False)

    assert field == caught.value.field


async def test_endpoint_is_not_connected_to_when_its_name_leads_into_our_network(
    s3_config: S3Config, platform: Platform
) -> None:
    async with open_outgoing(allow_private_endpoints=False) as outgoing:
        closed = msgspec.structs.replace(platform, outgoing=outgoing)
        async with changed(s3_config, closed, endpoint_url="https://localhost") as destination:
            with pytest.raises(InvalidError, match="reachable from the internet"):
                await destination.put("key", b"content", GZIP)


@pytest.mark.parametrize("directory", ["raw/clicks", "/raw/clicks", "raw/clicks/", "raw//clicks"])
async def test_location_is_the_same_however_the_directory_is_written(s3_config: S3Config, directory: str) -> None:
    folder = msgspec.structs.replace(s3_config, directory=directory).folder

    assert "raw/clicks" == folder
