"""
Data URIs in HTML: finds Base64 images and fonts, and replaces them by URLs. Pure: bytes in, positions and bytes out.

The page is not parsed and serialized, because parsers damage e-mail and template markup. It is scanned once for
`data:`, each find is decoded from a copy, and the URL replaces it between the same delimiters: every other byte stays.
The scan works on bytes, so that nothing depends on the page's encoding.

Three kinds stay unchanged and are not reported:
- data URIs in a `<script>`, where a URL may be data;
- data URIs without Base64, such as `data:image/svg+xml;utf8,<svg…>`, with their content: a browser lets a drawing load
  nothing;
- data URIs that are neither an image nor a font.

The work runs in a thread, but no other thread runs during one search or one Base64 call. So megabytes are processed in
pieces, and the event loop runs between two of them.
"""

import base64
import binascii
import html
import re
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from typing import Final

from msgspec import Struct

from shared.errors import TooLargeError
from storage.content.content_types import HEAD_BYTES, SVG, ContentType, sniff_head
from storage.widgets.html_scan import PIECE_BYTES, HtmlScan

MAX_HTML_BYTES: Final = 20 * 1024 * 1024
MAX_IMAGES: Final = 200
"""Default limits of one page. Fonts count as images."""

MAX_FINDS: Final = 20_000
"""The limit on data URIs and tags that the scan looks at: each costs microseconds, and 20 MB hold millions."""

_SPACE: Final = b" \t\r\n\f"
_LOOK_BEHIND_BYTES: Final = 96
_ENTITY_BYTES: Final = 10

_BASE64_TYPE: Final = re.compile(r"([\w.+-]+/[\w.+-]+)?(?:;[\w.+-]+=[^;,]*)*;base64")
_OURS: Final = ("image/", "font/", "application/font-", "application/x-font-")
"""Declared types that are reported when the bytes are of another type."""

_PLAIN: Final = rb"A-Za-z0-9+/=_\-"
_ESCAPE: Final = (
    # Entities, also of a page within a page (`srcdoc`), but not those of quotes, angle brackets, parentheses and the
    # comma: these end the text.
    # HTML takes a number without its semicolon, too.
    rb"&(?:amp;)?#(?!0*(?:34|39|40|41|44|60|62)(?![0-9])|[xX]0*(?:2[2789cC]|3[cCeE])(?![0-9A-Fa-f]))"
    rb"(?:[xX][0-9A-Fa-f]{1,7}|[0-9]{1,7});?"
    rb"|&(?:amp;)?(?:plus|sol|equals|lowbar|Tab|NewLine);"
    # The ways of JSON to write a slash, and of CSS to write these three.
    rb"|\\[/+=]"
)
_PERCENT: Final = rb"%[0-9A-Fa-f]{2}"
_ESCAPE_BYTES: Final = 16
# For text that was matched by the above.
_ESCAPES: Final = re.compile(rb"(&(?:amp;)?(?:#[xX][0-9A-Fa-f]{1,7};?|#[0-9]{1,7};?|[A-Za-z]+;)|\\[/+=])")
_PERCENTS: Final = re.compile(rb"(%..)")
# Atomic and possessive: no backtracking positions are kept, so megabytes of text cost no memory.
_WORD: Final = re.compile(rb"(?>[" + _PLAIN + rb"]+|" + _ESCAPE + rb"|" + _PERCENT + rb")*+")
_WRAPPED: Final = re.compile(rb"(?>[" + _PLAIN + rb" \t\r\n\f]+|" + _ESCAPE + rb"|" + _PERCENT + rb")*+")

