"""One suite for every Test Connection of a store: the report of each step when the store misbehaves, and its time."""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, get_args

import msgspec
import pytest

from shared.aws.roles import AwsCredentials
from shared.config.secret import Secret
from shared.contracts.connection_report import ConnectionReport, Step
from shared.outgoing.door import Outgoing
from shared.runtime.settings import Settings
from storage.providers import ProviderConfig, amazon, amazon_probe, azure, azure_probe, local
from support.outgoing import aws_clients, open_outgoing
from support.servers.stub_store import SECRET, Fault, StubStore, stub_connector

STEPS = ["fields", "reach", "region", "put", "get", "public_url", "cors", "delete"]
PRIVATE = "127.0.0.3"
"""The address that counts as one of our own network."""

SHORT_S = 1.5
"""A deadline for a store that hangs; enough for the steps that do not."""

Probed = Callable[..., Awaitable[dict[str, Step]]]

PROBES: dict[type[Any], tuple[Any, Any]] = {
    amazon.AmazonStorageConfig: ("s3", amazon_probe.test_connection),
    azure.AzureStorageConfig: ("azure", azure_probe.test_connection),
}
"""The protocol of each connector's store, and its Test Connection."""


async def test_object_of_the_test_is_stored_with_the_connectors_encryption() -> None:
    async with StubStore("s3") as stub, aws_clients() as aws, open_outgoing() as outgoing:
        for fields in ({"sse": "AES256"}, {"sse": "aws:kms", "sse_kms_key_id": "alias/media"}, {"sse": "aws:kms"}):
            report = await amazon_probe.test_connection(
                stub_connector(stub, **fields),
                app_key="shop",
                aws=aws,
                outgoing=outgoing,
                allow_private=True,
                deadline_s=10.0,
            )

    refused = report.steps[0]
    asked = [headers for (method, _), headers in zip(stub.requests, stub.headers, strict=True) if method == "PUT"]
    kms = "x-amz-server-side-encryption-aws-kms-key-id"
    assert ["AES256", "aws:kms"] == [headers.get("x-amz-server-side-encryption") for headers in asked]
    assert [None, "alias/media"] == [headers.get(kms) for headers in asked]
    assert ("fields", "failed") == (refused.name, refused.status)
    assert "sse_kms_key_id" in refused.message


def test_every_provider_but_the_local_directory_is_tested() -> None:
    assert {*PROBES, local.LocalConfig} == set(get_args(ProviderConfig))


@pytest.fixture(params=PROBES, ids=lambda kind: kind.__name__)
def kind(request: pytest.FixtureRequest) -> type[Any]:
    found: type[Any] = request.param
    return found


@pytest.fixture
async def store(kind: type[Any]) -> AsyncIterator[StubStore]:
    async with StubStore(PROBES[kind][0]) as stub:
        yield stub


@pytest.fixture
async def probed(kind: type[Any], store: StubStore) -> AsyncIterator[Probed]:
    """Test the stub, or the store of a form with other fields. Returns the steps by name."""
    async with aws_clients() as aws, open_outgoing() as outgoing:

        async def test(**changed: Any) -> dict[str, Step]:
            hangs = store.fault is not None and store.fault.deed.startswith("hang")
            if hangs and store.speaks == "s3":
                # Reading the SDK's model takes a good part of a short deadline on a busy machine.
                keys = AwsCredentials(access_key_id="warm", secret_access_key=Secret("up"))
                async with aws.client("s3", region="eu-west-1", credentials=keys, endpoint_url=store.url):
                    pass
            deadline_s = SHORT_S if hangs else 10.0
            begun = asyncio.get_running_loop().time()
            report: ConnectionReport = await PROBES[kind][1](
                stub_connector(store, **changed),
                app_key="shop",
                aws=aws,
                outgoing=outgoing,
                allow_private=True,
                deadline_s=deadline_s,
            )
            # Generous: the machine may be busy. Without a deadline it would be 30 s and more.
            assert asyncio.get_running_loop().time() - begun < deadline_s + 4
            assert STEPS == [step.name for step in report.steps]
            assert SECRET.encode() not in msgspec.json.encode(report)
            return {step.name: step for step in report.steps}

        yield test


