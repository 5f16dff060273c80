"""A small JPEG cannot keep a decoder busy for long."""

from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image

from shared.errors import TooLargeError
from storage.images.jpeg_limits import MAX_FILL_BYTES, MAX_SCANS, MAX_SEGMENTS, check_jpeg

PHOTO = Path(__file__).parents[4] / "demo" / "photo.jpg"


def encoded(**options: object) -> bytes:
    out = BytesIO()
    Image.open(PHOTO).save(out, "JPEG", **options)
    return out.getvalue()


def with_scans(content: bytes, count: int) -> bytes:
    """The JPEG with its last scan `count` times more."""
    last = content[content.rindex(b"\xff\xda") : -2]
    return content[:-2] + last * count + content[-2:]


@pytest.mark.parametrize(
    "content",
    [
        encoded(),
        encoded(progressive=True),
        encoded(progressive=True, comment=b"\xff\xda" * 1000),
        encoded(progressive=True) + encoded(progressive=True) * 20,
        encoded() + b"\xff\xda" * 1000,
        encoded(icc_profile=b"x" * 3_000_000),
        encoded().replace(b"\xff\xdb", b"\xff\xff\xff\xff\xdb"),
        encoded(restart_marker_blocks=1, progressive=True),
        encoded(restart_marker_blocks=1),
        encoded(progressive=True)[:5000],
        encoded()[:3],
        b"\xff\xd8\xff",
        b"\xff\xd8\xff\xe0\x00\x00",
    ],
)
def test_ordinary_and_broken_files_pass(content: bytes) -> None:
    check_jpeg(BytesIO(content))


def test_many_scans_are_refused() -> None:
    content = encoded(progressive=True)

    check_jpeg(BytesIO(with_scans(content, MAX_SCANS - content.count(b"\xff\xda"))))
    with pytest.raises(TooLargeError, match=str(MAX_SCANS)):
        check_jpeg(BytesIO(with_scans(content, MAX_SCANS)))


def test_scans_of_single_colours_are_counted_too() -> None:
    # Announces one scan for each colour, as old cameras did.
    content = bytearray(encoded())
    at = content.rindex(b"\xff\xda")
    content[at:] = (b"\xff\xda\x00\x08\x01\x01\x00\x00\x3f\x00" + b"\x00" * 9) * (MAX_SCANS + 1)

    with pytest.raises(TooLargeError, match=str(MAX_SCANS)):
        check_jpeg(BytesIO(bytes(content)))


@pytest.mark.timeout(5)
@pytest.mark.parametrize(
    ("between", "limit"),
    [
        (b"\xff\xfe\x00\x03a" * 2_000_000, MAX_SEGMENTS),
        (b"\xff\xe9\x00\x02" * 2_000_000, MAX_SEGMENTS),
        (b"\xff" * 10_000_000, MAX_FILL_BYTES),
        (b"\xff\x00" * 5_000_000, MAX_FILL_BYTES),
    ],
    ids=["comments", "empty segments", "fill bytes", "escaped bytes"],
)
def test_many_segments_or_fill_bytes_are_refused(between: bytes, limit: int) -> None:
    content = encoded()

    with pytest.raises(TooLargeError, match=str(limit)):
        check_jpeg(BytesIO(content[:2] + between + content[2:]))
