"""
Limits on the decoding cost of a JPEG beyond its pixels, checked before it is decoded. Pure.

A JPEG may hold its pixels in many scans, and each costs a pass over all pixels. 220 KB with 200 scans took 7.5 s; 10 MB
have room for 150,000. Pillow reads the segments before the scans one by one, and the fill bytes between them: 10 MB of
either took ten seconds. Neither the number of pixels nor the size of the file limits that.
"""

import re
from typing import BinaryIO, Final

from shared.errors import TooLargeError

MAX_SCANS: Final = 64
"""Encoders write ten. Each costs a millisecond a megapixel."""

MAX_SEGMENTS: Final = 2000
"""Cameras write a dozen. Long metadata is split into segments of 64 KB."""

MAX_FILL_BYTES: Final = 4096
"""Fill bytes between two segments. The specification allows any number; encoders hardly write one."""

_END_OF_IMAGE: Final = 0xD9
_START_OF_SCAN: Final = 0xDA
_SEQUENTIAL: Final = frozenset({0xC0, 0xC1})
_FRAMES: Final = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
"""The markers that begin a frame; the three others in that range are tables (ITU-T T.81, table B.1)."""

_MARKER: Final = re.compile(rb"\xff([^\x00\x01\xd0-\xd8\xff])")
"""A marker that a segment follows. In the data of a scan, FF is followed by 00 or by a restart marker."""

_PIECE_BYTES: Final = 64 * 1024


def check_jpeg(file: BinaryIO) -> None:
    """
    Read the segments of a JPEG; `file` is at its beginning. A damaged file passes: the decoder reports it better.

    Raises:
        TooLargeError: The JPEG exceeds one of the limits.
    """
    scans = components = 0
    sequential = in_scan = False
    for _ in range(MAX_SEGMENTS):
        marker = _next_marker(file, in_scan=in_scan)
        if marker is None or marker == _END_OF_IMAGE:
            return
        segment = file.read(max(0, int.from_bytes(file.read(2), "big") - 2))
        in_scan = marker == _START_OF_SCAN
        if in_scan:
            scans += 1
            if scans > MAX_SCANS:
                raise TooLargeError(f"the JPEG goes over its pixels more than {MAX_SCANS} times", field="file")
            if sequential and segment[:1] == bytes([components]):
                # One scan with all components, as in most files: decoders read no further.
                return
        elif marker in _FRAMES and len(segment) > 5:
            sequential, components = marker in _SEQUENTIAL, segment[5]
    raise TooLargeError(f"the JPEG has more than {MAX_SEGMENTS} segments", field="file")


def _next_marker(file: BinaryIO, *, in_scan: bool) -> int | None:
    """The code of the next marker, or None. Leaves `file` behind it."""
    while piece := file.read(_PIECE_BYTES if in_scan else MAX_FILL_BYTES):
        if found := _MARKER.search(piece):
            file.seek(found.end() - len(piece), 1)
            return found[1][0]
        if not in_scan and len(piece) == MAX_FILL_BYTES:
            raise TooLargeError(f"the JPEG has more than {MAX_FILL_BYTES} bytes between two segments", field="file")
        if piece.endswith(b"\xff") and len(piece) > 1:
            file.seek(-1, 1)
    return None
