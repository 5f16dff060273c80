"""
The size and the thumbnails of an image. Pure, and slow: runs in a process of its own.

Configuration: the thumbnails' sides, and whether AVIF is accepted. The limits are constants here and in `jpeg_limits`,
with their reasons.
Implementation: Pillow. A JPEG is decoded at a fraction of its size (`draft`) and turned upright afterwards. Turning
first would decode at full size: four times slower, ten times the memory. Every other image is reduced in strips, so its
colours are never converted at full size. That took 460 MB for 40 megapixels with alpha.
Considerations: Pillow would open 43 formats, some of which start other programs, so the accepted ones are listed. Its
own limit on pixels only warns; ours is checked against the header before a pixel is decoded. Pillow reads more than the
first frame of an animation when code reads the number of frames, so no code does.
"""

import struct
from collections.abc import Sequence
from io import BytesIO
from typing import BinaryIO, Final

from msgspec import Struct
from PIL import ExifTags, Image, ImageCms, JpegImagePlugin, PngImagePlugin, UnidentifiedImageError, features

from shared.errors import InvalidError, TooLargeError
from storage.content.content_types import AVIF, GIF, HEAD_BYTES, JPEG, PNG, WEBP, ContentType, sniff_head
from storage.images.jpeg_limits import check_jpeg
from storage.images.repairs import with_end_of_image, without_damaged_chunks

MAX_PIXELS: Final = 40_000_000
"""
The largest image that is decoded, of its first frame alone. It takes 160 MB of memory, 240 MB as a progressive JPEG,
and 620 MB as a WebP, of which libwebp and Pillow keep four copies. An ordinary JPEG takes 10 MB.
"""

MAX_SIDE_PX: Final = 65_535
"""
The longest side, which is also JPEG's and GIF's own. A decoder works row by row: 40 megapixels that are one pixel wide,
78 KB as a PNG, took five seconds.
"""

PIPELINE = "v3"
"""The version in a thumbnail's key: raise it when the same image would give other bytes."""

JPEG_QUALITY: Final = 80
"""imgproxy's default."""

REDUCING_GAP: Final = 2.0
"""The size of the reduced image in relation to the thumbnail made from it: Pillow's default, close to the best."""

_READERS: Final = {JPEG: "JPEG", PNG: "PNG", GIF: "GIF", WEBP: "WEBP", AVIF: "AVIF"}

_STRIP_PIXELS: Final = 1_000_000

_HIGH_BYTES: Final = [value >> 8 for value in range(65536)]

_RESIZABLE_MODES: Final = frozenset({"L", "LA", "RGB", "RGBA", "CMYK"})
"""Modes that are resized directly. Indexes of a palette cannot be averaged, and Pillow reduces no other mode."""

# Pillow's limit first only warns, and counts differently. Ours is checked right after the header is read.
Image.MAX_IMAGE_PIXELS = None

_BROKEN = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    IndexError,
    KeyError,
    TypeError,
    OverflowError,
    RuntimeError,
    struct.error,
)
"""Errors of Pillow's decoders for damaged bytes. Pillow documents no narrower type."""