_ENTITY: Final = re.compile(rb"&(?:(?:quot|#0*34|#x0*22)|(apos|#0*39|#x0*27));\Z", re.IGNORECASE)
# Within a text of JSON or JavaScript a quote has backslashes before it.
_CLOSERS: Final = {b'"': re.compile(rb"\\*\""), b"'": re.compile(rb"\\*'"), b"(": re.compile(rb"\)")}
_FRAGMENT: Final = re.compile(rb"#[\w.:-]{1,128}")
"""The part of a drawing that is shown. It stays behind the URL."""
_CLOSING_DOUBLE: Final = re.compile(rb"&(?:quot|#0*34|#x0*22);", re.IGNORECASE)
_CLOSING_SINGLE: Final = re.compile(rb"&(?:apos|#0*39|#x0*27);", re.IGNORECASE)
_END_OF_WORD: Final = re.compile(
    rb"[\s<>\"'),;\\{}\[\]|`]|\Z|&(?:amp;)*(?:quot|apos|lt|gt|comma|rpar|#0*(?:34|39|41|44|60|62)|#x0*(?:2[279c]|3[ce]));",
    re.IGNORECASE,
)
_END_OF_DRAWING: Final = re.compile(rb"[\s<>\"']")

_QUOTE: Final = re.compile(rb"['()]")

_STANDARD_ALPHABET: Final = bytes.maketrans(b"-_", b"+/")


class DataUri(Struct, frozen=True, kw_only=True):
    """
    One Base64 image or font in a page: `page[start:end]` is the URI, `content` its decoded bytes, `type` their type.

    One that cannot be read has an `error` instead, and stays unchanged.
    """

    start: int
    end: int
    content: bytes = b""
    type: ContentType | None = None
    error: str | None = None


def find_images(page: bytes, *, max_bytes: int = MAX_HTML_BYTES, max_images: int = MAX_IMAGES) -> list[DataUri]:
    """
    Find every Base64 image and font in a page, in order.

    The bytes decide the type. A find that is declared as an image or font and is none has an `error`.

    Raises:
        TooLargeError: The page, or the number of images in it, exceeds the limit. Broken ones count.
    """
    if len(page) > max_bytes:
        raise TooLargeError(f"the page has {len(page)} bytes; the limit is {max_bytes}", field="html")
    found: list[DataUri] = []
    scan = HtmlScan(page)
    finds = 0
    while (find := scan.next()) is not None:
        start, match = find
        finds += 1
        if finds > MAX_FINDS:
            message = (
                f"the page has more than {MAX_FINDS} data URIs and tags of scripts, styles, titles and text fields"
            )
            raise TooLargeError(message, field="html")
        if match["text"]:
            scan.ignore_scripts(start, match["text"])
        elif match["script"]:
            scan.skip_script(start)
        elif match["drawing"]:
            scan.at = _end_of_drawing(page, start)
        elif (uri := _read(page, start, scan.at, match["type"])) is not None:
            scan.at = uri.end
            found.append(uri)
            if len(found) > max_images:
                raise TooLargeError(f"the page has more than {max_images} embedded images", field="html")
    return found


def splice(page: bytes, urls: Iterable[tuple[DataUri, str]]) -> bytes:
    """The page with data URIs replaced by URLs. `urls` are in the order of the page."""
    parts: list[bytes] = []
    at = 0
    for uri, url in urls:
        parts += (page[at : uri.start], url.encode())
        at = uri.end
    parts.append(page[at:])
    return b"".join(parts)


def _end_of_drawing(page: bytes, start: int) -> int:
    wrapped, closer = _context(page, start)
    pattern = closer if wrapped else _END_OF_DRAWING
    at = start
    while at < len(page):
        if found := pattern.search(page, at, at + PIECE_BYTES):
            return found.start()
        at += PIECE_BYTES - _ENTITY_BYTES
    return len(page)


def _read(page: bytes, start: int, payload: int, base64_type: bytes) -> DataUri | None:
    declared = "".join(html.unescape(base64_type.decode("ascii", "replace")).replace("\\", "").split())
    parsed = _BASE64_TYPE.fullmatch(declared)
    if parsed is None:
        return None
    ours = (parsed[1] or "").startswith(_OURS)
    wrapped, closer = _context(page, start)
    if (closer if wrapped else _QUOTE).search(page, start, payload):
        # The value ends before the comma: this is no data URI.
        return None
    stop = _end_of_text(page, payload, _WRAPPED if wrapped else _WORD)
    end = _end_without_space(page, payload, stop)
    if fragment := _FRAGMENT.match(page, stop):
        stop = fragment.end()
    if not closer.match(page, stop):
        problem = "the Base64 text breaks off at an unexpected character"
    elif end == payload:
        problem = "there is nothing after the comma"
    elif (content := _decoded(page, payload, end)) is None:
        problem = "the text is not Base64"
    else:
        kind = sniff_head(content[:HEAD_BYTES])
        if kind is not None and (kind.image or kind.font or (kind is SVG and ours)):
            return DataUri(start=start, end=end, content=content, type=kind)
        problem = "the bytes are neither an image nor a font"
    return DataUri(start=start, end=end, error=problem) if ours else None


