"""
What a file is, told from its bytes, and how a browser may treat it. Never looks at a file's name for that. No I/O.
"""

import re
from urllib.parse import quote

from msgspec import Struct

HEAD_BYTES = 4096
"""How far into a file its root element is looked for; drawing programs put long comments before it."""


class ContentType(Struct, frozen=True, kw_only=True):
    """
    A type as it is stored.

    `image` marks what we open as a picture. `inline` marks what a browser may show on our host; everything else is
    offered as a download, because markup that is opened there would run as ours (reference: storage.md, 8.8 and 8.9).
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
SVG = ContentType(name="image/svg+xml", extension="svg")
HTML = ContentType(name="text/html", extension="html")
XML = ContentType(name="application/xml", extension="xml")
PDF = ContentType(name="application/pdf", extension="pdf")
TEXT = ContentType(name="text/plain; charset=utf-8", extension="txt")
BINARY = ContentType(name="application/octet-stream", extension="bin")

_SIGNATURES: tuple[tuple[re.Pattern[bytes], ContentType], ...] = (
    (re.compile(rb"\xff\xd8\xff"), JPEG),
    (re.compile(rb"\x89PNG\r\n\x1a\n"), PNG),
    (re.compile(rb"GIF8[79]a"), GIF),
    (re.compile(rb"RIFF....WEBP", re.DOTALL), WEBP),
    (re.compile(rb"%PDF-"), PDF),
    (re.compile(rb"wOF2"), ContentType(name="font/woff2", extension="woff2", font=True)),
    (re.compile(rb"wOFF"), ContentType(name="font/woff", extension="woff", font=True)),
    (re.compile(rb"OTTO"), ContentType(name="font/otf", extension="otf", font=True)),
    (re.compile(rb"ttcf"), ContentType(name="font/collection", extension="ttc", font=True)),
    (re.compile(rb"\x00\x01\x00\x00"), ContentType(name="font/ttf", extension="ttf", font=True)),
    (re.compile(rb"PK\x03\x04|PK\x05\x06"), ContentType(name="application/zip", extension="zip")),
    (re.compile(rb"\x1f\x8b\x08"), ContentType(name="application/gzip", extension="gz")),
)

_BEFORE_ROOT = re.compile(
    rb"(?:\s|<\?xml.*?\?>|<!--.*?-->|<!DOCTYPE\s+svg\b[^>\[]*(?:\[.*?\])?\s*>)*", re.I | re.DOTALL
)
_SVG = re.compile(rb"<svg[\s>/]", re.I)
_HTML = re.compile(rb"<(?:!doctype\s+html|html|head|body|script|iframe|h1|div|table|style|title|p|br|a|b)[\s>/]", re.I)
_CONTROL = re.compile(rb"[\x00-\x08\x0e-\x1a\x1c-\x1f\x7f]")

BY_EXTENSION: dict[str, ContentType] = {
    kind.extension: kind for kind in (SVG, HTML, XML, TEXT, BINARY, *(kind for _, kind in _SIGNATURES))
}
"""Every type that `sniff` can tell, by the extension that it gives to a key."""


def sniff(content: bytes) -> ContentType:
    """The type of a whole file; `BINARY` for what has no signature and is not text."""
    for signature, kind in _SIGNATURES:
        if signature.match(content):
            return kind
    head = content[:HEAD_BYTES]
    text = head.removeprefix(b"\xef\xbb\xbf")
    match = _BEFORE_ROOT.match(text)
    root = text[match.end() :] if match else text
    if _SVG.match(root):
        return SVG
    if _HTML.match(root):
        return HTML
    if text.lstrip().startswith((b"<?xml", b"<!DOCTYPE", b"<!--")):
        return XML
    return TEXT if _is_text(content) else BINARY


def disposition(kind: ContentType, file_name: str) -> str:
    """
    The Content-Disposition for a file of this type (RFC 6266).

    A name that arrives from outside is cut to its last part and cannot leave the header: control characters, quotes,
    slashes and backslashes are dropped.
    """
    word = "inline" if kind.inline else "attachment"
    name = _clean(file_name)
    if not name:
        return word
    ascii_name = name.encode("ascii", "replace").decode().replace("?", "_")
    if ascii_name == name:
        return f'{word}; filename="{name}"'
    return f"{word}; filename=\"{ascii_name}\"; filename*=UTF-8''{quote(name, safe='')}"


def _clean(file_name: str) -> str:
    last = re.split(r"[/\\]", file_name)[-1]
    kept = "".join(char for char in last if char.isprintable() and char not in "\"';%")
    return kept.strip(" .")[:128]


def _is_text(content: bytes) -> bool:
    try:
        content.decode()
    except UnicodeDecodeError:
        return False
    return bool(content) and not _CONTROL.search(content)
