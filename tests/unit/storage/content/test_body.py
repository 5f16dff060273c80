"""Bodies of uploads: counted, hashed, in memory or on the disk, and released after use."""

import contextlib
import hashlib
import os
from collections.abc import AsyncIterator, Iterable
from pathlib import Path

import pytest

from shared.errors import TooLargeError, UnavailableError
from storage.content.body import PIECE_BYTES, SPOOL_BYTES, Bodies, body_of
from storage.content.content_types import HEAD_BYTES

LARGE = os.urandom(PIECE_BYTES) * 9 + b"the end"


async def sent(pieces: Iterable[bytes]) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece


def cut(content: bytes, size: int = 65_000) -> Iterable[bytes]:
    return (content[at : at + size] for at in range(0, len(content), size))


def open_files(folder: Path) -> list[str]:
    """Return the files that this process holds open below a folder, with or without a name."""
    links = []
    for number in Path("/proc/self/fd").iterdir():
        # The listing's own number is closed by now.
        with contextlib.suppress(FileNotFoundError):
            links.append(str(number.readlink()))
    return [link for link in links if link.startswith(str(folder))]


@pytest.mark.parametrize("content", [b"", b"x", b"x" * (HEAD_BYTES + 1), LARGE], ids=len)
async def test_body_is_what_was_sent(content: bytes, tmp_path: Path) -> None:
    bodies = Bodies(tmp_path, memory_bytes=1 << 30)

    async with bodies.receive("acme", sent(cut(content)), 1 << 30) as body:
        with body.open() as first, body.open() as second:
            first.seek(len(content) // 2)
            assert (content[len(content) // 2 :], content) == (first.read(), second.read())
            assert len(content) == second.tell() == second.seek(0, os.SEEK_END)
        assert content == b"".join(body.pieces()) == body.read()
        assert (len(content), hashlib.sha256(content).hexdigest()) == (body.size_bytes, body.sha256)
        assert content[:HEAD_BYTES] == body.head
        assert (body.data is None) == (len(content) > SPOOL_BYTES)


async def test_large_body_is_in_an_unnamed_file_that_ends_with_its_block(tmp_path: Path) -> None:
    async with Bodies(tmp_path, memory_bytes=1 << 30).receive("acme", sent(cut(LARGE)), 1 << 30):
        (file,) = open_files(tmp_path)
        assert file.endswith("(deleted)")

    assert [] == open_files(tmp_path)


async def test_bodies_share_one_memory_and_the_rest_goes_to_the_disk(tmp_path: Path) -> None:
    bodies = Bodies(tmp_path, memory_bytes=100)

    async with bodies.receive("acme", sent([b"a" * 80]), 1000) as first:
        async with bodies.receive("acme", sent([b"b" * 10, b"b" * 20]), 1000) as second:
            assert (b"a" * 80, None) == (first.data, second.data)
            assert b"b" * 30 == second.read()
        async with bodies.receive("acme", sent([b"c" * 20]), 1000) as third:
            assert b"c" * 20 == third.data
    async with bodies.receive("acme", sent([b"d" * 100]), 1000) as fourth:
        assert b"d" * 100 == fourth.data


async def test_bodies_of_one_app_leave_memory_for_another(tmp_path: Path) -> None:
    bodies = Bodies(tmp_path, memory_bytes=100)

    async with (
        bodies.receive("acme", sent([b"a" * 75]), 1000) as first,
        bodies.receive("other", sent([b"b" * 10, b"b" * 10]), 1000) as second,
    ):
        assert [False, False] == [body.data is None for body in (first, second)]


async def test_too_long_a_body_is_refused_before_it_has_ended(tmp_path: Path) -> None:
    bodies, read = Bodies(tmp_path, memory_bytes=100), []

    async def endless() -> AsyncIterator[bytes]:
        while True:
            read.append(b"x" * 10)
            yield read[-1]

    with pytest.raises(TooLargeError, match="at most 25 bytes"):
        async with bodies.receive("acme", endless(), 25):
            pass

    assert 3 == len(read)
    async with bodies.receive("acme", sent([b"d" * 100]), 100) as body:
        assert body.data is not None


async def test_upload_that_breaks_off_leaves_no_file_and_no_memory_behind(tmp_path: Path) -> None:
    bodies = Bodies(tmp_path, memory_bytes=SPOOL_BYTES)

    async def broken() -> AsyncIterator[bytes]:
        for piece in cut(LARGE):
            yield piece
        raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        async with bodies.receive("acme", broken(), 1 << 30):
            pass

    assert [] == open_files(tmp_path)
    async with bodies.receive("acme", sent([b"d" * SPOOL_BYTES]), SPOOL_BYTES) as body:
        assert body.data is not None


async def test_full_disk_is_reported(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()

    with pytest.raises(UnavailableError, match="cannot be kept on the disk"):
        async with Bodies(file, memory_bytes=1).receive("acme", sent([b"12"]), 10):
            pass


def test_body_of_bytes_equals_a_received_one() -> None:
    body = body_of(LARGE)

    assert (len(LARGE), hashlib.sha256(LARGE).hexdigest(), LARGE) == (body.size_bytes, body.sha256, body.data)
    assert [LARGE] == list(body.pieces())
