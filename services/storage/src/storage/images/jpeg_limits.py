"""
What a JPEG asks of a decoder beyond its pixels, counted before one sees it. Pure.

Its pixels may come in several passes ("scans"), and each is a pass over all of them, however few bytes it has: 220 KB
with 200 scans kept a decoder busy for 7.5 s, and 10 MB have room for 150,000. Pillow reads the segments before them one
by one, and the fill bytes between those too: 10 MB of either took it ten seconds. Neither the number of pixels nor the
size of the file bounds that.
"""

import re
from typing import BinaryIO, Final

from shared.errors import TooLargeError

MAX_SCANS: Final = 64
"""Encoders write ten; each costs a millisecond a megapixel."""

MAX_SEGMENTS: Final = 2000
"""Cameras write a dozen; long metadata comes in segments of 64 KB."""

MAX_FILL_BYTES: Final = 4096
"""Between two segments. The specification allows fill bytes and tells no number; hardly anybody writes one."""

_END_OF_IMAGE: Final = 0xD9
_START_OF_SCAN: Final = 0xDA
_SEQUENTIAL: Final = frozenset({0xC0, 0xC1})
_FRAMES: Final = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
"""The markers that begin a frame; the three others in that range are tables (ITU-T T.81, table B.1)."""

_MARKER: Final = re.compile(rb"\xff([^\x00\x01\xd0-\xd8\xff])")
"""A marker with a segment behind it. Among the pixels of a scan, FF is followed by 00 or by a restart marker."""

_PIECE_BYTES: Final = 64 * 1024


def check_jpeg(file: BinaryIO) -> None:
    """
    Read a JPEG's segments from where `file` stands, which is at its beginning.

    What is damaged passes: the decoder tells that better.

    Raises:
        TooLargeError: One of the limits is passed.
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
                # One scan that brings everything, as in most files: decoders read no further.
                return
        elif marker in _FRAMES and len(segment) > 5:
            sequential, components = marker in _SEQUENTIAL, segment[5]
    raise TooLargeError(f"the JPEG has more than {MAX_SEGMENTS} segments", field="file")


def _next_marker(file: BinaryIO, *, in_scan: bool) -> int | None:
    """The code of the next marker; `file` stands behind it then."""
    while piece := file.read(_PIECE_BYTES if in_scan else MAX_FILL_BYTES):
        if found := _MARKER.search(piece):
            file.seek(found.end() - len(piece), 1)
            return found[1][0]
        if not in_scan and len(piece) == MAX_FILL_BYTES:
            raise TooLargeError(f"the JPEG has more than {MAX_FILL_BYTES} bytes between two segments", field="file")
        if piece.endswith(b"\xff") and len(piece) > 1:
            file.seek(-1, 1)
    return None
