"""
Content types: detected from the bytes of a file, never from its name, with what a browser may do with them. No I/O.
"""

import codecs
import re
import struct
from collections.abc import Callable, Iterable
from typing import Final
from urllib.parse import quote

from msgspec import Struct

HEAD_BYTES: Final = 4096
"""The part of a file that is searched for its type. Drawing programs put long comments before the root element."""


class ContentType(Struct, frozen=True, kw_only=True):
    """
    A content type as objects are stored with it.

    `image` marks types that are decoded as images. `inline` marks types that a browser may show on our host. Every
    other type is a download, because markup that is opened there would run with our origin.
    """

    name: str
    extension: str
    image: bool = False
    inline: bool = False
    font: bool = False


JPEG = ContentType(name="image/jpeg", extension="jpg", image=True, inline=True)
PNG = ContentType(name="image/png", extension="png", image=True, inline=True)
GIF = ContentType(name="image/gif", extension="gif", image=True, inline=True)
WEBP = ContentType(name="image/webp", extension="webp", image=True, inline=True)
AVIF = ContentType(name="image/avif", extension="avif", image=True, inline=True)
WOFF2 = ContentType(name="font/woff2", extension="woff2", font=True)
WOFF = ContentType(name="font/woff", extension="woff", font=True)
TTF = ContentType(name="font/ttf", extension="ttf", font=True)
OTF = ContentType(name="font/otf", extension="otf", font=True)
TTC = ContentType(name="font/collection", extension="ttc", font=True)
SVG = ContentType(name="image/svg+xml", extension="svg")
HTML = ContentType(name="text/html", extension="html")
XML = ContentType(name="application/xml", extension="xml")
PDF = ContentType(name="application/pdf", extension="pdf")
CALENDAR = ContentType(name="text/calendar; charset=utf-8", extension="ics")
VCARD = ContentType(name="text/vcard; charset=utf-8", extension="vcf")
TEXT = ContentType(name="text/plain; charset=utf-8", extension="txt")
BINARY = ContentType(name="application/octet-stream", extension="bin")

ZIP = ContentType(name="application/zip", extension="zip")
_OPEN_XML: Final = "application/vnd.openxmlformats-officedocument."
DOCX = ContentType(name=f"{_OPEN_XML}wordprocessingml.document", extension="docx")
XLSX = ContentType(name=f"{_OPEN_XML}spreadsheetml.sheet", extension="xlsx")
PPTX = ContentType(name=f"{_OPEN_XML}presentationml.presentation", extension="pptx")
# Office opens no file with macros whose extension says that it has none.
DOCM = ContentType(name="application/vnd.ms-word.document.macroenabled.12", extension="docm")
XLSM = ContentType(name="application/vnd.ms-excel.sheet.macroenabled.12", extension="xlsm")
PPTM = ContentType(name="application/vnd.ms-powerpoint.presentation.macroenabled.12", extension="pptm")
XLSB = ContentType(name="application/vnd.ms-excel.sheet.binary.macroenabled.12", extension="xlsb")
ODT = ContentType(name="application/vnd.oasis.opendocument.text", extension="odt")
ODS = ContentType(name="application/vnd.oasis.opendocument.spreadsheet", extension="ods")
ODP = ContentType(name="application/vnd.oasis.opendocument.presentation", extension="odp")
EPUB = ContentType(name="application/epub+zip", extension="epub")
PKPASS = ContentType(name="application/vnd.apple.pkpass", extension="pkpass")
JAR = ContentType(name="application/java-archive", extension="jar")
APK = ContentType(name="application/vnd.android.package-archive", extension="apk")
ZIP_KINDS: Final = (ZIP, DOCX, XLSX, PPTX, DOCM, XLSM, PPTM, XLSB, ODT, ODS, ODP, EPUB, PKPASS, JAR, APK)
"""Types of ZIP archives; `storage.content.zip_types` tells them apart."""

OLE: Final = ContentType(name="application/x-ole-storage", extension="bin")
"""Any compound file; `storage.content.ole_types` tells the kinds apart."""
DOC = ContentType(name="application/msword", extension="doc")
XLS = ContentType(name="application/vnd.ms-excel", extension="xls")
PPT = ContentType(name="application/vnd.ms-powerpoint", extension="ppt")
MSG = ContentType(name="application/vnd.ms-outlook", extension="msg")
OLE_KINDS: Final = (DOC, XLS, PPT, MSG)

NAME_CHARS: Final = 128
EXTENSION_CHARS: Final = 16

_UNSAFE: Final = re.compile(r"[?%';]")
"""Characters that some clients misread in `filename`; `filename*` has them (RFC 6266, appendix D)."""

