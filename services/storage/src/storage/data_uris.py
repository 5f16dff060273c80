"""
HTML with Base64 images inside -> the same HTML with URLs in their place. Pure: bytes in, positions and bytes out.

The text is never parsed and written anew, because parsers damage e-mail and template markup (reference: storage.md, 7).
It is scanned once for `data:`, each find is decoded from a copy, and a URL is set between the same delimiters, so every
other byte stays. Bytes are used, and not characters, so that nothing depends on the page's encoding.
"""

import base64
import binascii
import html
import re
from collections.abc import Iterable, Iterator
from typing import Final
from urllib.parse import unquote_to_bytes

from msgspec import Struct

from shared.errors import TooLargeError
from storage.content_types import SVG, sniff

MAX_HTML_BYTES: Final = 20 * 1024 * 1024
MAX_IMAGES: Final = 200
"""Limits of one page (reference: storage.md, 7)."""

_SPACE = b" \t\r\n\f"
_LOOK_BEHIND_BYTES = 96
_ENTITY_BYTES = 10

_HEADER = re.compile(rb"(?<![A-Za-z0-9+.-])data:([^,:<>\"'()]{0,200}base64\s*),", re.IGNORECASE)
_BASE64_TYPE = re.compile(r"([\w.+-]+/[\w.+-]+)?(?:;[\w.+-]+=[^;,]*)*;base64")

_ESCAPES = (
    rb"%[0-9A-Fa-f]{2}"
    # Entities, but not those of quotes, angle brackets, parentheses and the comma: these end the text.
    rb"|&#(?!0*(?:34|39|40|41|44|60|62);|[xX]0*(?:2[2789cC]|3[cCeE]);)[xX]?[0-9A-Fa-f]{1,7};"
    rb"|&(?:plus|sol|equals|lowbar|Tab|NewLine);"
)
# Atomic and possessive: no way back is kept, so that megabytes of text cost no memory.
_WORD = re.compile(rb"(?>[A-Za-z0-9+/=_-]+|" + _ESCAPES + rb")*+")
_WRAPPED = re.compile(rb"(?>[A-Za-z0-9+/=_ \t\r\n\f-]+|" + _ESCAPES + rb")*+")

_ENTITY = re.compile(rb"&(?:(?:quot|#0*34|#x0*22)|(apos|#0*39|#x0*27));\Z", re.IGNORECASE)
_CLOSERS = {b'"': re.compile(rb"\""), b"'": re.compile(rb"'"), b"(": re.compile(rb"\)")}
_CLOSING_DOUBLE = re.compile(rb"&(?:quot|#0*34|#x0*22);", re.IGNORECASE)
_CLOSING_SINGLE = re.compile(rb"&(?:apos|#0*39|#x0*27);", re.IGNORECASE)
_END_OF_WORD = re.compile(rb"[\s<>\"'),;&\\]|\Z")

_SCRIPT = re.compile(rb"<script(?=[\s>/])", re.IGNORECASE)
_SCRIPT_OR_COMMENT = re.compile(rb"<!--|" + _SCRIPT.pattern, re.IGNORECASE)
_SCRIPT_END = re.compile(rb"</script", re.IGNORECASE)
_STANDARD_ALPHABET = bytes.maketrans(b"-_", b"+/")


class DataUri(Struct, frozen=True, kw_only=True):
    """
    One Base64 image in a page: `page[start:end]` is the URI, `content` what it says.

    `error` is set in place of `content` where it cannot be read; such a one is left as it is.
    """

    start: int
    end: int
    content: bytes = b""
    error: str | None = None


def find_images(page: bytes) -> list[DataUri]:
    """
    Every Base64 image in a page, in order. What stands in a `<script>` is left alone: a URL there may be data.

    Images are told by their bytes; a declared `image/…` whose bytes are none is given with an `error`.

    Raises:
        TooLargeError: The page or the number of its images is over the limit.
    """
    if len(page) > MAX_HTML_BYTES:
        raise TooLargeError(f"the page has {len(page)} bytes; the limit is {MAX_HTML_BYTES}", field="html")
    found: list[DataUri] = []
    for start, end in _outside_scripts(page):
        for uri in _base64_images(page, start, end):
            found.append(uri)
            if len(found) > MAX_IMAGES:
                raise TooLargeError(f"the page has more than {MAX_IMAGES} embedded images", field="html")
    return found


