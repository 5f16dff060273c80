"""The size and the thumbnails of an image, from its bytes."""

import contextlib
import struct
import tracemalloc
import zlib
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import (
    ExifTags,
    GifImagePlugin,
    Image,
    ImageChops,
    ImageCms,
    ImageStat,
    PngImagePlugin,
    WebPImagePlugin,
    features,
)

from shared.errors import InvalidError, TooLargeError
from storage.content.content_types import AVIF, JPEG, PNG, ContentType, sniff_head
from storage.images.image import InspectedImage, Thumbnail, inspect_image

PHOTO = Path(__file__).parents[4] / "demo" / "photo.jpg"


def encoded(image: Image.Image, encoding: str, **options: object) -> bytes:
    out = BytesIO()
    image.save(out, encoding, **options)
    return out.getvalue()


def opened(thumbnail: Thumbnail) -> Image.Image:
    image = Image.open(BytesIO(thumbnail.content))
    image.load()
    return image


def thumbnail_of(content: bytes, *, side_px: int = 320) -> Thumbnail:
    (thumbnail,) = inspect_image(content, sides_px=[side_px]).thumbnails
    return thumbnail


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def with_chunks(png: bytes, *chunks: bytes) -> bytes:
    """The PNG with chunks after its header."""
    return png[:33] + b"".join(chunks) + png[33:]


