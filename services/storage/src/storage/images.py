"""
Bytes of a picture -> its size and the bytes of a thumbnail. Pure, and slow: runs in a worker thread.

Configuration: none; the limits are constants here, with where they come from.
Implementation: Pillow. A JPEG is decoded at a fraction of its size (`draft`), and turned upright only afterwards,
because turning it first decodes it whole: four times slower, ten times the memory (reference: storage.md, 4.2).
Considerations: Pillow would open 43 formats, among them some that start other programs, so the formats are listed. Its
own limit on pixels only warns; ours is read from the header before a pixel is decoded.
"""

import struct
from io import BytesIO
from typing import Final

from msgspec import Struct
from PIL import ExifTags, Image, ImageCms, UnidentifiedImageError

from shared.errors import InvalidError, TooLargeError
from storage.content_types import JPEG, PNG, ContentType

MAX_PIXELS: Final = 40_000_000
"""The largest picture that is decoded: some 160 MB of memory (reference: storage.md, 8.6)."""

THUMBNAIL_PX: Final = 320
"""The longer side of a thumbnail, unless told otherwise."""

PIPELINE = "v1"
"""Part of a thumbnail's key: raise it when the same picture would give other bytes."""

JPEG_QUALITY: Final = 80
"""imgproxy's default."""

FORMATS: Final = ("JPEG", "PNG", "GIF", "WEBP")

# Pillow's limit is a warning first and counts differently; ours is checked right after the header is read.
Image.MAX_IMAGE_PIXELS = None

_BROKEN = (OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError, TypeError, OverflowError, struct.error)
"""What Pillow's decoders raise for bytes that they cannot read; it promises no narrower kind."""

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""EXIF's orientation -> what makes the picture upright (CIPA DC-008, tag 274)."""

_SWAPPING = {_TURNS[orientation] for orientation in (5, 6, 7, 8)}


class Thumbnail(Struct, frozen=True, kw_only=True):
    """A small picture: upright, sRGB, without metadata."""

    content: bytes
    type: ContentType
    width: int
    height: int


class Picture(Struct, frozen=True, kw_only=True):
    """The size of a picture as it is shown (upright), in pixels, and its thumbnail."""

    width: int
    height: int
    thumbnail: Thumbnail


def picture_from_bytes(content: bytes, *, side_px: int = THUMBNAIL_PX) -> Picture:
    """
    Read a picture and make its thumbnail, whose longer side is at most `side_px`; never larger than the original.

    The first frame stands for an animation. The thumbnail is a PNG where something shows through, else a JPEG, because
    mail programs show nothing else.

    Raises:
        InvalidError: Not a JPEG, PNG, GIF or WebP, or damaged.
        TooLargeError: The header claims more than `MAX_PIXELS`.
    """
    try:
        with Image.open(BytesIO(content), formats=FORMATS) as image:
            _check_size(image)
            turn = _turn(image)
            width, height = reversed(image.size) if turn in _SWAPPING else image.size
            return Picture(width=width, height=height, thumbnail=_thumbnail(image, turn, side_px))
    except UnidentifiedImageError:
        raise InvalidError("expected a JPEG, PNG, GIF or WebP image", field="file") from None
    except _BROKEN as error:
        raise InvalidError(f"the image is damaged: {error}", field="file") from None


def _check_size(image: Image.Image) -> None:
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise TooLargeError(
            f"the image claims {width} x {height} = {width * height / 1e6:.1f} megapixels; "
            f"the limit is {MAX_PIXELS / 1e6:.0f}",
            field="file",
        )


def _turn(image: Image.Image) -> Image.Transpose | None:
    try:
        return _TURNS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except _BROKEN:
        # Metadata that cannot be read is no reason to refuse a picture that can be.
        return None


def _thumbnail(image: Image.Image, turn: Image.Transpose | None, side_px: int) -> Thumbnail:
    if image.format == "JPEG":
        small: Image.Image = image
    else:
        # A palette cannot be resized smoothly. A JPEG has none, and loading it here would defeat `draft`.
        small = _eight_bit(image).convert("RGBA" if image.has_transparency_data else "RGB")
    small.thumbnail((side_px, side_px), Image.Resampling.LANCZOS, reducing_gap=2.0)
    if turn is not None:
        small = small.transpose(turn)
    small = _in_srgb(small)
    # A new image carries no metadata, whatever an encoder would have copied from `info`.
    shown = Image.new(small.mode, small.size)
    shown.paste(small)
    out = BytesIO()
    if shown.mode == "RGBA" and shown.getchannel("A").getextrema() != (255, 255):
        shown.save(out, "PNG", optimize=True)
        kind = PNG
    else:
        shown.convert("RGB").save(out, "JPEG", quality=JPEG_QUALITY, optimize=True)
        kind = JPEG
    return Thumbnail(content=out.getvalue(), type=kind, width=shown.width, height=shown.height)


def _eight_bit(image: Image.Image) -> Image.Image:
    # Pillow would cut 16-bit grey off at 255 instead of scaling it.
    return image.point(lambda value: value / 256).convert("L") if image.mode.startswith("I") else image


def _in_srgb(image: Image.Image) -> Image.Image:
    profile = image.info.get("icc_profile")
    if not profile:
        return image
    mode = "RGBA" if image.mode == "RGBA" else "RGB"
    try:
        source = ImageCms.ImageCmsProfile(BytesIO(profile))
        return ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode=mode) or image
    except (ImageCms.PyCMSError, OSError):
        # A profile that does not fit the pixels: every viewer shows such a picture as it stands.
        return image
