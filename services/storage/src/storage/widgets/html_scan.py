"""
One pass over a page, for the places where a data URI or a script begins. Pure, and in pieces of 64 KiB: no other thread
of the process runs during one search.

Not every `<script` begins a script: in a title, a text field, a style sheet, a comment or the value of an attribute it
is text, and hides nothing.
"""

import re
from typing import Final

PIECE_BYTES: Final = 64 * 1024
_FIND_BYTES: Final = 2048
"""Longer than any match of `_FIND`."""

# For lower-case text. The alternatives begin with different letters, so that the search is quick. Neither reads far
# into the next match, so that many matches are no more work than few.
_FIND: Final = re.compile(
    rb"<(?P<script>script)(?=[\s>/])"
    rb"|<(?P<text>title|textarea|style|xmp)(?=[\s>/])"
    rb"|data(?<![a-z0-9+.-]data)(?::|&#0{0,4}58;|&#x0{0,4}3a;|&colon;)"
    rb"(?:(?P<type>(?:[^,<>\"](?!ata[:&])){0,1000}?base64)\s{0,8}(?:\\?,|&#0{0,4}44;|&#x0{0,4}2c;|&comma;)"
    rb"|(?P<drawing>image/svg\+xml)(?=[;,]))"
)
_FIND_TEXTS: Final = (b"base64", b"<script", b"<title", b"<textarea", b"<style", b"<xmp", b"image/svg+xml")
"""Text without any of these has no match; searching for them costs almost nothing."""


_OPEN_VALUE: Final = re.compile(
    rb"<[a-z][^<>\"']*(?:\"[^<>\"]*\"[^<>\"']*|'[^<>']*'[^<>\"']*)*+[\"'][^>]*\Z", re.IGNORECASE
)
"""The end of text in which a tag has begun, and a quoted value in it."""
_VALUE_BYTES: Final = 4096


class HtmlScan:
    """Scans a page once. `at` is the current position, which a caller may move forward."""

    def __init__(self, page: bytes) -> None:
        self.at = 0
        self._page = page
        self._window = b""
        self._window_start = 0
        self._promising = False
        self._scripts_from = 0
        self._comment_from = 0
        self._endless: set[bytes] = set()

    def next(self) -> tuple[int, re.Match[bytes]] | None:
        """The next match and its position, or None. Moves `at` behind the match."""
        while self.at < len(self._page):
            end = self._window_start + len(self._window)
            last = end == len(self._page)
            found = None
            if self._promising and self.at < end:
                found = _FIND.search(self._window, self.at - self._window_start)
            if found is not None and (last or found.start() < len(self._window) - _FIND_BYTES):
                self.at = self._window_start + found.end()
                return self._window_start + found.start(), found
            if last and self.at >= self._window_start:
                break
            # A match across the end of this window is whole in the next one, with the byte before it.
            self.at = max(self.at, end - _FIND_BYTES)
            self._window_start = max(0, self.at - 1)
            self._window = self._page[self._window_start : self._window_start + PIECE_BYTES].lower()
            self._promising = any(text in self._window for text in _FIND_TEXTS)
        return None

    def skip_script(self, start: int) -> None:
        """
        Move behind the script whose tag is at `start`. A tag inside a comment or a value is ignored: it hides nothing.

        Other content of comments is not skipped, because Outlook shows some of them.
        """
        if start < self._scripts_from or self._in_value(start):
            return
        closed = self._page.rfind(b"-->", self._comment_from, start)
        opened = self._page.find(b"<!--", closed + len(b"-->") if closed >= 0 else self._comment_from, start)
        end = self._page.find(b"-->", start) if opened >= 0 else _find_lower(self._page, b"</script", self.at)
        end = end if end >= 0 else len(self._page)
        self._scripts_from = self._comment_from = end
        if opened < 0:
            self.at = end

    def ignore_scripts(self, start: int, name: bytes) -> None:
        """Ignore script tags in the text of an element, such as a title, whose tag is at `start`."""
        if start < self._scripts_from or name in self._endless or self._in_value(start):
            return
        end = _find_lower(self._page, b"</" + name, self.at)
        if end < 0:
            self._endless.add(name)
        else:
            self._scripts_from = end

    def _in_value(self, at: int) -> bool:
        """Return whether a position is in the quoted value of an attribute."""
        before = self._page[max(0, at - _VALUE_BYTES) : at]
        return _OPEN_VALUE.search(before, before.rfind(b">") + 1) is not None


def _find_lower(page: bytes, text: bytes, at: int) -> int:
    """The position of a lower-case text, found in any case, or -1."""
    size = _FIND_BYTES
    while at < len(page):
        found = page[at : at + size].lower().find(text)
        if found >= 0:
            return at + found
        at += size - len(text)
        size = PIECE_BYTES
    return -1
