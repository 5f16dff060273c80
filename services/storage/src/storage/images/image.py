"""
Bytes of a picture -> its size and the bytes of its thumbnails. Pure, and slow: runs in a process of its own.

Configuration: the thumbnails' sides, and whether AVIF is taken. The limits are constants here and in `jpeg_limits`,
with where they come from.
Implementation: Pillow. A JPEG is decoded at a fraction of its size (`draft`), and turned upright only afterwards,
because turning it first decodes it whole: four times slower, ten times the memory (reference: storage.md, 4.2). Every
other picture is reduced in strips, so that its colours are never converted at full size: of 40 megapixels with alpha,
that took 460 MB.
Considerations: Pillow would open 43 formats, among them some that start other programs, so the formats are listed. Its
own limit on pixels only warns; ours is read from the header before a pixel is decoded. Of an animation, Pillow reads
the first frame and no other, as long as nobody asks it how many there are: so nobody does.
"""

import struct
from collections.abc import Sequence
from io import BytesIO
from typing import BinaryIO, Final

from msgspec import Struct
from PIL import ExifTags, Image, ImageCms, JpegImagePlugin, UnidentifiedImageError, features

from shared.errors import InvalidError, TooLargeError
from storage.content.content_types import AVIF, GIF, HEAD_BYTES, JPEG, PNG, WEBP, ContentType, sniff_head
from storage.images.jpeg_limits import check_jpeg

MAX_PIXELS: Final = 40_000_000
"""
The largest picture that is decoded (reference: storage.md, 8.6); frames after the first are not. That is 160 MB of
memory, 240 MB for a progressive JPEG, and 620 MB for a WebP, of which libwebp and Pillow keep four copies. An ordinary
JPEG takes 10 MB.
"""

PIPELINE = "v2"
"""Part of a thumbnail's key: raise it when the same picture would give other bytes."""

JPEG_QUALITY: Final = 80
"""imgproxy's default."""

REDUCING_GAP: Final = 2.0
"""How much larger than a thumbnail the picture is that it is made from: Pillow's own default, near to the best."""

_READERS: Final = {JPEG: "JPEG", PNG: "PNG", GIF: "GIF", WEBP: "WEBP", AVIF: "AVIF"}

_STRIP_PIXELS: Final = 1_000_000

_RESIZABLE_MODES: Final = frozenset({"L", "LA", "RGB", "RGBA", "CMYK"})
"""What can be resized as it is: a palette's numbers cannot be averaged, and Pillow does not reduce the other modes."""

# Pillow's limit is a warning first and counts differently; ours is checked right after the header is read.
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
"""What Pillow's decoders raise for bytes that they cannot read; it promises no narrower kind."""

_TRANSPOSITIONS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""EXIF's orientation -> what makes the picture upright (CIPA DC-008, tag 274)."""

_SWAPPING_SIDES = {_TRANSPOSITIONS[orientation] for orientation in (5, 6, 7, 8)}


class Thumbnail(Struct, frozen=True, kw_only=True):
    """A small picture: upright, sRGB, without metadata."""

    content: bytes
    type: ContentType
    width: int
    height: int


class Picture(Struct, frozen=True, kw_only=True):
    """The size of a picture as it is shown (upright), in pixels, and its thumbnails as they were asked for."""

    width: int
    height: int
    thumbnails: tuple[Thumbnail, ...]


def picture_of(source: bytes | BinaryIO, *, sides_px: Sequence[int], avif: bool = False) -> Picture:
    """
    Read a picture, once, and make its thumbnails: the longer side at most each of `sides_px`, never larger than the
    original. A file is read from its beginning, and stays open.

    The first frame stands for an animation. A thumbnail is a PNG where something shows through, else a JPEG, because
    mail programs show nothing else. `avif` takes AVIF too, where Pillow was built with it.

    Raises:
        InvalidError: Not a JPEG, PNG, GIF or WebP, or damaged.
        TooLargeError: The header claims more than `MAX_PIXELS`, or a JPEG passes a limit of `jpeg_limits`.
    """
    file = BytesIO(source) if isinstance(source, bytes) else source
    reader = _reader(file, avif=avif)
    try:
        with Image.open(file, formats=(reader,)) as image:
            _check_size(image)
            transpose = _transposition(image)
            width, height = reversed(image.size) if transpose in _SWAPPING_SIDES else image.size
            return Picture(width=width, height=height, thumbnails=_thumbnails(image, transpose, sides_px))
    except UnidentifiedImageError:
        raise InvalidError("the image is damaged in its header", field="file") from None
    except _BROKEN as error:
        raise InvalidError(f"the image is damaged: {error}", field="file") from None


def _reader(file: BinaryIO, *, avif: bool) -> str:
    """Pillow's name for the one format that the first bytes tell: no other one tries its luck."""
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
    if width * height > MAX_PIXELS:
        raise TooLargeError(
            f"the image claims {width} x {height} = {width * height / 1e6:.1f} megapixels; "
            f"the limit is {MAX_PIXELS / 1e6:.0f}",
            field="file",
        )


def _transposition(image: Image.Image) -> Image.Transpose | None:
    try:
        return _TRANSPOSITIONS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except _BROKEN:
        # Metadata that cannot be read is no reason to refuse a picture that can be.
        return None


def _thumbnails(
    image: Image.Image, transpose: Image.Transpose | None, sides_px: Sequence[int]
) -> tuple[Thumbnail, ...]:
    sizes = [_fitting(image.size, side_px) for side_px in sides_px]
    profile = image.info.get("icc_profile")
    reduced, box = _reduced(image, max(sizes))
    return tuple(_thumbnail(_resized(reduced, size, box), transpose, profile) for size in sizes)


def _fitting(size: tuple[int, int], side_px: int) -> tuple[int, int]:
    scale = min(1.0, side_px / max(size))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def _reduced(image: Image.Image, size: tuple[int, int]) -> tuple[Image.Image, tuple[float, float, float, float]]:
    """
    The whole picture in a mode that can be resized, still `REDUCING_GAP` times as large as `size` where it was; and the
    part of it that is the picture: where a side is no multiple, the last pixels stand for fewer.
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


def _resizable(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        # Pillow would cut 16-bit grey off at 255 instead of scaling it.
        return image.point(lambda value: value / 256).convert("L")
    if image.mode in _RESIZABLE_MODES and "transparency" not in image.info:
        return image
    return image.convert("RGBA" if image.has_transparency_data else "RGB")


def _resized(image: Image.Image, size: tuple[int, int], box: tuple[float, float, float, float]) -> Image.Image:
    return image.resize(size, Image.Resampling.LANCZOS, box=box, reducing_gap=REDUCING_GAP)


def _thumbnail(small: Image.Image, transpose: Image.Transpose | None, profile: bytes | None) -> Thumbnail:
    if transpose is not None:
        small = small.transpose(transpose)
    small = _in_srgb(small, profile)
    # Encoders copy metadata from here.
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
        # A profile that does not fit the pixels: every viewer shows such a picture as it stands.
        return image
