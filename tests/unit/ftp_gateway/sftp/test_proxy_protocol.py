"""PROXY headers: the specification's examples pass, and nothing else does."""

from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ftp_gateway.sftp.proxy_protocol import V1_MAX_BYTES, V2_MAX_BYTES, V2_START, Header, read_header
from shared.errors import InvalidError

LONGEST_V1 = b"PROXY UNKNOWN " + b"f" * (V1_MAX_BYTES - 16) + b"\r\n"


def v2(command: int, family: int, body: bytes) -> bytes:
    return V2_START + bytes([0x20 | command, family]) + len(body).to_bytes(2) + body


def v2_tcp(client: IPv4Address | IPv6Address, extensions: bytes = b"") -> bytes:
    return v2(1, 0x11 if client.version == 4 else 0x21, client.packed * 2 + b"\0\x01\0\x02" + extensions)


GOOD: list[tuple[bytes, str | None]] = [
    (b"PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\r\n", "192.168.0.1"),
    (b"PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n", "255.255.255.255"),
    (b"PROXY TCP6 2001:db8::7 ::1 0 22\r\n", "2001:db8::7"),
    (b"PROXY UNKNOWN\r\n", None),
    (b"PROXY UNKNOWN ffff::1 ffff::2 65535 65535\r\n", None),
    (LONGEST_V1, None),
    (v2_tcp(IPv4Address("203.0.113.9")), "203.0.113.9"),
    (v2_tcp(IPv6Address("2001:db8::9"), b"\x03\0\x04abcd"), "2001:db8::9"),
    (v2(0, 0x00, b""), None),
    (v2(0, 0x11, bytes(12)), None),
    (v2(1, 0x00, b"xyz"), None),
]
BAD: list[bytes] = [
    b"SSH-2.0-OpenSSH_9.2\r\n",
    b"proxy TCP4 1.1.1.1 2.2.2.2 1 2\r\n",
    b"PROXY  TCP4 1.1.1.1 2.2.2.2 1 2\r\n",
    b"PROXY TCP4 1.1.1.1 2.2.2.2 1\r\n",
    b"PROXY TCP4 1.1.1.1 2.2.2.2 1 2 3\r\n",
    b"PROXY TCP4 2001:db8::7 ::1 1 2\r\n",
    b"PROXY TCP6 1.1.1.1 2.2.2.2 1 2\r\n",
    b"PROXY TCP6 fe80::1%eth0 ::1 1 2\r\n",
    b"PROXY TCP4 1.1.1.256 2.2.2.2 1 2\r\n",
    b"PROXY TCP4 1.1.1.1 2.2.2.2 65536 2\r\n",
    b"PROXY TCP4 1.1.1.1 2.2.2.2 01 2\r\n",
    b"PROXY TCP4 1.1.1.1 2.2.2.2 -1 2\r\n",
    b"PROXY TCP4 \xff.1.1.1 2.2.2.2 1 2\r\n",
    b"PROXY UDP4 1.1.1.1 2.2.2.2 1 2\r\n",
    b"PROXY " + b"x" * V1_MAX_BYTES,
    v2(2, 0x11, bytes(12)),
    v2(1, 0x12, bytes(12)),
    v2(1, 0x31, bytes(216)),
    v2(1, 0x11, bytes(11)),
    v2(1, 0x21, bytes(12)),
    V2_START + b"\x11\x11\0\x0c" + bytes(12),
    V2_START + b"\x21\x11" + (V2_MAX_BYTES).to_bytes(2),
]


@pytest.mark.parametrize(("data", "address"), GOOD)
def test_a_header_gives_the_client_and_leaves_what_follows(data: bytes, address: str | None) -> None:
    assert Header(address=address, size=len(data)) == read_header(data + b"SSH-2.0-x\r\n")


@pytest.mark.parametrize(("data", "address"), GOOD)
def test_a_part_of_a_header_gives_nothing_yet(data: bytes, address: str | None) -> None:
    assert [None] * len(data) == [read_header(data[:size]) for size in range(len(data))]


@pytest.mark.parametrize("data", BAD)
def test_what_is_no_header_of_tcp_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidError):
        read_header(data)


@given(st.binary(max_size=300), st.sampled_from([b"", b"PROXY ", b"PROXY TCP4 ", V2_START, V2_START + b"\x21"]))
def test_any_bytes_are_a_header_a_part_of_one_or_refused(rest: bytes, start: bytes) -> None:
    data = start + rest
    try:
        header = read_header(data)
    except InvalidError:
        return
    assert header is None or header.size <= len(data)


@given(st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6)), st.binary(max_size=200))
def test_every_address_comes_through_both_versions(client: IPv4Address | IPv6Address, extensions: bytes) -> None:
    line = f"PROXY TCP{client.version} {client} {client} 1 2\r\n".encode()
    for data in (line, v2_tcp(client, extensions)):
        header = read_header(data)
        assert header is not None
        assert str(client) == header.address or client == IPv6Address(header.address or "")