def verdicts(steps: dict[str, Step]) -> dict[str, str]:
    return {name: step.status for name, step in steps.items()}


async def test_everything_right_passes_and_leaves_nothing(probed: Probed, store: StubStore) -> None:
    steps = await probed()

    assert dict.fromkeys(STEPS, "ok") == verdicts(steps)
    assert {} == store.objects
    keys = {path for method, path in store.requests if method == "PUT"}
    assert 1 == len(keys)
    assert "/media/p/.probe/" in keys.pop()


async def test_a_field_that_cannot_be_right_ends_it(probed: Probed, store: StubStore) -> None:
    steps = await probed(prefix="../up")

    assert dict.fromkeys(STEPS, "skipped") | {"fields": "failed"} == verdicts(steps)
    assert steps["fields"].message.startswith("prefix: expected")
    assert [] == store.requests


@pytest.mark.parametrize("deed", ["hang", "close", "garbage"])
async def test_an_endpoint_without_an_answer_fails_to_be_reached_and_nothing_else_is_tried(
    probed: Probed, store: StubStore, deed: Any
) -> None:
    store.fault = Fault(deed=deed)

    steps = await probed()

    assert dict.fromkeys(STEPS, "skipped") | {"fields": "ok", "reach": "failed"} == verdicts(steps)
    assert steps["reach"].code
    assert steps["reach"].hint
    assert ("timeout" == steps["reach"].code) is (deed == "hang")


