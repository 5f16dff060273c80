"""Refusal of customers' endpoints that lie in our own network."""

import socket
from ipaddress import IPv4Address
from urllib.parse import urlsplit

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.errors import InvalidError
from shared.outgoing.addresses import (
    PrivateAddressError,
    checked_socket,
    is_private,
    is_private_address,
    is_refused,
)
from shared.outgoing.urls import check_host


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
    assert is_private(urlsplit(url).hostname or "")


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
    assert not is_private(urlsplit(url).hostname or "")


@pytest.mark.parametrize(("family", "address"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "fe80::1%lo")])
def test_no_socket_is_made_for_an_address_of_our_own(family: int, address: str) -> None:
    with pytest.raises(PrivateAddressError, match="not reachable from the internet"):
        checked_socket((family, socket.SOCK_STREAM, 6, "", (address, 443)), is_private_address)


def test_socket_for_a_public_address_is_of_its_family() -> None:
    with checked_socket((socket.AF_INET, socket.SOCK_STREAM, 6, "", ("8.8.8.8", 443)), is_private_address) as made:
        assert (socket.AF_INET, socket.SOCK_STREAM) == (made.family, made.type)


PRIVATE_V4 = ["127.0.0.1", "10.0.0.8", "172.31.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.1.2.3"]
PRIVATE_V4 += ["192.0.0.192", "192.0.0.9", "168.63.129.16"]
PRIVATE_V4 += ["198.18.0.1", "192.0.0.1", "192.0.2.1", "192.88.99.1", "224.0.0.1", "240.0.0.1", "255.255.255.255"]
PRIVATE_V6 = ["::", "::1", "::2", "fe80::1", "fe80::1%lo", "fc00::1", "fec0::1", "ff02::1", "ff0e::1", "100::1"]
PRIVATE_V6 += ["100:0:0:1::1", "64:ff9b:1::808:808", "2001:db8::1", "2001::1", "2002:808:808::1", "3fff::1", "5f00::1"]
PRIVATE_V6 += ["::ffff:0:8.8.8.8", "::8.8.8.8", "4000::1"]


@pytest.mark.parametrize("address", [*PRIVATE_V4, *PRIVATE_V6, "", "localhost", "127.0.0.1.", "8.8.8.8.", "0x8.8"])
def test_what_is_not_of_the_internet_is_private(address: str) -> None:
    assert is_private_address(address)


@pytest.mark.parametrize("prefix", ["::ffff:", "64:ff9b::"])
@pytest.mark.parametrize("address", PRIVATE_V4)
def test_private_address_in_an_ipv6_address_is_private(prefix: str, address: str) -> None:
    assert is_private_address(prefix + address)


@pytest.mark.parametrize(
    "address", ["8.8.8.8", "168.63.129.17", "::ffff:8.8.8.8", "64:ff9b::8.8.8.8", "2001:4860:4860::8888"]
)
def test_address_of_the_internet_is_public(address: str) -> None:
    assert not is_private_address(address)


@given(st.ip_addresses(v=4))
def test_mapped_and_translated_addresses_count_as_what_they_hold(address: IPv4Address) -> None:
    verdict = is_private_address(str(address))

    assert verdict == is_private_address(f"::ffff:{address}") == is_private_address(f"64:ff9b::{address}")


@pytest.mark.parametrize(
    "host", ["127.0.0.1.", "2130706433", "0x7f000001", "127.1", "shop.0x7f", "8.8.8.8.1", "localhost.", "a.LOCAL."]
)
def test_host_that_a_client_may_read_as_an_address_of_our_own_is_private(host: str) -> None:
    assert is_private(host)


@pytest.mark.parametrize("host", ["shop.example", "shop.example.", "8.8.8.8", "xn--grsel-jua.example", "a.b0x"])
def test_host_that_only_a_resolver_can_judge_is_let_through(host: str) -> None:
    assert not is_private(host)


def test_refusal_is_found_below_the_errors_that_hide_it() -> None:
    hidden = OSError("Multiple exceptions: [Errno 111] refused, [Errno 13] not reachable from the internet")
    holder = RuntimeError("cannot connect")
    holder.os_error = hidden  # type: ignore[attr-defined]
    outer = ValueError("no answer")
    outer.__context__ = PrivateAddressError()

    assert is_refused(PrivateAddressError())
    assert is_refused(holder)
    assert is_refused(outer)
    assert not is_refused(OSError("not reachable from the internet"))
    assert not is_refused(None)


def numeric_hosts() -> st.SearchStrategy[str]:
    """Texts that a resolver may read as an IPv4 address: one to four numbers, in any base, and nearly so."""
    number = st.integers(0, 2**32 + 1) | st.integers(0, 300) | st.sampled_from([0, 10, 127, 169, 172, 192])
    written = st.tuples(number, st.sampled_from(["{}", "0{:o}", "0x{:x}", "0X{:X}", "00{}", "{} "]))
    parts = st.lists(written.map(lambda drawn: drawn[1].format(drawn[0])), min_size=1, max_size=5)
    return st.tuples(parts, st.sampled_from([".", "..", "。"]), st.sampled_from(["", "."])).map(
        lambda drawn: drawn[1].join(drawn[0]) + drawn[2]
    )


@settings(max_examples=2000)
@given(numeric_hosts() | st.ip_addresses().map(str) | st.from_regex(r"[0-9a-fx.:%]{1,24}", fullmatch=True))
def test_no_accepted_host_is_an_address_of_our_own_to_the_system(host: str) -> None:
    try:
        check_host(host, "host", allow_private=False)
    except InvalidError:
        return
    try:
        # As the system reads it, without asking a server.
        found = socket.getaddrinfo(host, 443, flags=socket.AI_NUMERICHOST)
    except (socket.gaierror, UnicodeError):
        return
    assert not [address for *_, (address, *_) in found if is_private(str(address))]
