"""
Bytes of an uploaded file as lines of text: encodings and line ends, without columns.

`FileScan` reads the whole file before its first row counts, because an encoding that is guessed from the start of a
file may be wrong for its last row. Both classes are fed block by block and hold one line at most.

Never `str.splitlines`: it also splits at U+2028, vertical tab and U+0085, which are part of a text.
"""

import codecs
import hashlib
from collections.abc import Sequence
from typing import Final

from msgspec import Struct

from ftp_gateway.model.outcome import RowError
from ftp_gateway.model.rules import Encoding, Fallback
from shared.errors import InvalidError

MAX_LINE_BYTES = 64 * 1024
"""A longer line is a bad row; a first line that is longer is no text file at all."""
EXCERPT_CHARS = 200

_OVERLONG: Final = b"x" * (MAX_LINE_BYTES + 1)
"""Replaces a line that is too long to keep."""

_BOMS: tuple[tuple[bytes, Encoding], ...] = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
# Python's codec agrees: these seven bytes stand for nothing in windows-1254.
_UNDEFINED_IN_1254 = tuple(bytes([code]) for code in (0x81, 0x8D, 0x8E, 0x8F, 0x90, 0x9D, 0x9E))
# UTF-8 that was read as windows-1254 and encoded again: what became of a dotless i and of an s with cedilla. The
# second byte of each is rare in text, and a search for one byte takes a tenth of the time.
_DOUBLE_ENCODED = ("Ä±".encode(), "ÅŸ".encode())


class RefusedError(InvalidError):
    """The whole file is refused, before any of its rows counts. `reason` is the stable code in the error report."""

    def __init__(self, reason: str, message: str, *, line: int = 0) -> None:
        super().__init__(message, field=f"line {line}" if line else None)
        self.reason = reason
        self.line = line


class Parsed(Struct, frozen=True):
    """
    Rows that ended within a block: line, external id and JSON of each good row, and the errors of the others.

    `rows` is empty with `count_only`. `data` are the parsed lines, from `first_line` on.
    """

    lines: Sequence[int] = []
    ext_ids: list[bytes] = []
    rows: list[bytes] = []
    errors: list[RowError] = []
    data: bytes = b""
    first_line: int = 1


class Text(Struct, frozen=True, kw_only=True):
    """Encoding and id of a file."""

    file_id: str
    size_bytes: int
    encoding: Encoding
    bom_bytes: int
    warnings: tuple[str, ...] = ()