async def test_an_endpoint_that_accepts_no_connection_is_reported(probed: Probed, kind: type[Any]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        nowhere = f"http://127.0.0.1:{taken.getsockname()[1]}"
        field = "endpoint_url" if kind is amazon.AmazonStorageConfig else "blob_endpoint"

        steps = await probed(**{field: nowhere})

    assert "failed" == steps["reach"].status
    assert steps["reach"].code in {"EndpointConnectionError", "ConnectionFailed"}
    assert steps["reach"].hint


async def test_a_host_that_does_not_exist_is_reported(probed: Probed, kind: type[Any]) -> None:
    field = "endpoint_url" if kind is amazon.AmazonStorageConfig else "blob_endpoint"

    steps = await probed(**{field: "http://nowhere.invalid"})

    assert "failed" == steps["reach"].status
    assert steps["reach"].code in {"EndpointConnectionError", "HostNotFound"}
    assert steps["reach"].hint is not None
    assert "does not exist" in steps["reach"].hint


@pytest.mark.parametrize(
    ("status", "code", "hint"),
    [
        (403, "InvalidAccessKeyId", "access key id does not exist"),
        (403, "SignatureDoesNotMatch", "does not belong to this access key"),
        (403, "AccessDenied", "may not s3:PutObject on media/p/*"),
        (404, "NoSuchBucket", "bucket does not exist"),
        (301, "PermanentRedirect", "another region"),
        (400, "AuthorizationHeaderMalformed", "another region"),
        (400, "AccessControlListNotSupported", "ACLs disabled"),
        (403, "RequestTimeTooSkewed", "clock of this machine"),
        (403, "AllAccessDisabled", "suspended"),
        (403, "AccountProblem", "suspended"),
        (400, "InvalidBucketName", "no name that a bucket can have"),
        (503, "SlowDown", "nothing is wrong with the keys"),
        (500, "InternalError", "trouble of its own"),
    ],
)
async def test_each_code_of_s3_has_its_hint(status: int, code: str, hint: str) -> None:
    await code_is_told("s3", status, code, hint)


@pytest.mark.parametrize(
    ("status", "code", "hint"),
    [
        (403, "AuthenticationFailed", "wrong or has ended, or the clock"),
        (404, "ContainerNotFound", "container does not exist"),
        (403, "AuthorizationFailure", "firewall"),
        (403, "AuthorizationPermissionMismatch", "may not do this"),
        (403, "KeyBasedAuthenticationNotPermitted", "allow storage account key access"),
        (403, "AccountIsDisabled", "disabled the account"),
        (409, "ContainerBeingDeleted", "being deleted"),
        (503, "ServerBusy", "slow down"),
        (500, "InternalError", "trouble of its own"),
    ],
)
async def test_each_code_of_azure_has_its_hint(status: int, code: str, hint: str) -> None:
    await code_is_told("azure", status, code, hint)


async def code_is_told(speaks: Any, status: int, code: str, hint: str) -> None:
    test = dict(PROBES.values())[speaks]
    async with StubStore(speaks) as store, aws_clients() as aws, open_outgoing() as outgoing:
        store.fault = Fault(status=status, code=code, methods=frozenset({"PUT"}))
        report = await test(
            stub_connector(store), app_key="shop", aws=aws, outgoing=outgoing, allow_private=True, deadline_s=10.0
        )
    put = report.steps[3]
    assert ("put", "failed", code, status) == (put.name, put.status, put.code, put.http_status)
    assert hint in put.hint
    assert ["skipped"] * 4 == [step.status for step in report.steps[4:]]
    assert 1 == [method for method, _ in store.requests].count("PUT")


@pytest.mark.parametrize(("status", "hint"), [(503, "trouble of its own"), (501, "does not know this operation")])
async def test_a_status_without_a_code_has_a_hint(probed: Probed, store: StubStore, status: int, hint: str) -> None:
    store.fault = Fault(status=status, methods=frozenset({"PUT"}))

    put = (await probed())["put"]

    assert ("failed", status) == (put.status, put.http_status)
    assert put.hint is not None
    assert hint in put.hint


@pytest.mark.parametrize(
    ("deed", "codes"), [("hang in body", {"timeout"}), ("close in body", {"ClientPayloadError", "ConnectionClosed"})]
)
async def test_a_truncated_answer_is_reported_by_the_step_that_reads_it(
    probed: Probed, store: StubStore, deed: Any, codes: set[str]
) -> None:
    store.fault = Fault(deed=deed, methods=frozenset({"GET"}))

    steps = await probed()

    # Azure is reached by a GET, S3 by a HEAD.
    [failed] = [step for step in steps.values() if step.status == "failed"]
    assert ("get" if store.speaks == "s3" else "reach") == failed.name
    assert failed.code in codes
    assert failed.hint


async def test_other_bytes_than_were_stored_are_reported(probed: Probed, store: StubStore) -> None:
    store.changed_body = b"injected"

    steps = await probed()

    assert ("failed", "Different") == (steps["get"].status, steps["get"].code)
    assert ("failed", "Different") == (steps["public_url"].status, steps["public_url"].code)
    assert "ok" == steps["delete"].status


@pytest.mark.parametrize(
    ("header", "code"),
    [
        ("Content-Type", "ContentType"),
        ("Content-Disposition", "ContentDisposition"),
        ("Cache-Control", "CacheControl"),
    ],
)
async def test_a_header_that_is_lost_is_a_warning(probed: Probed, store: StubStore, header: str, code: str) -> None:
    store.lost_header = header

    public = (await probed())["public_url"]

    assert ("warning", code) == (public.status, public.code)
    assert public.message.startswith(f"{header} arrives as ")
    assert public.hint


PUBLIC: dict[str, tuple[Fault, str | None, int | None, str]] = {
    "no key": (Fault(status=403, code="AccessDenied"), "AccessDenied", 403, "cdn_base_url"),
    "not found": (Fault(status=404), None, 404, "cdn_base_url"),
    "redirect": (Fault(status=301, location="http://127.0.0.1:9/"), "Redirect", 301, "as cdn_base_url"),
    "failure": (Fault(status=500), None, 500, "cdn_base_url"),
    "hang": (Fault(deed="hang"), "timeout", None, "gives no answer"),
    "hang in body": (Fault(deed="hang in body"), "timeout", None, "gives no answer"),
    "close": (Fault(deed="close"), "ServerDisconnectedError", None, "exists and answers"),
    "close in body": (Fault(deed="close in body"), "ClientPayloadError", None, "exists and answers"),
    "garbage": (Fault(deed="garbage"), "ClientResponseError", None, "exists and answers"),
}


@pytest.mark.parametrize("name", PUBLIC)
async def test_a_public_address_without_the_object_is_reported_and_the_other_steps_run(
    probed: Probed, store: StubStore, name: str
) -> None:
    fault, code, status, hint = PUBLIC[name]
    store.fault = msgspec.structs.replace(fault, public=True)

    steps = await probed()

    public = steps["public_url"]
    assert ("failed", code, status) == (public.status, public.code, public.http_status)
    assert public.hint is not None
    assert hint in public.hint
    assert {"get": "ok", "public_url": "failed", "cors": "skipped", "delete": "ok"}.items() <= verdicts(steps).items()
    assert {} == store.objects


async def test_an_azure_account_without_public_access_is_reported() -> None:
    async with StubStore("azure") as store, aws_clients() as aws, open_outgoing() as outgoing:
        store.fault = Fault(status=409, code="PublicAccessNotPermitted", public=True)
        report = await azure_probe.test_connection(
            stub_connector(store), app_key="shop", aws=aws, outgoing=outgoing, allow_private=True, deadline_s=10.0
        )

    public = report.steps[5]
    assert ("failed", "PublicAccessNotPermitted", 409) == (public.status, public.code, public.http_status)
    assert public.hint is not None
    assert "Allow Blob anonymous access" in public.hint


@pytest.mark.parametrize(("origin", "said"), [("", "does not allow"), ("https://shop.example", "https://shop.example")])
async def test_pages_of_other_origins_that_are_shut_out_are_a_warning(
    probed: Probed, store: StubStore, origin: str, said: str
) -> None:
    store.allowed_origin = origin

    steps = await probed()

    assert dict.fromkeys(STEPS, "ok") | {"cors": "warning"} == verdicts(steps)
    assert "NoCors" == steps["cors"].code
    assert said in steps["cors"].message
    assert steps["cors"].hint is not None
    assert "CORS rule" in steps["cors"].hint


@pytest.mark.parametrize(
    ("fault", "code"), [(Fault(status=403, code="Denied"), "Denied"), (Fault(deed="hang"), "timeout")]
)
async def test_an_object_that_cannot_be_removed_is_a_warning(
    probed: Probed, store: StubStore, fault: Fault, code: str
) -> None:
    store.fault = msgspec.structs.replace(fault, methods=frozenset({"DELETE"}))

    steps = await probed()

    assert dict.fromkeys(STEPS, "ok") | {"delete": "warning"} == verdicts(steps)
    assert code == steps["delete"].code
    assert steps["delete"].hint


@pytest.mark.parametrize("host", ["cdn.example", PRIVATE])
async def test_a_public_address_inside_our_own_network_is_not_read(
    kind: type[Any], store: StubStore, host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store itself is where it may be; the address of each connection counts."""
    known = socket.getaddrinfo

    def getaddrinfo(host: Any, port: Any, *arguments: Any, **options: Any) -> list[Any]:
        return known(PRIVATE if host == "cdn.example" else host, port, *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    form = stub_connector(store, cdn_base_url=f"http://{host}:{store.url.rpartition(':')[2]}/cdn")

    async with aws_clients() as aws, Outgoing(Settings(), is_private_address=PRIVATE.__eq__) as outgoing:
        report: ConnectionReport = await PROBES[kind][1](
            form, app_key="shop", aws=aws, outgoing=outgoing, allow_private=True, deadline_s=10.0
        )

    public = report.steps[5]
    assert ("failed", "PrivateAddress") == (public.status, public.code)
    assert [] == [path for _, path in store.requests if path.startswith("/cdn/")]
    assert ["ok", "skipped", "ok"] == [step.status for step in (report.steps[4], report.steps[6], report.steps[7])]
