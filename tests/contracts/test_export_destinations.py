"""Every destination of `DestinationConfig` keeps the promises of `exporter.pipeline.ports.Destination`."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, get_args

import msgspec
import pytest
import pytest_asyncio

from exporter.destinations import DestinationConfig
from exporter.destinations.azure import AzureConfig
from exporter.destinations.connection_test import probe_store
from exporter.destinations.gateway import GatewayConfig
from exporter.destinations.local import LocalFolderConfig
from exporter.destinations.platform import Platform
from exporter.destinations.s3 import S3Config
from exporter.destinations.store_destination import StoreDestination
from shared.aws.clients import AwsClients
from shared.config.secret import Secret
from shared.errors import ConflictError, DeniedError, InvalidError, MillraceError, UnavailableError
from shared.objects.app_reports import open_reports
from shared.runtime.settings import Settings
from support.outgoing import open_outgoing
from support.servers.azurite import AzuriteServer
from support.servers.moto import MotoServer
from support.servers.stub_store import Fault, StubStore

GZIP = "application/gzip"
KEY = "raw/2026/11/22/2026-11-22 02:45:00.csv.gz"


PLACES: dict[type[DestinationConfig], str] = {
    S3Config: "s3_config",
    AzureConfig: "azure_config",
    LocalFolderConfig: "local_config",
    GatewayConfig: "gateway_config",
}
"""The fixture of each member's configuration, which leads to an empty place."""


def test_every_destination_has_a_place() -> None:
    assert set(get_args(DestinationConfig)) == set(PLACES)


@pytest.fixture
async def s3_config(moto: MotoServer) -> S3Config:
    await moto.create_bucket("exports")
    return S3Config(
        bucket="exports",
        region=moto.region,
        access_key=moto.credentials.access_key_id,
        secret_key=moto.credentials.secret_access_key,
        directory="raw",
        endpoint_url=moto.url,
    )


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def azurite() -> AsyncIterator[AzuriteServer]:
    if AzuriteServer.installed() is None:
        pytest.skip("Azurite is not installed: `npm install --prefix .azurite azurite`")
    async with AzuriteServer() as server:
        yield server


@pytest.fixture
async def azure_config(azurite: AzuriteServer, request: pytest.FixtureRequest) -> AzureConfig:
    container = f"c{abs(hash(request.node.nodeid)):x}"
    await azurite.create_container(container)
    return AzureConfig(
        account_name=azurite.account_name,
        account_key=azurite.account_key,
        container=container,
        directory="raw",
        endpoint_url=azurite.endpoint,
    )


@pytest.fixture
def local_config() -> LocalFolderConfig:
    return LocalFolderConfig(directory="raw")


@pytest.fixture
def gateway_config() -> GatewayConfig:
    return GatewayConfig(directory="raw")


@pytest.fixture
async def platform(tmp_path: Path) -> AsyncIterator[Platform]:
    async def external_id(app_key: str) -> str:
        return f"{app_key}:of-a-test"

    local = tmp_path / "local"
    local.mkdir()
    async with open_outgoing() as outgoing, AwsClients(outgoing) as aws:
        yield Platform(
            outgoing=outgoing,
            allow_private=True,
            open_reports=partial(open_reports, Settings(data_dir=str(tmp_path)), outgoing),
            aws=aws,
            external_id=external_id,
            local_dir=str(local),
        )


@pytest.fixture(params=PLACES, ids=lambda config: config.__name__)
def config(request: pytest.FixtureRequest) -> DestinationConfig:
    """A configuration of each member in turn."""
    place: DestinationConfig = request.getfixturevalue(PLACES[request.param])
    return place


@pytest.fixture
async def destination(config: DestinationConfig, platform: Platform) -> AsyncIterator[StoreDestination]:
    async with config.open("shop", platform) as destination:
        yield destination


@asynccontextmanager
async def changed(config: S3Config | AzureConfig, platform: Platform, **fields: Any) -> AsyncIterator[StoreDestination]:
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


def test_configuration_is_one_that_is_accepted(config: DestinationConfig) -> None:
    config.check(allow_private=True)


async def test_object_is_whole_or_absent_when_its_put_is_cancelled(
    config: DestinationConfig, platform: Platform
) -> None:
    data = bytes(range(256)) * (8 << 12)
    async with config.open("shop", platform) as destination:
        putting = asyncio.ensure_future(destination.put(KEY, data, GZIP))
        await asyncio.wait([putting], timeout=0.005)
        putting.cancel()
        await asyncio.wait([putting])

        with suppress(ConflictError):
            await destination.put(KEY, data, GZIP)
        assert data == await destination.read(KEY, len(data))


