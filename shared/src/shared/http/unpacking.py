"""
Packed bodies (`Content-Encoding`): gzip and deflate, unpacked piece by piece and checked to their end. No I/O.

isal inflates a body of 14 MB of events in 16 ms, zlib in 41 ms; a piece takes 0.4 ms.
"""

from collections.abc import Iterator
from typing import Final

from isal import isal_zlib

from shared.errors import InvalidError

CODINGS: Final = ("gzip", "deflate")
"""The codings that are unpacked, for `Accept-Encoding`. `x-gzip` is gzip (RFC 9110, 8.4.1.3)."""

PIECE_BYTES: Final = 256 << 10
"""Limit of one unpacked piece."""
STEP_BYTES: Final = 16 << 10
"""Packed bytes that are given to the library at once: at the end of a member it copies the rest of them."""
MEMBERS: Final = 4096
"""Limit on the members of a body. Each takes time, and the smallest, of 20 bytes, unpacks to nothing."""

_GZIP: Final = 31
_ZLIB: Final = 15
_RAW: Final = -15


class UnsupportedEncodingError(InvalidError):
    """The body is in a coding that is not unpacked: status 415 (RFC 9110, 15.5.16)."""


def coding_of(header: str) -> str:
    """
    The coding that a `Content-Encoding` names: `gzip`, `deflate` or, for none, "".

    Raises:
        UnsupportedEncodingError: It is another one, or several.
    """
    coding = header.strip().lower()
    if coding in {"", "identity"}:
        return ""
    coding = coding.removeprefix("x-") if coding == "x-gzip" else coding
    if coding not in CODINGS:
        raise UnsupportedEncodingError(
            f"expected gzip, deflate or identity, found {header[:64]!r}", field="Content-Encoding"
        )
    return coding


class Unpacker:
    """
    One packed body. `feed` takes its bytes as they come, `finish` is called after the last.

    A body of gzip may have several members, as `cat a.gz b.gz` makes them (RFC 1952, 2.2). `deflate` is the zlib
    format of RFC 9110, or a bare deflate stream, which some clients send under this name.
    """

    def __init__(self, coding: str) -> None:
        self._coding = coding
        self._member = isal_zlib.decompressobj(wbits=_GZIP) if coding == "gzip" else None
        self._members = 1
        self._begun = False
        self._head = b""

    def feed(self, data: bytes) -> Iterator[bytes]:
        """
        Yield what comes out, in pieces of at most `PIECE_BYTES`; between two steps a piece may be empty.

        Raises:
            InvalidError: The bytes are not of the coding, or something follows the end.
        """
        for at in range(0, len(data), STEP_BYTES):
            yield from self._step(data[at : at + STEP_BYTES])

    def finish(self) -> None:
        """Raise `InvalidError` where the end is missing: a body that was cut is not accepted."""
        if self._member is None or (self._begun and not self._member.eof):
            raise InvalidError(f"the {self._coding} body ends too early", field="body")
        if not self._begun:
            raise InvalidError(f"expected a {self._coding} body, found none", field="body")

    def _step(self, data: bytes) -> Iterator[bytes]:
        if self._member is None:
            # Two bytes tell zlib's header from a bare stream (RFC 1950, 2.2).
            data = self._head + data
            if len(data) < 2:
                self._head = data
                return
            self._member = isal_zlib.decompressobj(wbits=_ZLIB if _has_zlib_header(data) else _RAW)
        while data:
            if self._begun and self._member.eof:
                self._next_member()
            self._begun = True
            yield from self._unpack(data)
            data = self._member.unused_data if self._member.eof else b""

    def _unpack(self, data: bytes) -> Iterator[bytes]:
        assert self._member is not None
        while True:
            try:
                piece = self._member.decompress(data, PIECE_BYTES)
            except isal_zlib.error:  # type: ignore[misc] # Its stub says that it is an instance.
                raise InvalidError(f"the body is not {self._coding}, or is damaged", field="body") from None
            yield piece
            data = self._member.unconsumed_tail
            if self._member.eof or (not data and len(piece) < PIECE_BYTES):
                return

    def _next_member(self) -> None:
        if self._coding != "gzip":
            raise InvalidError(f"expected nothing after the end of the {self._coding} body", field="body")
        self._members += 1
        if self._members > MEMBERS:
            raise InvalidError(f"expected at most {MEMBERS} members of gzip", field="body")
        self._member = isal_zlib.decompressobj(wbits=_GZIP)


def _has_zlib_header(data: bytes) -> bool:
    return data[0] & 0x0F == 8 and data[0] >> 4 <= 7 and int.from_bytes(data[:2], "big") % 31 == 0