def png_claiming(width: int, height: int) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = chunk(b"IDAT", zlib.compress(b"\x00" * 100_000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + body + chunk(b"IEND", b"")


def test_photograph_becomes_a_jpeg_that_fits_the_side() -> None:
    picture = inspect_image(PHOTO.read_bytes(), sides_px=[320])

    (thumbnail,) = picture.thumbnails
    assert (640, 427) == (picture.width, picture.height)
    assert JPEG == thumbnail.type
    assert (320, 214) == (thumbnail.width, thumbnail.height) == opened(thumbnail).size


@pytest.mark.parametrize("sides_px", [(320,), (64, 320, 128), (1000, 10)])
def test_thumbnails_are_in_the_requested_order(sides_px: Sequence[int]) -> None:
    picture = inspect_image(PHOTO.read_bytes(), sides_px=sides_px)

    assert [min(side_px, 640) for side_px in sides_px] == [thumbnail.width for thumbnail in picture.thumbnails]
    assert [opened(thumbnail).size for thumbnail in picture.thumbnails] == [
        (thumbnail.width, thumbnail.height) for thumbnail in picture.thumbnails
    ]


def test_image_is_read_from_a_file_that_stays_open(tmp_path: Path) -> None:
    with PHOTO.open("rb") as file:
        from_file = inspect_image(file, sides_px=[320, 64])

        assert not file.closed
    assert inspect_image(PHOTO.read_bytes(), sides_px=[320, 64]) == from_file


@pytest.mark.parametrize("encoding", ["PNG", "WEBP", "GIF", "JPEG"])
def test_large_image_shrinks_as_if_it_were_resized_at_once(encoding: str) -> None:
    photo = Image.open(PHOTO).resize((2501, 1667))
    photo.info = {}

    thumbnail = opened(thumbnail_of(encoded(photo, encoding)))

    # Whatever is done in steps and strips shows nowhere: no seam, no shift.
    expected = photo.resize(thumbnail.size, Image.Resampling.LANCZOS)
    differences = ImageChops.difference(expected, thumbnail).convert("L")
    blocks = differences.resize((16, 16), Image.Resampling.BOX)
    assert ImageStat.Stat(differences).mean[0] < 4
    assert max(ImageStat.Stat(blocks).extrema[0]) < 16


def test_thumbnail_is_never_larger_than_the_original() -> None:
    thumbnail = thumbnail_of(encoded(Image.new("RGB", (12, 7), "red"), "PNG"))

    assert (12, 7) == (thumbnail.width, thumbnail.height)


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK", "1", "P", "I;16"])
@pytest.mark.parametrize("encoding", ["PNG", "JPEG", "GIF", "WEBP"])
def test_opaque_image_becomes_a_jpeg_whatever_its_colours_are(mode: str, encoding: str) -> None:
    supported = {
        "PNG": {"RGB", "L", "1", "P", "I;16"},
        "JPEG": {"RGB", "L", "CMYK"},
        "GIF": {"P", "L"},
        "WEBP": {"RGB"},
    }
    if mode not in supported[encoding]:
        return
    content = encoded(Image.new(mode, (640, 10)), encoding)

    thumbnail = thumbnail_of(content)

    assert ("JPEG", (320, 5)) == (opened(thumbnail).format, opened(thumbnail).size)


def test_thumbnail_keeps_transparency() -> None:
    image = Image.new("RGBA", (640, 640), (255, 0, 0, 0))
    image.paste((0, 0, 255, 255), (0, 0, 320, 640))

    thumbnail = thumbnail_of(encoded(image, "PNG"))

    assert PNG == thumbnail.type
    assert 0 == opened(thumbnail).getpixel((319, 10))[3]  # type: ignore[index]  # a tuple for RGBA
    assert (0, 0, 255, 255) == opened(thumbnail).getpixel((10, 10))


def test_alpha_that_hides_nothing_becomes_a_jpeg() -> None:
    thumbnail = thumbnail_of(encoded(Image.new("RGBA", (10, 10), (1, 2, 3, 255)), "PNG"))

    assert JPEG == thumbnail.type


def test_sixteen_bit_grey_is_scaled_and_not_cut_off() -> None:
    image = Image.new("I;16", (8, 8), 0x4000)

    thumbnail = thumbnail_of(encoded(image, "PNG"))

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

    picture = inspect_image(encoded(taken, "JPEG", exif=exif), sides_px=[320])

    (thumbnail,) = picture.thumbnails
    assert (640, 400) == (picture.width, picture.height)
    red, green, _ = opened(thumbnail).getpixel((40, 25))  # type: ignore[misc]  # a tuple for RGB
    assert red > 200
    assert green < 60
    assert (320, 200) == (thumbnail.width, thumbnail.height)


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
@pytest.mark.parametrize("encoding", ["JPEG", "PNG", "WEBP", "GIF"])
def test_thumbnail_carries_no_metadata(mode: str, encoding: str) -> None:
    if mode == "RGBA" and encoding == "JPEG":
        return
    exif = Image.Exif()
    exif[ExifTags.Base.Artist] = "somebody"
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    texts = PngImagePlugin.PngInfo()
    texts.add_text("Author", "somebody")
    options = {"pnginfo": texts} if encoding == "PNG" else {"comment": b"somebody"}
    image = Image.new(mode, (400, 400), "red")
    image.paste((0, 0, 0, 0) if mode == "RGBA" else (0, 0, 0), (0, 0, 200, 200))
    content = encoded(image, encoding, exif=exif, icc_profile=profile, xmp=b"<x>somebody</x>", dpi=(72, 72), **options)

    thumbnail = thumbnail_of(content)

    assert (PNG if mode == "RGBA" else JPEG) == thumbnail.type
    assert not opened(thumbnail).getexif()
    assert {"jfif", "jfif_version", "jfif_unit", "jfif_density"} >= set(opened(thumbnail).info)
    for trace in (b"somebody", b"Exif", b"ICC_PROFILE", b"iCCP", b"xmp", b"tEXt", b"pHYs", b"<x>"):
        assert trace not in thumbnail.content


def test_animation_is_shown_by_its_first_frame() -> None:
    frames = [Image.new("RGB", (32, 32), colour) for colour in ("red", "blue", "green")]
    content = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])

    thumbnail = opened(thumbnail_of(content))

    red, _, blue = thumbnail.getpixel((16, 16))  # type: ignore[misc]  # a tuple for RGB
    assert red > 200
    assert blue < 60


@pytest.mark.timeout(20)
@pytest.mark.parametrize("encoding", ["GIF", "WEBP", "PNG"])
def test_animation_costs_no_more_than_its_first_frame(encoding: str) -> None:
    frames = [Image.new("RGB", (100, 100), (number, 0, 0)) for number in range(250)]
    content = encoded(frames[0], encoding, save_all=True, append_images=frames[1:], lossless=True, duration=20)
    readers: dict[str, Any] = {
        "GIF": GifImagePlugin.GifImageFile,
        "WEBP": WebPImagePlugin.WebPImageFile,
        "PNG": PngImagePlugin.PngImageFile,
    }
    real = readers[encoding]._seek
    read: list[int] = []

    def seek(image: Image.Image, frame: int, *more: Any) -> None:
        read.append(frame)
        real(image, frame, *more)

    tracemalloc.start()
    with mock.patch.object(readers[encoding], "_seek", seek):
        thumbnail = thumbnail_of(content)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert (100, 100) == (thumbnail.width, thumbnail.height)
    assert {0} == set(read)
    assert peak_bytes < 1_000_000


def test_bomb_is_refused_from_its_header_naming_the_numbers() -> None:
    content = png_claiming(30_000, 30_000)
    tracemalloc.start()

    with pytest.raises(TooLargeError, match=r"30000 x 30000 = 900\.0 megapixels; the limit is 40"):
        inspect_image(content, sides_px=[320])

    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak_bytes < 1_000_000


