"""Packed bodies: what goes in comes out, whatever the pieces, and what is cut or followed by more does not."""

import contextlib
import gzip
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.errors import InvalidError
from shared.http.unpacking import MEMBERS, PIECE_BYTES, Unpacker, UnsupportedEncodingError, coding_of


def raw_deflate(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(data) + packer.flush()


PACKERS = [("gzip", gzip.compress), ("deflate", zlib.compress), ("deflate", raw_deflate)]


def unpacked(coding: str, packed: bytes, piece_bytes: int = 1 << 20) -> bytes:
    unpacker = Unpacker(coding)
    found = [
        piece for at in range(0, len(packed), piece_bytes) for piece in unpacker.feed(packed[at : at + piece_bytes])
    ]
    unpacker.finish()
    return b"".join(found)


@pytest.mark.parametrize(("coding", "pack"), PACKERS)
@given(data=st.binary(max_size=2000), piece_bytes=st.integers(1, 100))
def test_body_comes_out_as_it_went_in(coding: str, pack: object, data: bytes, piece_bytes: int) -> None:
    assert callable(pack)
    assert data == unpacked(coding, pack(data), piece_bytes)


@given(members=st.lists(st.binary(max_size=200), min_size=1, max_size=8), piece_bytes=st.integers(1, 100))
def test_members_of_gzip_are_one_body(members: list[bytes], piece_bytes: int) -> None:
    assert b"".join(members) == unpacked("gzip", b"".join(map(gzip.compress, members)), piece_bytes)


@pytest.mark.parametrize(("coding", "pack"), PACKERS)
@given(data=st.binary(min_size=1, max_size=300), cut=st.floats(0, 1, exclude_max=True))
def test_body_that_is_cut_is_refused_wherever_it_is_cut(coding: str, pack: object, data: bytes, cut: float) -> None:
    assert callable(pack)
    packed = pack(data)

    with pytest.raises(InvalidError):
        unpacked(coding, packed[: int(cut * len(packed))])


@pytest.mark.parametrize(("coding", "pack"), PACKERS)
@given(more=st.binary(min_size=1, max_size=50), piece_bytes=st.integers(1, 100))
def test_body_with_more_after_its_end_is_refused(coding: str, pack: object, more: bytes, piece_bytes: int) -> None:
    assert callable(pack)
    with pytest.raises(InvalidError):
        unpacked(coding, pack(b"whole") + more, piece_bytes)


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
@given(packed=st.binary(min_size=1, max_size=200))
def test_bytes_that_are_not_packed_are_refused_or_unpacked_and_nothing_else(coding: str, packed: bytes) -> None:
    with contextlib.suppress(InvalidError):
        unpacked(coding, packed)


@given(place=st.integers(0, 10_000), bit=st.integers(0, 7))
def test_damaged_gzip_is_refused_or_means_the_same(place: int, bit: int) -> None:
    data = b"0123456789" * 50
    packed = bytearray(gzip.compress(data))
    packed[place % len(packed)] ^= 1 << bit

    try:
        found = unpacked("gzip", bytes(packed))
    except InvalidError:
        return
    # A time or the name of a system in the header.
    assert data == found


def test_pieces_of_a_bomb_are_small_and_come_one_by_one() -> None:
    bomb = gzip.compress(bytes(64 << 20), 9)
    pieces = Unpacker("gzip").feed(bomb)

    assert all(len(next(pieces)) <= PIECE_BYTES for _ in range(10))


def test_members_without_content_are_limited() -> None:
    with pytest.raises(InvalidError, match=f"at most {MEMBERS} members"):
        unpacked("gzip", gzip.compress(b"") * (MEMBERS + 1))


@pytest.mark.parametrize(
    ("header", "coding"),
    [("", ""), ("identity", ""), ("gzip", "gzip"), ("x-gzip", "gzip"), (" GZip ", "gzip"), ("deflate", "deflate")],
)
def test_known_codings(header: str, coding: str) -> None:
    assert coding == coding_of(header)


@pytest.mark.parametrize("header", ["br", "zstd", "gzip, gzip", "x-deflate", "compress", "*"])
def test_other_codings_are_refused_by_name(header: str) -> None:
    with pytest.raises(UnsupportedEncodingError, match="expected gzip, deflate or identity, found"):
        coding_of(header)
