"""
Header by which a proxy names its client: PROXY protocol, versions 1 and 2 (HAProxy's proxy-protocol.txt).

`read_header` gets the bytes so far and answers once the header is whole. It takes no byte of what follows. Extensions
(TLVs) of version 2 are skipped.
"""

from ipaddress import IPv4Address, IPv6Address

from msgspec import Struct

from shared.errors import InvalidError

V1_START = b"PROXY "
V1_MAX_BYTES = 107
"""Longest line that the specification allows, with its CRLF."""
V2_START = b"\r\n\r\n\0\r\nQUIT\n"
V2_FIXED_BYTES = 16
V2_MAX_BYTES = 4096
"""Addresses are 36 bytes at most; the rest is room for extensions, such as a certificate's name."""

_LOCAL, _PROXY = 0, 1
_UNSPECIFIED, _TCP4, _TCP6 = 0x00, 0x11, 0x21
_ADDRESS_BYTES = {_TCP4: 12, _TCP6: 36}


class Header(Struct, frozen=True, kw_only=True):
    """
    A whole header.

    `address` is the client's; None where the proxy speaks for itself, as in its own health check. `size` is the number
    of bytes of the header.
    """

    address: str | None
    size: int


def read_header(data: bytes) -> Header | None:
    """
    Parse the header at the beginning of `data`; None while more of it has to come.

    Raises:
        InvalidError: This is no header, or one of a kind that TCP does not have.
    """
    if data.startswith(V2_START):
        return _version_2(data)
    if data.startswith(V1_START):
        return _version_1(data)
    if V1_START.startswith(data) or V2_START.startswith(data):
        return None
    raise InvalidError("expected a PROXY header")


def _version_1(data: bytes) -> Header | None:
    end = data.find(b"\r\n", 0, V1_MAX_BYTES)
    if end < 0:
        if len(data) >= V1_MAX_BYTES:
            raise InvalidError(f"expected a PROXY line of at most {V1_MAX_BYTES} bytes")
        return None
    words = data[len(V1_START) : end].split(b" ")
    size = end + 2
    if words[0] == b"UNKNOWN":
        return Header(address=None, size=size)
    if len(words) != 5 or words[0] not in (b"TCP4", b"TCP6"):
        raise InvalidError("expected 'PROXY TCP4|TCP6 <from> <to> <port> <port>'")
    family = IPv4Address if words[0] == b"TCP4" else IPv6Address
    try:
        client, _ = (family(word.decode("ascii")) for word in words[1:3])
    except (ValueError, UnicodeDecodeError):
        raise InvalidError(f"expected two addresses of {words[0].decode()}") from None
    if "%" in str(client) or not all(_is_port(word) for word in words[3:]):
        raise InvalidError("expected addresses without a zone, and two ports")
    return Header(address=str(client), size=size)


def _is_port(word: bytes) -> bool:
    # `isdigit` of bytes knows ASCII alone.
    return word.isdigit() and len(word) <= 5 and int(word) <= 65535 and (word == b"0" or not word.startswith(b"0"))


def _version_2(data: bytes) -> Header | None:
    if len(data) < V2_FIXED_BYTES:
        return None
    version, command, family = data[12] >> 4, data[12] & 0x0F, data[13]
    length = int.from_bytes(data[14:16])
    size = V2_FIXED_BYTES + length
    if version != 2 or command not in (_LOCAL, _PROXY):
        raise InvalidError("expected a PROXY header of version 2, local or proxied")
    if size > V2_MAX_BYTES:
        raise InvalidError(f"expected a PROXY header of at most {V2_MAX_BYTES} bytes")
    if len(data) < size:
        return None
    if command == _LOCAL or family == _UNSPECIFIED:
        return Header(address=None, size=size)
    if family not in _ADDRESS_BYTES or length < _ADDRESS_BYTES[family]:
        raise InvalidError("expected the addresses of a TCP connection")
    if family == _TCP4:
        return Header(address=str(IPv4Address(data[16:20])), size=size)
    return Header(address=str(IPv6Address(data[16:32])), size=size)
