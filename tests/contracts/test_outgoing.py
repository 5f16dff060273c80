"""
One suite for every client of customers' hosts: an attacker who may answer anything, and name any host, sends nothing
into our own network, and a redirect is no answer.
"""

import asyncio
import socket
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from shared.aws.clients import AwsClients
from shared.aws.errors import AWS_ERRORS, aws_error
from shared.aws.roles import AwsCredentials
from shared.config.secret import Secret
from shared.errors import InvalidError, MillraceError, UnavailableError
from shared.objects.config import AzureStoreConfig, S3StoreConfig, StoreLimits
from shared.outgoing.addresses import is_refused, unreachable
from shared.outgoing.door import Outgoing
from shared.outgoing.http_client import ANSWER_BYTES
from shared.runtime.settings import Settings
from support.servers.attacker import ATTACKER, CompanyProxy, RawServer, write_certificate

KEYS = AwsCredentials(access_key_id="AKIAIOSFODNN7EXAMPLE", secret_access_key=Secret("secret"))
LIMITS = StoreLimits(connect_s=5, request_s=5, retries=0)
REGION = "eu-west-1"

Ask = Callable[[Outgoing, str], Awaitable[None]]


async def by_http(outgoing: Outgoing, url: str) -> None:
    """Webhooks and public reads."""
    try:
        async with outgoing.guarded.request("PUT", url, data=b"content") as answer:
            if answer.status >= 300:
                raise InvalidError(f"HTTP {answer.status}")
    except (aiohttp.ClientError, OSError) as error:
        raise (unreachable() if is_refused(error) else InvalidError(str(error))) from error


async def by_sdk(outgoing: Outgoing, url: str) -> None:
    try:
        async with (
            AwsClients(outgoing) as aws,
            aws.client("s3", region=REGION, credentials=KEYS, endpoint_url=url) as s3,
        ):
            await s3.put_object(Bucket="bucket", Key="key", Body=b"content")
    except AWS_ERRORS as error:
        raise aws_error(error) from error


async def by_post_json(outgoing: Outgoing, url: str) -> None:
    """PutRecords."""
    async with AwsClients(outgoing) as aws:
        await aws.post_json("kinesis", "A.B", b"{}", region=REGION, credentials=KEYS, endpoint_url=url)


async def by_s3_put(outgoing: Outgoing, url: str) -> None:
    async with s3_config(url).open(outgoing, LIMITS) as store:
        await store.put("key", b"content", content_type="text/plain")


async def by_s3_head(outgoing: Outgoing, url: str) -> None:
    async with s3_config(url).open(outgoing, LIMITS) as store:
        await store.head("key")


async def by_azure(outgoing: Outgoing, url: str) -> None:
    config = AzureStoreConfig(account_name="shop", account_key=Secret("c2VjcmV0"), container="media", endpoint=url)
    async with config.open(outgoing, LIMITS) as store:
        await store.put("key", b"content", content_type="text/plain")


def s3_config(url: str | None) -> S3StoreConfig:
    return S3StoreConfig(
        bucket="bucket",
        region=REGION,
        access_key_id=KEYS.access_key_id,
        secret_access_key=KEYS.secret_access_key,
        endpoint_url=url,
    )


ASKS: dict[str, Ask] = {
    "http": by_http,
    "sdk": by_sdk,
    "post_json": by_post_json,
    "s3 put": by_s3_put,
    "s3 head": by_s3_head,
    "azure": by_azure,
}

GOOD = (
    b'HTTP/1.1 200 OK\r\nETag: "e"\r\nLast-Modified: Sun, 22 Nov 2026 05:23:36 GMT\r\n'
    b"Content-Length: 7\r\nConnection: close\r\n\r\n"
)
"""A page as any web server may give it, and a store in its answer to HEAD."""


@pytest.fixture(params=ASKS)
def ask(request: pytest.FixtureRequest) -> Ask:
    return ASKS[request.param]


@pytest.fixture
async def attacker() -> AsyncIterator[RawServer]:
    async with RawServer() as server:
        server.answer = GOOD.replace(b": 7", b": 0")
        yield server


@pytest.fixture
async def victim() -> AsyncIterator[RawServer]:
    """A server of our own network, which takes anything."""
    async with RawServer("127.0.0.1") as server:
        server.answer = GOOD.replace(b": 7", b": 0")
        yield server


