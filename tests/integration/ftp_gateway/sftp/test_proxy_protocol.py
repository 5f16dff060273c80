"""Behind a proxy: the client's own address counts, and only the proxy's word is taken for it."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from typing import Any

import asyncssh
import pytest
from msgspec import structs

from ftp_gateway.app import SERVICE
from ftp_gateway.sftp.proxy_protocol import V2_START
from shared.errors import InvalidError
from shared.runtime.settings import Settings
from support.clients.ftp_gateway import PASSWORD, Gateway, StartGateway
from support.run_service import RunService, running

PROXY = "127.0.0.7"


@pytest.fixture
async def gateway(start_gateway: StartGateway) -> AsyncIterator[Gateway]:
    async with start_gateway(sftp_proxies=f"{PROXY}/32, 2001:db8::/64", sftp_ban_failures=3) as gateway:
        await gateway.user(password=PASSWORD, allowed_ips=["203.0.113.0/24", "2001:db8:7::/48"])
        yield gateway


def dial(gateway: Gateway, header: bytes, source: str = PROXY) -> socket.socket:
    """A connection that begins with these bytes."""
    connection = socket.create_connection((gateway.host, gateway.port), source_address=(source, 0))
    connection.sendall(header)
    return connection


async def sign_in(gateway: Gateway, header: bytes, source: str = PROXY, **options: Any) -> None:
    given = {"password": PASSWORD, "known_hosts": None, "config": None, "client_keys": None} | options
    sock = await asyncio.to_thread(dial, gateway, header, source)
    async with (
        asyncssh.connect(sock=sock, username="shop.nightly", **given) as connection,
        connection.start_sftp_client() as client,
    ):
        assert await client.exists("/Profile")


def v1(client: str) -> bytes:
    return f"PROXY TCP4 {client} 192.0.2.1 40000 22\r\n".encode()


def v2(client: str) -> bytes:
    addresses = socket.inet_pton(socket.AF_INET6, client) + bytes(16) + b"\x9c\x40\0\x16"
    return V2_START + b"\x21\x21" + len(addresses).to_bytes(2) + addresses


async def test_the_address_of_the_client_is_the_one_that_is_let_in(gateway: Gateway) -> None:
    await sign_in(gateway, v1("203.0.113.9"))
    await sign_in(gateway, v2("2001:db8:7::9"))
    for other in (v1("198.51.100.9"), v2("2001:db8:8::9"), b"PROXY UNKNOWN\r\n", V2_START + b"\x20\0\0\0"):
        with pytest.raises(asyncssh.PermissionDenied):
            await sign_in(gateway, other)


async def test_a_ban_is_for_the_client_and_not_for_the_proxy(gateway: Gateway) -> None:
    for _ in range(3):
        with pytest.raises(asyncssh.PermissionDenied):
            await sign_in(gateway, v1("203.0.113.66"), password="wrong-password")

    with pytest.raises((asyncssh.Error, OSError)):
        await sign_in(gateway, v1("203.0.113.66"))
    await sign_in(gateway, v1("203.0.113.9"))


async def test_a_header_that_comes_byte_by_byte_is_read(gateway: Gateway) -> None:
    reader, writer = await asyncio.open_connection(gateway.host, gateway.port, local_addr=(PROXY, 0))
    for byte in v1("203.0.113.9"):
        writer.write(bytes([byte]))
        await writer.drain()
    async with asyncio.timeout(5):
        assert (await reader.readline()).startswith(b"SSH-2.0-")
    writer.close()
    await writer.wait_closed()


@pytest.mark.parametrize("said", [b"", b"SSH-2.0-client\r\n", b"PROXY TCP4 x\r\n", V2_START + b"\xff" * 8])
async def test_a_proxy_without_a_header_receives_nothing(
    gateway: Gateway, said: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ftp_gateway.sftp.listener.HEADER_S", 0.3)
    reader, writer = await asyncio.open_connection(gateway.host, gateway.port, local_addr=(PROXY, 0))
    writer.write(said)
    async with asyncio.timeout(5):
        with contextlib.suppress(ConnectionResetError):
            assert b"" == await reader.read()
    writer.close()


async def test_no_header_is_read_from_other_addresses(gateway: Gateway) -> None:
    with pytest.raises((asyncssh.Error, OSError)):
        await sign_in(gateway, v1("203.0.113.9"), source="127.0.0.1")
    with pytest.raises(asyncssh.PermissionDenied):
        await sign_in(gateway, b"", source="127.0.0.1")


async def test_a_list_of_proxies_that_is_none_stops_the_start(settings: Settings, run_service: RunService) -> None:
    with pytest.RaisesGroup(pytest.RaisesExc(InvalidError, match="separated by commas"), flatten_subgroups=True):
        async with running(SERVICE, structs.replace(settings, sftp_proxies="nowhere")):
            pass
