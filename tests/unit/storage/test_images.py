"""A picture's size and its thumbnail, from its bytes."""

import contextlib
import struct
import zlib
from io import BytesIO
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image, ImageCms

from shared.errors import InvalidError, TooLargeError
from storage.content_types import JPEG, PNG
from storage.images import Thumbnail, picture_from_bytes

PHOTO = Path(__file__).parents[3] / "demo" / "photo.jpg"


def encoded(image: Image.Image, encoding: str, **options: object) -> bytes:
    out = BytesIO()
    image.save(out, encoding, **options)
    return out.getvalue()


def opened(thumbnail: Thumbnail) -> Image.Image:
    image = Image.open(BytesIO(thumbnail.content))
    image.load()
    return image


def png_claiming(width: int, height: int) -> bytes:
    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = chunk(b"IDAT", zlib.compress(b"\x00" * 100_000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + body + chunk(b"IEND", b"")


def test_photograph_becomes_a_jpeg_that_fits_the_side() -> None:
    picture = picture_from_bytes(PHOTO.read_bytes(), side_px=320)

    assert (640, 427) == (picture.width, picture.height)
    assert JPEG == picture.thumbnail.type
    assert (320, 214) == (picture.thumbnail.width, picture.thumbnail.height) == opened(picture.thumbnail).size


def test_thumbnail_is_never_larger_than_the_original() -> None:
    picture = picture_from_bytes(encoded(Image.new("RGB", (12, 7), "red"), "PNG"))

    assert (12, 7) == (picture.thumbnail.width, picture.thumbnail.height)


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK", "1", "P", "I;16"])
@pytest.mark.parametrize("encoding", ["PNG", "JPEG", "GIF", "WEBP"])
def test_opaque_picture_becomes_a_jpeg_whatever_its_colours_are(mode: str, encoding: str) -> None:
    supported = {
        "PNG": {"RGB", "L", "1", "P", "I;16"},
        "JPEG": {"RGB", "L", "CMYK"},
        "GIF": {"P", "L"},
        "WEBP": {"RGB"},
    }
    if mode not in supported[encoding]:
        return
    content = encoded(Image.new(mode, (640, 10)), encoding)

    thumbnail = picture_from_bytes(content).thumbnail

    assert ("JPEG", (320, 5)) == (opened(thumbnail).format, opened(thumbnail).size)


def test_thumbnail_keeps_what_shows_through() -> None:
    image = Image.new("RGBA", (640, 640), (255, 0, 0, 0))
    image.paste((0, 0, 255, 255), (0, 0, 320, 640))

    thumbnail = picture_from_bytes(encoded(image, "PNG")).thumbnail

    assert PNG == thumbnail.type
    assert 0 == opened(thumbnail).getpixel((319, 10))[3]  # type: ignore[index]  # a tuple for RGBA
    assert (0, 0, 255, 255) == opened(thumbnail).getpixel((10, 10))


def test_alpha_that_hides_nothing_becomes_a_jpeg() -> None:
    thumbnail = picture_from_bytes(encoded(Image.new("RGBA", (10, 10), (1, 2, 3, 255)), "PNG")).thumbnail

    assert JPEG == thumbnail.type


def test_sixteen_bit_grey_is_scaled_and_not_cut_off() -> None:
    image = Image.new("I;16", (8, 8), 0x4000)

    thumbnail = picture_from_bytes(encoded(image, "PNG")).thumbnail

    assert opened(thumbnail).getpixel((4, 4)) == (0x40, 0x40, 0x40)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_thumbnail_is_upright_when_the_camera_was_turned(orientation: int) -> None:
    upright = Image.new("RGB", (640, 400), "white")
    upright.paste("red", (0, 0, 320, 200))
    back = {
        1: None,
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }[orientation]
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    taken = upright if back is None else upright.transpose(back)

    picture = picture_from_bytes(encoded(taken, "JPEG", exif=exif))

    assert (640, 400) == (picture.width, picture.height)
    red, green, _ = opened(picture.thumbnail).getpixel((40, 25))  # type: ignore[misc]  # a tuple for RGB
    assert red > 200
    assert green < 60
    assert (320, 200) == (picture.thumbnail.width, picture.thumbnail.height)


def test_thumbnail_carries_no_metadata() -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Artist] = "somebody"
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    content = encoded(Image.new("RGB", (64, 64)), "JPEG", exif=exif, icc_profile=profile, comment=b"hello")

    thumbnail = opened(picture_from_bytes(content).thumbnail)

    assert not thumbnail.getexif()
    assert {"exif", "icc_profile", "comment", "xmp"}.isdisjoint(thumbnail.info)


def test_animation_is_shown_by_its_first_frame() -> None:
    frames = [Image.new("RGB", (32, 32), colour) for colour in ("red", "blue", "green")]
    content = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])

    thumbnail = opened(picture_from_bytes(content).thumbnail)

    red, _, blue = thumbnail.getpixel((16, 16))  # type: ignore[misc]  # a tuple for RGB
    assert red > 200
    assert blue < 60


def test_bomb_is_refused_from_its_header_naming_the_numbers() -> None:
    with pytest.raises(TooLargeError, match=r"30000 x 30000 = 900\.0 megapixels; the limit is 40"):
        picture_from_bytes(png_claiming(30_000, 30_000))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"hello",
        b"GIF89a/*<script>*/",
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
        b"8BPS\x00\x01" + b"\x00" * 64,
        png_claiming(100, 10_000),
    ],
)
def test_what_is_no_picture_of_ours_is_refused(content: bytes) -> None:
    with pytest.raises(InvalidError) as raised:
        picture_from_bytes(content)

    assert "file" == raised.value.field


def test_truncated_picture_is_refused() -> None:
    content = PHOTO.read_bytes()

    with pytest.raises(InvalidError, match="damaged"):
        picture_from_bytes(content[: len(content) // 2])


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_damaged_bytes_end_in_an_error_of_ours_or_in_a_picture(data: st.DataObject) -> None:
    encoding = data.draw(st.sampled_from(["PNG", "GIF", "JPEG", "WEBP"]))
    content = bytearray(encoded(Image.linear_gradient("L").resize((48, 48)).convert("RGB"), encoding))
    for _ in range(data.draw(st.integers(1, 6))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))

    # Any other exception fails the test.
    with contextlib.suppress(InvalidError, TooLargeError):
        assert picture_from_bytes(bytes(content[: data.draw(st.integers(0, len(content)))])).thumbnail.content