@pytest.fixture
async def outgoing() -> AsyncIterator[Outgoing]:
    """With the guard on, and the attacker's address as the only one of the internet."""
    async with Outgoing(Settings(), is_private_address=lambda address: address != ATTACKER) as outgoing:
        yield outgoing


def redirect(status: int, location: str) -> bytes:
    head = f"HTTP/1.1 {status} Elsewhere\r\nLocation: {location}\r\n"
    return f"{head}Content-Length: 0\r\nConnection: close\r\n\r\n".encode()


async def test_host_of_the_internet_is_reached(ask: Ask, outgoing: Outgoing, attacker: RawServer) -> None:
    await ask(outgoing, attacker.url)

    assert 1 == len(attacker.heads)
    assert "proxy-authorization" not in attacker.heads[0].lower()
    assert attacker.heads[0].split(" ")[1].startswith("/")


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_redirect_into_our_network_is_an_error_and_is_not_followed(
    ask: Ask, outgoing: Outgoing, attacker: RawServer, victim: RawServer, status: int
) -> None:
    attacker.answer = redirect(status, f"{victim.url}/x")

    with pytest.raises(MillraceError):
        await ask(outgoing, attacker.url)

    assert (1, 0) == (len(attacker.heads), victim.connections)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_redirect_within_the_host_is_an_error_and_is_not_followed(
    ask: Ask, outgoing: Outgoing, attacker: RawServer, status: int
) -> None:
    attacker.answer = redirect(status, "/login")

    with pytest.raises(MillraceError):
        await ask(outgoing, attacker.url)

    assert 1 == len(attacker.heads)


@pytest.mark.parametrize("name", ["sdk", "post_json"])
@pytest.mark.parametrize("status", [b"200 OK", b"400 Bad Request"])
async def test_answer_without_end_is_not_read_into_memory(
    outgoing: Outgoing, attacker: RawServer, name: str, status: bytes
) -> None:
    body = bytes(ANSWER_BYTES + 1)
    attacker.answer = b"HTTP/1.1 %b\r\nContent-Length: %d\r\n\r\n%b" % (status, len(body), body)

    with pytest.raises(UnavailableError, match="AWS cannot be reached"):
        await ASKS[name](outgoing, attacker.url)


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "127.0.0.1.", "127.1", "0x7f.1", "2130706433", "0", "localhost", "[::1]", "[::ffff:127.0.0.1]"],
)
async def test_no_form_of_an_address_of_our_own_is_connected_to(
    ask: Ask, outgoing: Outgoing, victim: RawServer, host: str
) -> None:
    with pytest.raises(MillraceError):
        await ask(outgoing, f"http://{host}:{victim.port}")

    assert 0 == victim.connections


Resolve = Callable[..., None]


@pytest.fixture
def resolve(monkeypatch: pytest.MonkeyPatch) -> Resolve:
    """Set the answers for the name `store.example`, one for each resolution; the last one stays."""

    def leads_to(*answers: tuple[str, ...]) -> None:
        known, left = socket.getaddrinfo, list(answers)

        def getaddrinfo(host: str, port: int, *arguments: Any, **options: Any) -> list[Any]:
            if host.removesuffix(".") != "store.example":
                return known(host, port, *arguments, **options)
            found = left.pop(0) if len(left) > 1 else left[0]
            return [
                (socket.AF_INET6, socket.SOCK_STREAM, 6, "", (address, port, 0, 0))
                if ":" in address
                else (socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))
                for address in found
            ]

        monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)

    return leads_to


@pytest.mark.parametrize("address", ["127.0.0.1", "::ffff:127.0.0.1", "::1", "10.0.0.8", "fe80::1%lo"])
async def test_name_that_leads_into_our_network_is_refused_clearly(
    ask: Ask, outgoing: Outgoing, victim: RawServer, resolve: Resolve, address: str
) -> None:
    resolve((address,))

    with pytest.raises(MillraceError) as caught:
        await ask(outgoing, f"http://store.example:{victim.port}")

    assert "reachable from the internet" in caught.value.message or ask is by_s3_head
    assert 0 == victim.connections


