"""
Types of files that are ZIP archives: documents of Office and OpenDocument, books, passes, packages. Read from the names
in the archive's directory, which lies at its end. Nothing is unpacked.
"""

import struct
from collections.abc import Iterator
from typing import BinaryIO, Final

from storage.content.content_types import (
    APK,
    DOCM,
    DOCX,
    EPUB,
    JAR,
    ODP,
    ODS,
    ODT,
    PKPASS,
    PPTM,
    PPTX,
    XLSB,
    XLSM,
    XLSX,
    ZIP,
    ContentType,
)

DIRECTORY_BYTES: Final = 256 << 10
"""The part of the directory that is read: some 3,000 names."""

_END_BYTES: Final = 22
_COMMENT_BYTES: Final = 0xFFFF
_END: Final = b"PK\x05\x06"
_ENTRY: Final = b"PK\x01\x02"
_ENTRY_BYTES: Final = 46

_OFFICE: Final = (("word/", DOCX, DOCM), ("xl/", XLSX, XLSM), ("ppt/", PPTX, PPTM))
"""Office Open XML: the folder of a document's parts, and its type without and with macros."""

_MIMETYPES: Final = {kind.name.encode(): kind for kind in (ODT, ODS, ODP, EPUB)}
"""OpenDocument and EPUB: the first member is `mimetype`, stored as it is, 38 bytes from the beginning."""
_MIMETYPE_AT: Final = 30

_PASS: Final = {"pass.json", "manifest.json", "signature"}


def zip_type(file: BinaryIO) -> ContentType:
    """The type of a ZIP archive; `ZIP` for one of no known kind, and for a damaged one."""
    head = file.read(128)
    if head[_MIMETYPE_AT : _MIMETYPE_AT + 8] == b"mimetype":
        stored = head[_MIMETYPE_AT + 8 :]
        for name, kind in _MIMETYPES.items():
            if stored.startswith(name) and not stored[len(name) :].startswith((b"-", b".")):
                return kind
    names = set(_names(file))
    if "[Content_Types].xml" in names:
        for folder, plain, with_macros in _OFFICE:
            if any(name.startswith(folder) for name in names):
                if "xl/workbook.bin" in names:
                    return XLSB
                return with_macros if f"{folder}vbaProject.bin" in names else plain
    if names >= _PASS:
        return PKPASS
    if "AndroidManifest.xml" in names:
        return APK
    return JAR if "META-INF/MANIFEST.MF" in names else ZIP


def _names(file: BinaryIO) -> Iterator[str]:
    """The names in the directory (APPNOTE.TXT, 4.3.12 and 4.3.16)."""
    size = file.seek(0, 2)
    file.seek(max(0, size - _END_BYTES - _COMMENT_BYTES))
    tail = file.read()
    at = tail.rfind(_END)
    if at < 0 or len(tail) - at < _END_BYTES:
        return
    directory_bytes, directory_at = struct.unpack_from("<II", tail, at + 12)
    if directory_at > size:
        return
    file.seek(directory_at)
    directory = file.read(min(directory_bytes, DIRECTORY_BYTES))
    at = 0
    while directory.startswith(_ENTRY, at) and at + _ENTRY_BYTES <= len(directory):
        name_bytes, extra_bytes, comment_bytes = struct.unpack_from("<HHH", directory, at + 28)
        at += _ENTRY_BYTES
        yield directory[at : at + name_bytes].decode("utf-8", "replace")
        at += name_bytes + extra_bytes + comment_bytes