_TRANSPOSITIONS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""The transposition that turns an image upright, by its EXIF orientation (CIPA DC-008, tag 274)."""

_SWAPPING_SIDES = {_TRANSPOSITIONS[orientation] for orientation in (5, 6, 7, 8)}


class Thumbnail(Struct, frozen=True, kw_only=True):
    """A small image: upright, sRGB, without metadata."""

    content: bytes
    type: ContentType
    width: int
    height: int


class InspectedImage(Struct, frozen=True, kw_only=True):
    """The size of an image in pixels, upright, and its thumbnails in the requested order."""

    width: int
    height: int
    thumbnails: tuple[Thumbnail, ...]


def inspect_image(source: bytes | BinaryIO, *, sides_px: Sequence[int], avif: bool = False) -> InspectedImage:
    """
    Decode an image once and make its thumbnails.

    Each of `sides_px` is the longer side of one thumbnail, which is never larger than the original. A file is read from
    its beginning, and stays open. Of an animation the first frame is used. A transparent thumbnail is a PNG, any other
    a JPEG, because mail programs show no other format. `avif` accepts AVIF too, where Pillow was built with it.

    Raises:
        InvalidError: Not a JPEG, PNG, GIF or WebP, or damaged.
        TooLargeError: The header claims more than `MAX_PIXELS` or `MAX_SIDE_PX`, or a JPEG exceeds a limit of
            `jpeg_limits`.
    """
    file = BytesIO(source) if isinstance(source, bytes) else source
    reader = _reader(file, avif=avif)
    try:
        return _inspect(file, reader, sides_px)
    except _BROKEN as error:
        try:
            if (repaired := _repaired(file, reader)) is not None:
                return _inspect(repaired, reader, sides_px)
        except _BROKEN:
            # The damage that was found first is the one that is told.
            pass
        if isinstance(error, UnidentifiedImageError):
            raise InvalidError("the image is damaged in its header", field="file") from None
        raise InvalidError(f"the image is damaged: {error}", field="file") from None


def _inspect(file: BinaryIO, reader: str, sides_px: Sequence[int]) -> InspectedImage:
    with Image.open(file, formats=(reader,)) as image:
        _check_size(image)
        transpose = _transposition(image)
        width, height = reversed(image.size) if transpose in _SWAPPING_SIDES else image.size
        return InspectedImage(width=width, height=height, thumbnails=_thumbnails(image, transpose, sides_px))


def _repaired(file: BinaryIO, reader: str) -> BinaryIO | None:
    """The image without the damage that every browser overlooks, or None where that changes nothing."""
    repair = {"PNG": without_damaged_chunks, "JPEG": with_end_of_image}.get(reader)
    if repair is None:
        return None
    file.seek(0)
    content = repair(file.read())
    return BytesIO(content) if content is not None else None


def _reader(file: BinaryIO, *, avif: bool) -> str:
    """Pillow's name of the format that the first bytes show. Pillow tries no other one."""
    kind = sniff_head(file.read(HEAD_BYTES))
    file.seek(0)
    if kind is AVIF and not (avif and features.check("avif")):
        raise InvalidError("AVIF images are not taken here; expected a JPEG, PNG, GIF or WebP", field="file")
    if kind not in _READERS:
        raise InvalidError("expected a JPEG, PNG, GIF or WebP image", field="file")
    if kind is JPEG:
        check_jpeg(file)
        file.seek(0)
    return _READERS[kind]


def _check_size(image: Image.Image) -> None:
    width, height = image.size
    if max(width, height) > MAX_SIDE_PX:
        raise TooLargeError(
            f"the image claims {width} x {height} pixels; the limit of a side is {MAX_SIDE_PX}", field="file"
        )
    if width * height > MAX_PIXELS:
        raise TooLargeError(
            f"the image claims {width} x {height} = {width * height / 1e6:.1f} megapixels; "
            f"the limit is {MAX_PIXELS / 1e6:.0f}",
            field="file",
        )


def _transposition(image: Image.Image) -> Image.Transpose | None:
    # `getexif` looks into XMP as well, which browsers do not, and for a PNG decodes all pixels before.
    exif = Image.Exif()
    try:
        exif.load(image.info.get("exif", b""))
        return _TRANSPOSITIONS.get(exif.get(ExifTags.Base.Orientation, 1))
    except _BROKEN:
        # Unreadable metadata is no reason to refuse a readable image.
        return None


def _thumbnails(
    image: Image.Image, transpose: Image.Transpose | None, sides_px: Sequence[int]
) -> tuple[Thumbnail, ...]:
    _scale_transparency(image)
    sizes = [_fitting(image.size, side_px) for side_px in sides_px]
    profile = image.info.get("icc_profile")
    reduced, box = _reduced(image, max(sizes))
    return tuple(_thumbnail(_resized(reduced, size, box), transpose, profile) for size in sizes)