async def test_missing_container_is_reported(azure_config: AzureConfig, platform: Platform) -> None:
    async with changed(azure_config, platform, container="nobodys") as destination:
        with pytest.raises(MillraceError, match="ContainerNotFound") as caught:
            await destination.put(KEY, b"x", GZIP)

    assert "not_found" == caught.value.code


async def test_unknown_account_key_is_refused(azure_config: AzureConfig, platform: Platform) -> None:
    wrong = changed(azure_config, platform, account_key=Secret("d3Jvbmcga2V5IQ=="))

    report = await probe_store(lambda: wrong, "raw/.probe")

    assert ["ok", "failed", "skipped", "skipped"] == [step.status for step in report.steps]
    assert ("put", "AuthorizationFailure") == (report.steps[1].name, report.steps[1].code)
    assert "d3Jvbmcga2V5IQ" not in str(report)


async def test_container_is_written_with_a_signature_that_may_not_delete(
    azure_config: AzureConfig, platform: Platform, azurite: AzuriteServer
) -> None:
    signed = azurite.sas_token(azure_config.container, permissions="rcw")
    config = msgspec.structs.replace(azure_config, account_key=Secret(""), sas_token=signed)
    config.check(allow_private=True)
    async with config.open("shop", platform) as destination:
        await destination.put(KEY, b"first", GZIP)
        with pytest.raises(ConflictError):
            await destination.put(KEY, b"second", GZIP)
        assert b"first" == await destination.read(KEY, 5)

    report = await probe_store(lambda: config.open("shop", platform), "raw/.probe")

    assert ["ok", "ok", "ok", "warning"] == [step.status for step in report.steps]
    assert "sig=" not in str(report)


async def test_files_and_the_object_of_the_test_are_stored_with_the_encryption_of_the_form(
    s3_config: S3Config, platform: Platform
) -> None:
    async with StubStore("s3") as stub:
        config = msgspec.structs.replace(
            s3_config, endpoint_url=stub.url, sse="aws:kms", sse_kms_key_id="alias/exports"
        )
        report = await probe_store(lambda: config.open("shop", platform), "raw/.probe")
        async with config.open("shop", platform) as destination:
            await destination.put(KEY, b"content", GZIP)

    puts = [headers for (method, _), headers in zip(stub.requests, stub.headers, strict=True) if method == "PUT"]
    asked = ("x-amz-server-side-encryption", "x-amz-server-side-encryption-aws-kms-key-id")
    assert "ok" == report.status
    assert len(puts) >= 2
    assert {("aws:kms", "alias/exports")} == {tuple(headers[name] for name in asked) for headers in puts}


@pytest.mark.parametrize(("overwrites", "code"), [(False, "NotImplemented"), (True, "Overwritten")])
async def test_probe_warns_of_a_store_that_would_write_over_an_object(
    s3_config: S3Config, platform: Platform, overwrites: bool, code: str
) -> None:
    async with StubStore("s3") as stub:
        stub.overwrites = overwrites
        if not overwrites:
            stub.fault = Fault(status=501, code="NotImplemented", methods=frozenset({"PUT"}), conditional=True)
        config = msgspec.structs.replace(s3_config, endpoint_url=stub.url)

        report = await probe_store(lambda: config.open("shop", platform), "raw/.probe")

    put = next(step for step in report.steps if step.name == "put")
    assert ("warning", "warning", code) == (report.status, put.status, put.code)
    assert "If-None-Match" in put.message
    assert {} == stub.objects


async def test_local_files_lie_below_the_operators_directory(
    local_config: LocalFolderConfig, platform: Platform
) -> None:
    async with local_config.open("shop", platform) as destination:
        await destination.put(KEY, b"content", GZIP)

    assert b"content" == (Path(platform.local_dir) / KEY).read_bytes()


async def test_local_destination_follows_no_link(
    local_config: LocalFolderConfig, platform: Platform, tmp_path: Path
) -> None:
    (tmp_path / "elsewhere").mkdir()
    (Path(platform.local_dir) / "raw").symlink_to(tmp_path / "elsewhere")

    async with local_config.open("shop", platform) as destination:
        with pytest.raises(DeniedError, match="symbolic link"):
            await destination.put(KEY, b"content", GZIP)

    assert [] == list((tmp_path / "elsewhere").iterdir())


async def test_local_destination_needs_the_operators_directory(
    local_config: LocalFolderConfig, platform: Platform
) -> None:
    for local_dir, kind in (("", InvalidError), ("/no/such/directory", UnavailableError)):
        elsewhere = msgspec.structs.replace(platform, local_dir=local_dir)
        with pytest.raises(kind, match="MILLRACE_EXPORTER_LOCAL_DIR"):
            async with local_config.open("shop", elsewhere):
                pass


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
        knows_conditions = True

        async def put(self, key: str, data: bytes, content_type: str) -> str:
            await asyncio.Event().wait()
            return ""

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