async def test_name_that_resolves_otherwise_the_second_time_gains_nothing(
    ask: Ask, outgoing: Outgoing, attacker: RawServer, resolve: Resolve
) -> None:
    async with RawServer("127.0.0.1") as victim:
        resolve((ATTACKER,), ("127.0.0.1",))
        await ask(outgoing, f"http://store.example:{attacker.port}")
        for _ in range(2):
            with suppress(MillraceError):
                await ask(outgoing, f"http://store.example:{victim.port}")

        assert (1, 0) == (len(attacker.heads), victim.connections)


async def test_every_client_looks_names_up_in_the_threads_for_names(
    ask: Ask, outgoing: Outgoing, attacker: RawServer, resolve: Resolve, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolve((ATTACKER,))
    answer, threads = socket.getaddrinfo, []

    def getaddrinfo(host: str, *arguments: Any, **options: Any) -> list[Any]:
        threads.append((host, threading.current_thread().name.partition("_")[0]))
        return answer(host, *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    await ask(outgoing, f"http://store.example:{attacker.port}")

    assert [("store.example", "names")] == [one for one in threads if one[0] == "store.example"]


HOST = "store.example"
AWS_HOST = f"bucket.s3.{REGION}.amazonaws.com"


async def by_sdk_to_aws(outgoing: Outgoing, url: str) -> None:
    try:
        async with AwsClients(outgoing) as aws, aws.client("s3", region=REGION, credentials=KEYS) as s3:
            await s3.put_object(Bucket="bucket", Key="key", Body=b"content")
    except AWS_ERRORS as error:
        raise aws_error(error) from error


async def by_s3_put_to_aws(outgoing: Outgoing, url: str) -> None:
    async with s3_config(None).open(outgoing, LIMITS) as store:
        await store.put("key", b"content", content_type="text/plain")


TO_AWS: dict[str, Ask] = {"sdk to AWS": by_sdk_to_aws, "s3 put to AWS": by_s3_put_to_aws}


@pytest.mark.parametrize("name", [*ASKS, *TO_AWS])
async def test_proxy_and_authorities_of_the_settings_hold_for_every_client(name: str, tmp_path: Path) -> None:
    certificate = write_certificate(tmp_path, HOST, AWS_HOST)
    async with RawServer(certificate=certificate) as server, CompanyProxy(server) as proxy:
        server.answer = GOOD.replace(b": 7", b": 0")
        settings = Settings(https_proxy=proxy.url, ca_bundle=str(certificate))

        async with Outgoing(settings) as outgoing:
            await (ASKS | TO_AWS)[name](outgoing, f"https://{HOST}")

    assert [f"{AWS_HOST if name in TO_AWS else HOST}:443"] == proxy.asked
    assert ["dXNlcjpzQGNyZXQ="] == proxy.credentials
    assert 1 == len(server.heads)


@pytest.mark.parametrize("no_proxy", ["*", "amazonaws.com:443", ""])
@pytest.mark.parametrize("name", TO_AWS)
async def test_host_that_is_excluded_is_reached_without_the_proxy_by_every_client(
    name: str, no_proxy: str, attacker: RawServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with CompanyProxy(attacker) as proxy:
        # A setting that is empty rules out the variable, which libraries read by themselves.
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        monkeypatch.setenv("ALL_PROXY", proxy.url)
        settings = Settings(https_proxy=proxy.url if no_proxy else "", no_proxy=no_proxy)
        async with asyncio.timeout(60), Outgoing(settings) as outgoing:
            # The test need not have a network.
            with suppress(MillraceError):
                await TO_AWS[name](outgoing, "")

    assert [] == proxy.asked


async def test_unknown_authority_is_refused_by_every_client(ask: Ask, tmp_path: Path) -> None:
    certificate = write_certificate(tmp_path, HOST)
    async with (
        RawServer(certificate=certificate) as server,
        CompanyProxy(server) as proxy,
        Outgoing(Settings(https_proxy=proxy.url)) as outgoing,
    ):
        with pytest.raises(MillraceError):
            await ask(outgoing, f"https://{HOST}")

    assert [] == server.heads


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]", "10.0.0.8", "127.0.0.1.", "0x7f.1", "minio", "db.internal"])
async def test_proxy_is_not_asked_for_a_host_of_our_own(ask: Ask, attacker: RawServer, host: str) -> None:
    async with CompanyProxy(attacker) as proxy, Outgoing(Settings(https_proxy=proxy.url)) as outgoing:
        with pytest.raises(MillraceError):
            await ask(outgoing, f"https://{host}:{attacker.port}")

    assert [] == proxy.asked