def splice(page: bytes, urls: Iterable[tuple[DataUri, str]]) -> bytes:
    """The page with each given data URI replaced by its URL. `urls` come in the order of the page."""
    parts: list[bytes] = []
    at = 0
    for uri, url in urls:
        parts += (page[at : uri.start], url.encode("ascii"))
        at = uri.end
    parts.append(page[at:])
    return b"".join(parts)


def _outside_scripts(page: bytes) -> Iterator[tuple[int, int]]:
    # Comments count as outside, because Outlook shows some of them; a script tag within one hides nothing behind it.
    outside = at = 0
    opening = _SCRIPT_OR_COMMENT
    while opened := opening.search(page, at):
        if opened[0] == b"<!--":
            at = page.find(b"-->", opened.end())
            if at < 0:
                at, opening = opened.end(), _SCRIPT
            continue
        yield outside, opened.start()
        closing = _SCRIPT_END.search(page, opened.end())
        if closing is None:
            return
        outside = at = closing.start()
    yield outside, len(page)


def _base64_images(page: bytes, start: int, end: int) -> Iterator[DataUri]:
    # A regular expression that ignores case reads every byte by itself, and lets no other thread run meanwhile.
    lower = page[start:end].lower()
    at = 0
    while (at := lower.find(b"data:", at)) >= 0:
        header = _HEADER.match(page, start + at, end)
        at += len(b"data:")
        declared = "".join(html.unescape(header[1].decode("ascii", "replace")).lower().split()) if header else ""
        base64_type = _BASE64_TYPE.fullmatch(declared)
        if header is None or base64_type is None:
            continue
        uri = _read(page, header.start(), header.end(), (base64_type[1] or "").startswith("image/"))
        at = (uri.end if uri is not None else header.end()) - start
        if uri is not None:
            yield uri


def _read(page: bytes, start: int, payload: int, declared_image: bool) -> DataUri | None:
    wrapped, closer = _context(page, start)
    run = (_WRAPPED if wrapped else _WORD).match(page, payload)
    stop = run.end() if run else payload
    text = page[payload:stop].rstrip(_SPACE)
    end = payload + len(text)
    content = _decoded(text)
    if not closer.match(page, stop):
        problem = "the Base64 text breaks off at an unexpected character"
    elif not text:
        problem = "there is nothing after the comma"
    elif content is None:
        problem = "the text is not Base64"
    else:
        kind = sniff(content)
        if kind.image or (kind is SVG and declared_image):
            return DataUri(start=start, end=end, content=content)
        problem = "the bytes are no image"
    return DataUri(start=start, end=end, error=problem) if declared_image else None


def _context(page: bytes, start: int) -> tuple[bool, re.Pattern[bytes]]:
    """
    Whether space may stand within the URI that begins at `start`, and what has to follow it.

    A quoted value or `url(…)` may be broken into lines. In `srcset`, in an unquoted value and in bare text a space ends
    the URI.
    """
    before = page[max(0, start - _LOOK_BEHIND_BYTES) : start].rstrip(_SPACE)
    closer = _CLOSERS.get(before[-1:])
    if closer is None:
        entity = _ENTITY.search(before[-_ENTITY_BYTES:]) if before.endswith(b";") else None
        if entity is None:
            return False, _END_OF_WORD
        before = before.removesuffix(entity[0])
        closer = _CLOSING_SINGLE if entity[1] else _CLOSING_DOUBLE
    else:
        before = before[:-1]
    before = before.rstrip(_SPACE)
    if before.endswith(b"=") and before[:-1].rstrip(_SPACE).lower().endswith(b"srcset"):
        return False, _END_OF_WORD
    return True, closer


def _decoded(text: bytes) -> bytes | None:
    """Base64 as pages hold it: entities, percent signs, line breaks, the URL alphabet, missing padding."""
    if b"&" in text:
        text = html.unescape(text.decode("ascii")).encode("ascii", "replace")
    if b"%" in text:
        text = unquote_to_bytes(text)
    text = text.translate(_STANDARD_ALPHABET, _SPACE).rstrip(b"=")
    try:
        return base64.b64decode(text + b"=" * (-len(text) % 4), validate=True)
    except binascii.Error:
        return None