def _fitting(size: tuple[int, int], side_px: int) -> tuple[int, int]:
    scale = min(1.0, side_px / max(size))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def _reduced(image: Image.Image, size: tuple[int, int]) -> tuple[Image.Image, tuple[float, float, float, float]]:
    """
    Reduce an image to about `REDUCING_GAP` times `size`, in a mode that can be resized.

    Returns:
        The reduced image, and the box of it that holds the original: where a side is no multiple of the factor, its
        last pixel covers less.
    """
    if isinstance(image, JpegImagePlugin.JpegImageFile):
        drafted = image.draft(None, (int(size[0] * REDUCING_GAP), int(size[1] * REDUCING_GAP)))
        image.load()
        return image, drafted[1] if drafted else (0, 0, *image.size)
    width, height = image.size
    factor = int(min(width / size[0], height / size[1]) / REDUCING_GAP) or 1
    rows = max(1, _STRIP_PIXELS // (width * factor)) * factor
    reduced: Image.Image | None = None
    for top in range(0, height, rows):
        strip = _resizable(image.crop((0, top, width, min(height, top + rows)))).reduce(factor)
        if reduced is None:
            reduced = Image.new(strip.mode, (-(-width // factor), -(-height // factor)))
        reduced.paste(strip, (0, top // factor))
    assert reduced is not None
    return reduced, (0, 0, width / factor, height / factor)


def _scale_transparency(image: Image.Image) -> None:
    """Give the transparent colour of an RGB image with 16 bits a channel in the 8 bits that Pillow decodes to."""
    colour = image.info.get("transparency")
    if not isinstance(image, PngImagePlugin.PngImageFile) or not isinstance(colour, tuple):
        return
    # A tile has places and sizes as well, which may hold the same digits.
    if any("16" in str(tile.args) for tile in image.tile):
        image.info["transparency"] = tuple(value >> 8 for value in colour)


def _resizable(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        # Pillow would clip 16-bit grey at 255 instead of scaling it, and lose its transparent colour.
        values = image.convert("I")
        grey = values.point(_HIGH_BYTES, "L")
        colour = image.info.get("transparency")
        if not isinstance(colour, int):
            return grey
        opaque = [255] * 65536
        opaque[colour & 0xFFFF] = 0
        return Image.merge("LA", (grey, values.point(opaque, "L")))
    if image.mode in _RESIZABLE_MODES and "transparency" not in image.info:
        return image
    return image.convert("RGBA" if image.has_transparency_data else "RGB")


def _resized(image: Image.Image, size: tuple[int, int], box: tuple[float, float, float, float]) -> Image.Image:
    return image.resize(size, Image.Resampling.LANCZOS, box=box, reducing_gap=REDUCING_GAP)


def _thumbnail(small: Image.Image, transpose: Image.Transpose | None, profile: bytes | None) -> Thumbnail:
    if transpose is not None:
        small = small.transpose(transpose)
    small = _in_srgb(small, profile)
    # Encoders copy metadata from `info`.
    small.info = {}
    out = BytesIO()
    if small.mode in {"LA", "RGBA"} and small.getchannel("A").getextrema() != (255, 255):
        small.convert("RGBA").save(out, "PNG")
        kind = PNG
    else:
        small.convert("RGB").save(out, "JPEG", quality=JPEG_QUALITY, optimize=True)
        kind = JPEG
    return Thumbnail(content=out.getvalue(), type=kind, width=small.width, height=small.height)


def _in_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    if not profile:
        return image
    mode = "RGBA" if image.mode == "RGBA" else "RGB"
    try:
        source = ImageCms.ImageCmsProfile(BytesIO(profile))
        return ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode=mode) or image
    except (ImageCms.PyCMSError, OSError):
        # The profile does not fit the pixels: every viewer then ignores it.
        return image