class FileScan:
    """
    The scan of a whole file: its id, its encoding, and whether it is text.

    Args:
        app_key: The tenant; equal files of two tenants have different ids.
        kind: `push` or `profile`, part of the id for the same reason.
        again: The name under which a customer sends content again on purpose; part of the file id.
    """

    def __init__(self, app_key: str, kind: str, again: str = "") -> None:
        self._hash = hashlib.sha256(f"{app_key}|{kind}|".encode())
        if again:
            # NUL ends the name, because no accepted file begins with a name and a NUL.
            self._hash.update(f"{again}\0".encode())
        self._head = b""
        self._size = 0
        self._begun = False
        self._waiting = b""
        self._bom: tuple[bytes, Encoding] | None = None
        self._decoder: codecs.IncrementalDecoder | None = None
        self._decodes = True
        self._undefined_in_1254 = False
        self._has_nul = False
        self._double_encoded = False

    def feed(self, block: bytes) -> None:
        """The next bytes of the file; never raises."""
        self._hash.update(block)
        self._size += len(block)
        if len(self._head) < MAX_LINE_BYTES:
            self._head += block[: MAX_LINE_BYTES - len(self._head)]
        if not self._begun:
            # A byte order mark has three bytes at most, and a client may send fewer at first.
            self._waiting += block
            if len(self._waiting) < 3:
                return
            block = self._begin()
        self._check(block)

    def result(self, fallback: Fallback | None) -> Text:
        """
        Return the encoding and id of the file.

        Raises:
            RefusedError: `empty`, `encoding`, `nul`, `line_ends` or `not_text`.
        """
        if not self._begun:
            self._check(self._begin())
        bom, encoding = self._bom or (b"", "utf-8")
        if self._size <= len(bom):
            raise RefusedError("empty", "the file is empty")
        if not self._decodes_to_the_end():
            encoding = self._fall_back(fallback)
        if self._has_nul:
            raise RefusedError(
                "nul", "the file holds a NUL; expected text in UTF-8, or in UTF-16 with a byte order mark"
            )
        self._check_line_ends(encoding, len(bom))
        warnings = ("double_encoding",) if self._double_encoded and encoding == "utf-8" else ()
        return Text(
            file_id=self._hash.hexdigest()[:32],
            size_bytes=self._size,
            encoding=encoding,
            bom_bytes=len(bom),
            warnings=warnings,
        )

    @property
    def file_id(self) -> str:
        """The id of what was fed so far: 32 hexadecimal digits of SHA-256 over app, kind and content."""
        return self._hash.hexdigest()[:32]

    def _begin(self) -> bytes:
        """Read the byte order mark. Returns the bytes after it."""
        self._begun = True
        self._bom = next((bom for bom in _BOMS if self._waiting.startswith(bom[0])), None)
        self._decoder = codecs.getincrementaldecoder(self._bom[1] if self._bom else "utf-8")("strict")
        return self._waiting.removeprefix(self._bom[0] if self._bom else b"")

    def _check(self, block: bytes) -> None:
        wide = self._bom is not None and self._bom[1] != "utf-8"
        if not wide:
            self._has_nul = self._has_nul or b"\0" in block
            self._undefined_in_1254 = self._undefined_in_1254 or any(code in block for code in _UNDEFINED_IN_1254)
            self._double_encoded = self._double_encoded or any(
                mark[1] in block and mark in block for mark in _DOUBLE_ENCODED
            )
        if self._decodes and self._decoder is not None:
            try:
                text = self._decoder.decode(block)
            except UnicodeDecodeError:
                self._decodes = False
            else:
                self._has_nul = self._has_nul or (wide and "\0" in text)

    def _decodes_to_the_end(self) -> bool:
        if self._decodes and self._decoder is not None:
            try:
                self._decoder.decode(b"", final=True)
            except UnicodeDecodeError:
                self._decodes = False
        return self._decodes

    def _fall_back(self, fallback: Fallback | None) -> Encoding:
        if self._bom is not None:
            raise RefusedError(
                "encoding", f"the byte order mark says {self._bom[1].upper()}, and the bytes are not that"
            )
        if fallback is None:
            raise RefusedError("encoding", "expected UTF-8, or UTF-16 with a byte order mark")
        if self._undefined_in_1254:
            raise RefusedError("encoding", f"expected UTF-8 or {fallback}, and some bytes are neither")
        return fallback

    def _check_line_ends(self, encoding: Encoding, bom_bytes: int) -> None:
        head = self._head[bom_bytes:].decode(encoding, errors="ignore")
        if "\n" in head:
            return
        if "\r" in head.rstrip("\r"):
            raise RefusedError("line_ends", "lines end with CR alone; expected LF or CRLF")
        if self._size > MAX_LINE_BYTES:
            raise RefusedError("not_text", f"no line end in the first {MAX_LINE_BYTES} bytes", line=1)


class Lines:
    """
    The physical lines of one file in UTF-8, whole lines of a block together, each ending with `LF` alone.

    One that is longer than `MAX_LINE_BYTES` may be cut, but stays too long for `line_of`. So it still counts, and
    numbers are those of any editor.
    """

    def __init__(self, text: Text) -> None:
        self._skip = text.bom_bytes
        self._decoder = None if text.encoding == "utf-8" else codecs.getincrementaldecoder(text.encoding)("strict")
        self._rest = b""
        self.ends_within_a_line = False
        """Whether the file ended without a line end; known after `finish`."""

    def feed(self, block: bytes) -> bytes:
        """The lines that end within this block."""
        if self._skip:
            cut = min(self._skip, len(block))
            block, self._skip = block[cut:], self._skip - cut
        if self._decoder is not None:
            block = self._decoder.decode(block).encode()
        end = block.rfind(b"\n") + 1
        lines = self._rest + block[:end] if end else b""
        self._rest = block[end:] if end else self._rest + block
        # One byte more, because a CR that belongs to the line end may be the last.
        if len(self._rest) > len(_OVERLONG):
            self._rest = _OVERLONG
        return _ended_alike(lines)

    def finish(self) -> bytes:
        """The last line, where it has no line end."""
        self.ends_within_a_line = bool(self._rest)
        return _ended_alike(self._rest + b"\n") if self._rest else b""


def _ended_alike(lines: bytes) -> bytes:
    return lines.replace(b"\r\n", b"\n") if b"\r" in lines else lines


def line_of(data: bytes) -> str | None:
    """Return one of the `Lines`, without its end; None where it is longer than `MAX_LINE_BYTES`."""
    return None if len(data) > MAX_LINE_BYTES else data.decode()


def excerpt(line: str) -> str:
    """Return the start of a row, as an error report shows it."""
    return line if len(line) <= EXCERPT_CHARS else line[: EXCERPT_CHARS - 1] + "…"


def overlong(number: int) -> RowError:
    """Return the error of a row that is longer than `MAX_LINE_BYTES`."""
    return RowError(line=number, code="line_too_long", message=f"expected at most {MAX_LINE_BYTES} bytes in a line")
