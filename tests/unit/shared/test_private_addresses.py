"""Refusal of customers' endpoints that lie in our own network."""

import asyncio
import socket
from collections.abc import Callable
from typing import Any

import pytest

from shared.errors import InvalidError
from shared.private_addresses import PrivateAddressError, public_socket, refuse_private_addresses, refuse_private_host

Resolve = Callable[..., None]


@pytest.fixture
def resolve(monkeypatch: pytest.MonkeyPatch) -> Resolve:
    """Set the addresses of every name; without one, the name is unknown."""

    def names_lead_to(*addresses: str) -> None:
        async def getaddrinfo(host: str, port: int, **_: Any) -> list[tuple[Any, ...]]:
            if not addresses:
                raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in addresses]

        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", getaddrinfo)

    return names_lead_to


@pytest.mark.parametrize(
    "url",
    [
        "https://127.0.0.1:9000",
        "https://10.0.0.8",
        "https://172.16.1.1",
        "https://192.168.0.1",
        "https://169.254.169.254",
        "https://100.64.0.1",
        "https://0.0.0.0",
        "https://[::1]",
        "https://[fd00::1]",
        "https://[::ffff:10.0.0.8]",
        "https://[::10.0.0.8]",
        "https://[64:ff9b::10.0.0.8]",
        "https://[2002:0a00:0008::1]",
        "https://[fec0::1]",
        "https://239.1.1.1",
        "https://localhost",
        "https://LOCALHOST:9000",
        "https://minio",
        "https://minio.internal",
        "https://printer.local",
        "https://shop.localhost",
    ],
)
def test_private_host_is_refused(url: str) -> None:
    with pytest.raises(InvalidError) as caught:
        refuse_private_host(url, "endpoint_url")

    assert "endpoint_url" == caught.value.field


@pytest.mark.parametrize(
    "url",
    [
        "https://minio.example:9000",
        "https://8.8.8.8",
        "https://[2001:4860:4860::8888]",
        "https://[64:ff9b::8.8.8.8]",
        "https://local.example",
    ],
)
def test_public_host_is_accepted(url: str) -> None:
    refuse_private_host(url, "endpoint_url")


@pytest.mark.parametrize("addresses", [("10.0.0.8",), ("8.8.8.8", "127.0.0.1"), ("::1",)])
async def test_host_is_refused_when_one_of_its_addresses_is_private(
    resolve: Resolve, addresses: tuple[str, ...]
) -> None:
    resolve(*addresses)

    with pytest.raises(InvalidError) as caught:
        await refuse_private_addresses("https://store.example", "endpoint_url")

    assert "endpoint_url" == caught.value.field


async def test_host_is_accepted_when_all_its_addresses_are_public(resolve: Resolve) -> None:
    resolve("8.8.8.8", "2001:4860:4860::8888")

    await refuse_private_addresses("https://store.example", "endpoint_url")


async def test_host_without_an_address_is_accepted(resolve: Resolve) -> None:
    resolve()

    await refuse_private_addresses("https://nowhere.example", "endpoint_url")


@pytest.mark.parametrize(("family", "address"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "fe80::1%lo")])
def test_no_socket_is_made_for_an_address_of_our_own(family: int, address: str) -> None:
    with pytest.raises(PrivateAddressError, match="not reachable from the internet"):
        public_socket((family, socket.SOCK_STREAM, 6, "", (address, 443)))


def test_socket_for_a_public_address_is_of_its_family() -> None:
    with public_socket((socket.AF_INET, socket.SOCK_STREAM, 6, "", ("8.8.8.8", 443))) as made:
        assert (socket.AF_INET, socket.SOCK_STREAM) == (made.family, made.type)
