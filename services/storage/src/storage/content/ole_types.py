"""
Types of files that are compound files (OLE2): documents of Office before 2007, and messages of Outlook. Read from the
names in the root of the file's directory ([MS-CFB], 2.2 to 2.6), of which at most `SECTORS` sectors are looked at.
"""

import struct
from collections.abc import Iterator
from typing import BinaryIO, Final

from msgspec import Struct

from storage.content.content_types import BINARY, DOC, MSG, PPT, XLS, ContentType

SECTORS: Final = 64

_HEADER_BYTES: Final = 512
_SECTOR_SHIFTS: Final = {9, 12}
_TABLE_SECTORS: Final = 109
"""Sectors of the allocation table that the header names: they cover the first 7 MB of a file, 450 MB in version 4."""
_ENTRY: Final = struct.Struct("<64sH2xIII48x")
"""Name in UTF-16, bytes of it with the zero at its end, entries before and after it in its storage, its first child."""
_KINDS: Final = {
    "worddocument": DOC,
    "workbook": XLS,
    "book": XLS,
    "powerpoint document": PPT,
    "__properties_version1.0": MSG,
}
"""The stream of each kind ([MS-DOC] 2.1.1, [MS-XLS] 2.1.2, [MS-PPT] 2.1.2, [MS-OXMSG] 2.2); names have no case."""


class _DirectoryEntry(Struct, frozen=True):
    name: str
    before: int
    after: int
    child: int


def ole_type(file: BinaryIO) -> ContentType:
    """The type of a compound file; `BINARY` for one of no known kind, and for a damaged one."""
    entries = list(_entries(file))
    # Documents that are embedded lie in storages of their own, below the root.
    waiting, seen = [entries[0].child] if entries else [], set[int]()
    while waiting:
        number = waiting.pop()
        if number in seen or number >= len(entries):
            continue
        seen.add(number)
        entry = entries[number]
        if (kind := _KINDS.get(entry.name.lower())) is not None:
            return kind
        waiting += [entry.before, entry.after]
    return BINARY


def _entries(file: BinaryIO) -> Iterator[_DirectoryEntry]:
    header = file.read(_HEADER_BYTES)
    if len(header) < _HEADER_BYTES:
        return
    (shift,) = struct.unpack_from("<H", header, 30)
    (sector,) = struct.unpack_from("<I", header, 48)
    table = struct.unpack_from(f"<{_TABLE_SECTORS}I", header, 76)
    if shift not in _SECTOR_SHIFTS:
        return
    size = 1 << shift
    for _ in range(SECTORS):
        content = _read_sector(file, sector, size)
        row, column = divmod(sector, size // 4)
        if len(content) < size:
            return
        for name, name_bytes, before, after, child in _ENTRY.iter_unpack(content):
            yield _DirectoryEntry(name[: max(name_bytes - 2, 0)].decode("utf-16-le", "replace"), before, after, child)
        if row >= _TABLE_SECTORS:
            return
        numbers = _read_sector(file, table[row], size)
        if len(numbers) < size:
            return
        (sector,) = struct.unpack_from("<I", numbers, 4 * column)


def _read_sector(file: BinaryIO, number: int, size: int) -> bytes:
    """A sector; fewer bytes where the file ends before it, as it does for the numbers that mark an end."""
    file.seek((number + 1) * size)
    return file.read(size)