_SIGNATURES: tuple[tuple[re.Pattern[bytes], ContentType], ...] = (
    (re.compile(rb"\xff\xd8\xff"), JPEG),
    (re.compile(rb"\x89PNG\r\n\x1a\n"), PNG),
    (re.compile(rb"GIF8[79]a"), GIF),
    (re.compile(rb"RIFF....WEBP", re.DOTALL), WEBP),
    (re.compile(rb".{4}ftypavi[fs]", re.DOTALL), AVIF),
    (re.compile(rb"%PDF-"), PDF),
    (re.compile(rb"PK\x03\x04|PK\x05\x06"), ZIP),
    (re.compile(rb"\x1f\x8b\x08"), ContentType(name="application/gzip", extension="gz")),
    (re.compile(rb"7z\xbc\xaf\x27\x1c"), ContentType(name="application/x-7z-compressed", extension="7z")),
    (re.compile(rb"Rar!\x1a\x07"), ContentType(name="application/vnd.rar", extension="rar")),
    (re.compile(rb"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"), OLE),
    # ISO base media files, by their major brand (MP4 registration authority).
    (
        re.compile(rb".{4}ftyp(?:hei[cx]|hev[cx]|mif1|msf1)", re.DOTALL),
        ContentType(name="image/heic", extension="heic"),
    ),
    (re.compile(rb".{4}ftypqt  ", re.DOTALL), ContentType(name="video/quicktime", extension="mov")),
    (re.compile(rb".{4}ftypM4[AB]", re.DOTALL), ContentType(name="audio/mp4", extension="m4a")),
    (re.compile(rb".{4}ftyp3g[pr2]", re.DOTALL), ContentType(name="video/3gpp", extension="3gp")),
    (
        re.compile(rb".{4}ftyp(?:isom|iso[2-9]|mp4[12]|avc1|M4V|dash|MSNV|f4v)", re.DOTALL),
        ContentType(name="video/mp4", extension="mp4"),
    ),
    (re.compile(rb"\x1a\x45\xdf\xa3.{0,64}?webm", re.DOTALL), ContentType(name="video/webm", extension="webm")),
    (re.compile(rb"RIFF....WAVE", re.DOTALL), ContentType(name="audio/wav", extension="wav")),
    (re.compile(rb"ID3[\x02-\x04]"), ContentType(name="audio/mpeg", extension="mp3")),
    (re.compile(rb"OggS\x00"), ContentType(name="audio/ogg", extension="ogg")),
    (re.compile(rb"II\*\x00|MM\x00\*"), ContentType(name="image/tiff", extension="tif")),
    (re.compile(rb"\{\\rtf[01]"), ContentType(name="application/rtf", extension="rtf")),
)

# Apple writes "true" for what is TrueType (OpenType, "Table directory"). Such text is told apart by what follows.
_FONT_KINDS: Final = {b"OTTO": OTF, b"\x00\x01\x00\x00": TTF, b"true": TTF}
_PACKED_FONT_KINDS: Final = {b"wOFF": WOFF, b"wOF2": WOFF2}

_COLLECTION: Final = b"ttcf"
_COLLECTION_VERSIONS: Final = frozenset({0x00010000, 0x00020000})
_FLAVORS: Final = frozenset({*_FONT_KINDS, _COLLECTION})
_TABLES: Final = range(1, 256)
"""The number of tables of a font. OpenType needs some eight, and defines some sixty."""

_TABLE_TAG: Final = re.compile(rb"[\x20-\x7e]{4}")

_BEFORE_ROOT = re.compile(
    rb"(?:\s|<\?xml.*?\?>|<!--.*?-->|<!DOCTYPE\s+svg\b[^>\[]*(?:\[.*?\])?\s*>)*", re.I | re.DOTALL
)
_SVG = re.compile(rb"<svg[\s>/]", re.I)
_HTML = re.compile(rb"<(?:!doctype\s+html|html|head|body|script|iframe|h1|div|table|style|title|p|br|a|b)[\s>/]", re.I)
_TEXT_KINDS: Final = (
    (re.compile(rb"(?:\xef\xbb\xbf)?BEGIN:VCALENDAR\s", re.I), CALENDAR),
    (re.compile(rb"(?:\xef\xbb\xbf)?BEGIN:VCARD\s", re.I), VCARD),
)
_CONTROLS: Final = bytes({*range(0x20), 0x7F} - {*b"\t\n\v\f\r\x1b"})
_TEXT_PIECE_BYTES: Final = 64 * 1024