def test_frame_that_is_larger_than_the_screen_it_is_on_counts() -> None:
    content = bytearray(encoded(Image.new("P", (16, 16)), "GIF"))
    at = content.index(b",\x00\x00\x00\x00\x10\x00\x10\x00")
    content[at + 5 : at + 9] = struct.pack("<HH", 60_000, 60_000)

    with pytest.raises(TooLargeError, match="60000 x 60000"):
        inspect_image(bytes(content), sides_px=[320])


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    "extra",
    [
        chunk(b"iCCP", b"a\0\0" + zlib.compress(b"\0" * 50_000_000)),
        chunk(b"zTXt", b"a\0\0" + zlib.compress(b"a" * 50_000_000)),
        chunk(b"iTXt", b"a\0\x01\0\0\0" + zlib.compress(b"a" * 50_000_000)),
        chunk(b"zTXt", b"a\0\0" + zlib.compress(b"a" * 1_000_000)) * 100,
    ],
    ids=["profile", "text", "international text", "many texts"],
)
def test_bomb_in_the_metadata_is_no_bomb(extra: bytes) -> None:
    content = with_chunks(encoded(Image.new("RGB", (64, 64), "red"), "PNG"), extra)
    tracemalloc.start()

    with pytest.raises(InvalidError, match="damaged"):
        inspect_image(content, sides_px=[320])

    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # Pillow bounds one text and all of them together; this holds it to that.
    assert peak_bytes < 200_000_000


@pytest.mark.parametrize(
    "content",
    [
        encoded(Image.new("RGB", (64, 64), "red"), "JPEG") + b"<script>alert(1)</script>",
        encoded(Image.new("RGB", (64, 64), "red"), "JPEG", comment=b"%PDF-1.7 <script>alert(1)</script>"),
        encoded(Image.new("RGB", (64, 64), "red"), "PNG") + b"PK\x03\x04",
    ],
    ids=["script after a JPEG", "PDF in a JPEG", "ZIP after a PNG"],
)
def test_nothing_hidden_in_an_image_gets_into_its_thumbnail(content: bytes) -> None:
    thumbnail = thumbnail_of(content)

    assert thumbnail.type is JPEG
    assert b"script" not in thumbnail.content
    assert b"PK\x03\x04" not in thumbnail.content


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"hello",
        b"GIF89a/*<script>*/=1;alert(1)",
        b"\xff\xd8\xff%PDF-1.7 and no image at all",
        b"\xff\xd8\xff",
        b"%PDF-1.7\n" + encoded(Image.new("RGB", (8, 8)), "JPEG"),
        encoded(Image.new("RGB", (8, 8)), "BMP"),
        encoded(Image.new("RGB", (8, 8)), "TIFF"),
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
        b"8BPS\x00\x01" + b"\x00" * 64,
        png_claiming(100, 10_000),
    ],
)
def test_other_formats_are_refused(content: bytes) -> None:
    with pytest.raises(InvalidError) as raised:
        inspect_image(content, sides_px=[320])

    assert "file" == raised.value.field