def _end_of_text(page: bytes, at: int, text: re.Pattern[bytes]) -> int:
    # An escape that is split by the end of a piece is whole in the next.
    while (found := text.match(page, at, at + PIECE_BYTES)) and found.end() > at:
        end = found.end()
        split = page.rfind(b"&", max(at + 1, end - _ESCAPE_BYTES), end) if end == at + PIECE_BYTES else -1
        at = split if split > 0 else end
    return at


def _end_without_space(page: bytes, start: int, end: int) -> int:
    while end > start:
        piece = page[max(start, end - PIECE_BYTES) : end]
        kept = len(piece.rstrip(_SPACE))
        end -= len(piece) - kept
        if kept:
            break
    return end


def _context(page: bytes, start: int) -> tuple[bool, re.Pattern[bytes]]:
    """
    The context of the URI that begins at `start`: whether it may contain space, and the pattern that has to follow it.

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


def _decoded(page: bytes, start: int, end: int) -> bytes | None:
    """Decode Base64 as it is in pages: with entities, percent signs, line breaks, the URL alphabet, missing padding."""
    parts: list[bytes] = []
    rest = b""
    padded = False
    try:
        for piece in _without_percents(_without_escapes(page, start, end)):
            text, padding, behind = (rest + piece.translate(_STANDARD_ALPHABET, _SPACE)).partition(b"=")
            if behind.strip(b"=") or (padded and text != rest):
                return None
            padded = padded or bool(padding)
            whole = len(text) // 4 * 4
            parts.append(base64.b64decode(text[:whole], validate=True))
            rest = text[whole:]
        parts.append(base64.b64decode(rest + b"=" * (-len(rest) % 4), validate=True))
    except binascii.Error:
        return None
    return b"".join(parts)


def _without_escapes(page: bytes, start: int, end: int) -> Iterator[bytes]:
    at = start
    while at < end:
        stop = min(at + PIECE_BYTES, end)
        if stop < end:
            # No escape is split: one that begins this near to the end belongs to the next piece.
            marks = (page.rfind(mark, stop - _ESCAPE_BYTES, stop) for mark in b"&\\")
            stop = min((mark for mark in marks if mark >= 0), default=stop)
        piece = page[at:stop]
        yield _replaced(piece, _ESCAPES, _unescaped) if b"&" in piece or b"\\" in piece else piece
        at = stop


def _without_percents(pieces: Iterable[bytes]) -> Iterator[bytes]:
    rest = b""
    for next_piece in pieces:
        piece = rest + next_piece
        cut = piece.rfind(b"%", max(0, len(piece) - 2))
        piece, rest = (piece, b"") if cut < 0 else (piece[:cut], piece[cut:])
        yield _replaced(piece, _PERCENTS, _unquoted) if b"%" in piece else piece
    yield rest


def _replaced(text: bytes, escapes: re.Pattern[bytes], meaning: Callable[[bytes], bytes]) -> bytes:
    split = escapes.split(text)
    split[1::2] = map(meaning, split[1::2])
    return b"".join(split)


@lru_cache(maxsize=4096)
def _unescaped(escape: bytes) -> bytes:
    if escape.startswith(b"\\"):
        return escape[1:]
    return html.unescape(escape.replace(b"&amp;", b"&").decode("ascii")).encode("ascii", "replace")


@lru_cache(maxsize=4096)
def _unquoted(escape: bytes) -> bytes:
    return bytes([int(escape[1:], 16)])
