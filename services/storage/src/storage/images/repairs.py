"""
Repairs of images that every browser shows and Pillow refuses. Pure: bytes in, bytes out; the stored original stays.

Considerations: Pillow has one switch for both (`LOAD_TRUNCATED_IMAGES`), which would accept an image that lacks half of
its pixels as well.
"""

import hashlib
import struct
import zlib
from io import BytesIO
from typing import Final

from PIL import Image

PNG_SIGNATURE_BYTES: Final = 8
_CHUNK: Final = struct.Struct(">I4s")
_CRC_BYTES: Final = 4
_ANCILLARY: Final = 0x20
"""The bit of a chunk's first letter that says that a decoder may ignore it (PNG, 5.4)."""

END_OF_IMAGE: Final = b"\xff\xd9"
_OTHER_BITS: Final = b"\xaa" * 64


def without_damaged_chunks(png: bytes) -> bytes | None:
    """A PNG without the ancillary chunks whose checksum is wrong. None where there are none."""
    kept, start, at = [png[:PNG_SIGNATURE_BYTES]], PNG_SIGNATURE_BYTES, PNG_SIGNATURE_BYTES
    dropped = False
    while at + _CHUNK.size <= len(png):
        length, kind = _CHUNK.unpack_from(png, at)
        end = at + _CHUNK.size + length + _CRC_BYTES
        checked = memoryview(png)[at + 4 : end - _CRC_BYTES]
        if kind[0] & _ANCILLARY and end <= len(png) and zlib.crc32(checked) != int.from_bytes(png[end - 4 : end]):
            kept.append(png[start:at])
            start, dropped = end, True
        at = end
    return b"".join((*kept, png[start:])) if dropped else None


def with_end_of_image(jpeg: bytes) -> bytes | None:
    """
    A JPEG with the end marker that it lacks. None where it lacks more: pixels.

    A decoder invents what is missing at the end. Therefore the image is decoded twice, with other bits after its own:
    where they make a difference, its own bits did not suffice.
    """
    if jpeg.endswith(END_OF_IMAGE):
        return None
    scans = jpeg.removesuffix(END_OF_IMAGE[:1])
    whole = scans + END_OF_IMAGE
    return whole if _hash_of_pixels(whole) == _hash_of_pixels(scans + _OTHER_BITS + END_OF_IMAGE) else None


def _hash_of_pixels(jpeg: bytes) -> bytes:
    with Image.open(BytesIO(jpeg), formats=("JPEG",)) as image:
        return hashlib.sha256(image.tobytes()).digest()