BY_EXTENSION: dict[str, ContentType] = {
    kind.extension: kind
    for kind in (
        *(SVG, HTML, XML, CALENDAR, VCARD, TEXT, BINARY, WOFF2, WOFF, TTF, OTF, TTC),
        *(*ZIP_KINDS, *OLE_KINDS),
        *(kind for _, kind in _SIGNATURES if kind is not OLE),
    )
}
"""Every type of an object, by the extension in its key."""


def sniff(head: bytes, pieces: Callable[[], Iterable[bytes]]) -> ContentType:
    """
    Detect the type of a file.

    `head` is its first `HEAD_BYTES`, or the whole of a shorter file. `pieces` reads the whole file. It is called only
    where the head does not decide, because a text file is text to its end.

    Returns:
        The type; `BINARY` for a file that has no signature and is not text. `ZIP` for every kind of ZIP archive,
        and `OLE` for every compound file.
    """
    if (kind := sniff_head(head)) is not None:
        return kind
    if not head or not _is_text(pieces()):
        return BINARY
    return next((kind for beginning, kind in _TEXT_KINDS if beginning.match(head)), TEXT)


def sniff_head(head: bytes) -> ContentType | None:
    """The type by a signature or markup in a file's first `HEAD_BYTES`. None for text and for unknown types."""
    head = head[:HEAD_BYTES]
    for signature, kind in _SIGNATURES:
        if signature.match(head):
            return kind
    return _font(head) or _markup(head)


def disposition(kind: ContentType, file_name: str) -> str:
    """
    The Content-Disposition for a file of this type (RFC 6266).

    Of an uploader's name the last path segment is kept, without control characters, quotes, slashes and backslashes:
    it cannot break out of the header. A name beyond `NAME_CHARS` keeps its extension. What a browser shows has no name.
    """
    if kind.inline:
        return "inline"
    name = _clean(file_name)
    if not name:
        return "attachment"
    ascii_name = _UNSAFE.sub("_", name.encode("ascii", "replace").decode())
    if ascii_name == name:
        return f'attachment; filename="{name}"'
    return f"attachment; filename=\"{ascii_name}\"; filename*=UTF-8''{quote(name, safe='')}"


def _clean(file_name: str) -> str:
    last = re.split(r"[/\\]", file_name)[-1]
    kept = "".join(char for char in last if char.isprintable() and char != '"').strip(" .")
    if len(kept) <= NAME_CHARS:
        return kept
    stem, dot, extension = kept.rpartition(".")
    if not stem or len(extension) > EXTENSION_CHARS:
        return kept[:NAME_CHARS]
    return stem[: NAME_CHARS - len(extension) - 1].rstrip(" .") + dot + extension


def _font(head: bytes) -> ContentType | None:
    # Four bytes are too few to identify a font: any file may begin with 00 01 00 00.
    signature = head[:4]
    try:
        if signature in _FONT_KINDS:
            # OpenType, "Table directory": the number of tables, three values for binary search, then the tables.
            (tables,) = struct.unpack_from(">H", head, 4)
            return _FONT_KINDS[signature] if tables in _TABLES and _TABLE_TAG.match(head, 12) else None
        if signature in _PACKED_FONT_KINDS:
            # WOFF 1 and 2, "WOFFHeader": the flavor of the packed font, the length of the file, the number of tables.
            flavor, _, tables = struct.unpack_from(">4sIH", head, 4)
            return _PACKED_FONT_KINDS[signature] if tables in _TABLES and flavor in _FLAVORS else None
        if signature == _COLLECTION:
            version, fonts = struct.unpack_from(">II", head, 4)
            return TTC if version in _COLLECTION_VERSIONS and fonts in _TABLES else None
    except struct.error:
        # The file ends within the header.
        return None
    return None


def _markup(head: bytes) -> ContentType | None:
    text = head.removeprefix(b"\xef\xbb\xbf")
    before = _BEFORE_ROOT.match(text)
    root = text[before.end() :] if before else text
    if _SVG.match(root):
        return SVG
    if _HTML.match(root):
        return HTML
    return XML if text.lstrip().startswith((b"<?xml", b"<!DOCTYPE", b"<!--")) else None


def _is_text(pieces: Iterable[bytes]) -> bool:
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        for piece in pieces:
            # In small parts: the decoder copies its input, and no other thread runs meanwhile.
            for at in range(0, len(piece), _TEXT_PIECE_BYTES):
                part = piece[at : at + _TEXT_PIECE_BYTES]
                decoder.decode(part)
                if len(part.translate(None, _CONTROLS)) != len(part):
                    return False
        decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        return False
    return True