@pytest.mark.parametrize("encoding", ["PNG", "GIF", "JPEG", "WEBP"])
def test_truncated_image_is_refused(encoding: str) -> None:
    content = encoded(Image.open(PHOTO), encoding)

    with pytest.raises(InvalidError, match="damaged"):
        inspect_image(content[: len(content) // 2], sides_px=[320])


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize(("cut", "good"), [(1, True), (2, True), (20, False), (2000, False)])
def test_jpeg_that_lacks_only_its_end_marker_has_all_its_pixels(cut: int, good: bool, progressive: bool) -> None:
    content = encoded(Image.open(PHOTO), "JPEG", progressive=progressive)
    assert content.endswith(b"\xff\xd9")

    if good:
        assert inspect_image(content, sides_px=[320]) == inspect_image(content[:-cut], sides_px=[320])
    else:
        with pytest.raises(InvalidError, match="truncated"):
            inspect_image(content[:-cut], sides_px=[320])


@pytest.mark.parametrize("kind", [b"tEXt", b"zTXt", b"iTXt", b"pHYs", b"iCCP", b"eXIf"])
def test_png_with_a_damaged_chunk_that_a_decoder_may_ignore_is_accepted(kind: bytes) -> None:
    whole = encoded(Image.new("RGB", (64, 32), "red"), "PNG")
    bad = bytearray(chunk(kind, b"Comment\0x"))
    bad[-1] ^= 1

    assert inspect_image(whole, sides_px=[320]) == inspect_image(with_chunks(whole, bytes(bad)), sides_px=[320])


def test_png_with_a_damaged_header_is_refused() -> None:
    damaged = bytearray(encoded(Image.new("RGB", (64, 32), "red"), "PNG"))
    damaged[32] ^= 1

    with pytest.raises(InvalidError, match="damaged"):
        inspect_image(bytes(damaged), sides_px=[320])


def test_orientation_of_xmp_alone_turns_nothing() -> None:
    xmp = (
        b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        b'<rdf:Description xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="6"/></rdf:RDF></x:xmpmeta>'
    )
    for encoding in ("JPEG", "WEBP"):
        picture = inspect_image(encoded(Image.new("RGB", (16, 8), "red"), encoding, xmp=xmp), sides_px=[320])
        assert (16, 8) == (picture.width, picture.height)


@pytest.mark.parametrize("side", [8, 16, 160])
def test_transparent_colour_of_eight_bits_shows_through_whatever_the_size(side: int) -> None:
    image = Image.new("RGB", (side, side), (200, 10, 20))

    thumbnail = thumbnail_of(encoded(image, "PNG", transparency=(200, 10, 20)))

    assert PNG is thumbnail.type
    assert (0, 0) == opened(thumbnail).getchannel("A").getextrema()


def sixteen_bit_png(colour_type: int, pixel: tuple[int, ...], transparent: tuple[int, ...]) -> bytes:
    """A PNG of 8 x 8 equal pixels with 16 bits a channel, and a transparent colour."""
    row = b"\0" + struct.pack(f">{len(pixel)}H", *pixel) * 8
    head = struct.pack(">IIBBBBB", 8, 8, 16, colour_type, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + chunk(b"tRNS", struct.pack(f">{len(transparent)}H", *transparent))
        + chunk(b"IDAT", zlib.compress(row * 8))
        + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize(
    ("colour_type", "pixel", "transparent", "expected"),
    [
        (0, (40000,), (40000,), PNG),
        (0, (200,), (200,), PNG),
        (0, (40001,), (40000,), JPEG),
        (2, (40000, 300, 7), (40000, 300, 7), PNG),
        (2, (40000, 300, 7), (10000, 300, 7), JPEG),
    ],
)
def test_transparent_colour_of_sixteen_bits_is_transparent(
    colour_type: int, pixel: tuple[int, ...], transparent: tuple[int, ...], expected: ContentType
) -> None:
    thumbnail = thumbnail_of(sixteen_bit_png(colour_type, pixel, transparent))

    assert expected is thumbnail.type
    if expected is PNG:
        assert (0, 0) == opened(thumbnail).getchannel("A").getextrema()


@pytest.mark.parametrize("size", [(1, 65_536), (65_536, 1)])
def test_image_with_a_side_that_no_other_format_has_is_too_large(size: tuple[int, int]) -> None:
    with pytest.raises(TooLargeError, match="the limit of a side is 65535"):
        inspect_image(encoded(Image.new("1", size), "PNG"), sides_px=[320])


def test_avif_is_refused_by_its_name_unless_it_is_accepted() -> None:
    if not features.check("avif"):
        pytest.skip("this Pillow cannot write AVIF")
    content = encoded(Image.new("RGB", (400, 200), "red"), "AVIF")

    with pytest.raises(InvalidError, match="AVIF"):
        inspect_image(content, sides_px=[320])

    assert AVIF == sniff_head(content)
    taken = inspect_image(content, sides_px=[320], avif=True)
    assert [(320, 160)] == [opened(thumbnail).size for thumbnail in taken.thumbnails]


def test_avif_is_refused_where_pillow_cannot_read_it() -> None:
    content = b"\x00\x00\x00\x20ftypavif\x00\x00\x00\x00"

    with mock.patch.object(features, "check", return_value=False), pytest.raises(InvalidError, match="AVIF"):
        inspect_image(content, sides_px=[320], avif=True)


def test_jpeg_with_a_second_image_behind_the_first_is_read_as_a_jpeg() -> None:
    photo = Image.open(PHOTO)
    content = encoded(photo, "MPO", save_all=True, append_images=[photo.resize((64, 43))])

    picture = inspect_image(content, sides_px=[320])

    assert (640, 427) == (picture.width, picture.height)
    assert [(320, 214)] == [opened(thumbnail).size for thumbnail in picture.thumbnails]


def test_colours_are_those_of_the_profile() -> None:
    # Swaps red and green, which no wrong guess does by chance.
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    swapped = srgb.replace(b"rXYZ", b"????").replace(b"gXYZ", b"rXYZ").replace(b"????", b"gXYZ")
    content = encoded(Image.new("RGB", (400, 400), (255, 0, 0)), "JPEG", icc_profile=swapped, quality=95)

    red, green, blue = opened(thumbnail_of(content)).getpixel((50, 50))  # type: ignore[misc]  # a tuple for RGB

    assert red < 20
    assert green > 230
    assert blue < 20


@pytest.mark.parametrize("profile", [b"no profile", ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()])
def test_profile_that_does_not_fit_is_ignored(profile: bytes) -> None:
    content = encoded(Image.new("RGB", (400, 400), (200, 30, 30)), "JPEG", icc_profile=profile, quality=95)

    red, green, _ = opened(thumbnail_of(content)).getpixel((50, 50))  # type: ignore[misc]  # a tuple for RGB

    assert abs(200 - red) < 6
    assert abs(30 - green) < 6


def test_print_colours_become_screen_colours() -> None:
    content = encoded(Image.new("CMYK", (400, 400), (0, 255, 255, 0)), "JPEG", quality=95)

    red, green, blue = opened(thumbnail_of(content)).getpixel((50, 50))  # type: ignore[misc]  # a tuple for RGB

    assert red > 240
    assert green < 15
    assert blue < 15


@pytest.mark.parametrize("encoding", ["PNG", "GIF"])
def test_transparent_colour_of_a_palette_shows_through(encoding: str) -> None:
    image = Image.new("P", (1000, 1000), 0)
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.paste(1, (0, 0, 500, 1000))
    content = encoded(image, encoding, transparency=0)

    thumbnail = thumbnail_of(content)

    assert PNG == thumbnail.type
    assert (0, 0, 255, 255) == opened(thumbnail).getpixel((40, 100))
    assert 0 == opened(thumbnail).getpixel((280, 100))[3]  # type: ignore[index]  # a tuple for RGBA


@pytest.mark.parametrize(("mode", "transparent"), [("L", 0), ("RGB", (0, 0, 0)), ("1", 0)])
def test_transparent_colour_without_a_palette_shows_through(mode: str, transparent: int | tuple[int, ...]) -> None:
    image = Image.new(mode, (1000, 1000), 0)
    image.paste(Image.new(mode, (500, 1000), "white"), (0, 0))

    thumbnail = thumbnail_of(encoded(image, "PNG", transparency=transparent))

    assert (255, 255, 255, 255) == opened(thumbnail).getpixel((40, 100))
    assert 0 == opened(thumbnail).getpixel((280, 100))[3]  # type: ignore[index]  # a tuple for RGBA


def test_grey_with_alpha_shows_through() -> None:
    image = Image.new("LA", (1000, 1000), (0, 0))
    image.paste((128, 255), (0, 0, 500, 1000))

    thumbnail = thumbnail_of(encoded(image, "PNG"))

    assert (128, 128, 128, 255) == opened(thumbnail).getpixel((40, 100))
    assert 0 == opened(thumbnail).getpixel((280, 100))[3]  # type: ignore[index]  # a tuple for RGBA


def test_black_and_white_is_smoothed() -> None:
    image = Image.new("1", (1280, 1280), 0)
    for column in range(0, 1280, 2):
        image.paste(1, (column, 0, column + 1, 1280))

    grey = opened(thumbnail_of(encoded(image, "PNG"))).getpixel((100, 100))

    assert all(abs(128 - value) < 8 for value in grey)  # type: ignore[union-attr]  # a tuple for RGB


def test_thumbnail_of_a_strip_keeps_a_pixel_of_its_height() -> None:
    picture = inspect_image(encoded(Image.new("RGB", (5000, 1), "red"), "PNG"), sides_px=[320])

    assert [(320, 1)] == [opened(thumbnail).size for thumbnail in picture.thumbnails]


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_damaged_bytes_result_in_an_error_of_ours_or_an_image(data: st.DataObject) -> None:
    encoding = data.draw(st.sampled_from(["PNG", "GIF", "JPEG", "WEBP"]))
    content = bytearray(encoded(Image.linear_gradient("L").resize((48, 48)).convert("RGB"), encoding))
    for _ in range(data.draw(st.integers(1, 6))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))

    # Any other exception fails the test.
    with contextlib.suppress(InvalidError, TooLargeError):
        picture: InspectedImage = inspect_image(
            bytes(content[: data.draw(st.integers(0, len(content)))]), sides_px=[320]
        )
        assert all(thumbnail.content for thumbnail in picture.thumbnails)
