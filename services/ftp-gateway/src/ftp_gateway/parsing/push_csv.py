"""
Push files: lines of `ExternalID;Text;Deeplink` become rows or row errors. Pure. The limits of a row (`MAX_TEXT_CHARS`
of a push text, and so on) are the constants below.

The format has no quoting rule, and `csv.reader` would swallow the rest of a file at one stray quote. So a row is split
at its first and its last `;`, and the text keeps every `;` between them. A link may hold `;` as well: where the last
field is no link, earlier separators are tried until a link follows.
"""

import re

from ftp_gateway.model.outcome import RowError
from ftp_gateway.parsing.text import Lines, Parsed, Text, excerpt, line_of, overlong
from shared.contracts.messages import PushRow, decode, encode

MAX_EXT_ID_CHARS = 256
MAX_TEXT_CHARS = 4096
"""Limit of a push text. FCM and APNs accept 4 KiB for a whole notification."""
MAX_DEEPLINK_CHARS = 2048

_HEADER = b"externalid;text;deeplink"
_LINK = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:\S+")
# A long number as a spreadsheet rewrites it; an id of letters and digits has no sign after its E.
_SCIENTIFIC = re.compile(r"\d+(?:[.,]\d+)?[eE][+-]\d+")
# Nearly every row of a large file: ASCII around a text that stands in JSON as it does here, a link without ';', no
# limit near. The lines of a block are found at once, and what is not like this comes in the last group. It means what
# the functions below mean, in a fifth of the time. A text is not blank where it begins with no space, or where a byte
# that is seen follows within it. Its group ends with its ';', because `re` looks for what follows a repetition at once
# only where no group ends in between.
_SPACE = rb"[ \\]|\xc2[\x85\xa0]|\xe1\x9a\x80|\xe2\x80[\x80-\x8a\xa8\xa9\xaf]|\xe2\x81\x9f|\xe3\x80\x80"
_EXT_ID = rb"(?!\d+(?:[.,]\d+)?[eE][+-]\d+;)([!#-:<-\[\]-~]{1,256});"
_NOT_BLANK = rb"(?:(?!" + _SPACE + rb")|(?=[^;\\\n]{1,40}[!-:<-\[\]-~]))"
_LINK_FIELD = rb"[A-Za-z][A-Za-z0-9+.-]{0,47}:[!#-:<-\[\]-~]{1,2000}"
_ANY_TEXT = rb'[^\x00-\x1f"\\]{1,4000};'
# What a text may not hold is not in a plain block, which leaves the line break: JSON writes it alike.
_PLAIN_TEXT = rb".{1,4000};"
# By whether the block is plain, and whether rows are only counted.
_PATTERNS = {
    (plain, count_only): re.compile(
        _EXT_ID + _NOT_BLANK + (text + _LINK_FIELD if count_only else b"(%b)(%b)" % (text, _LINK_FIELD)) + rb"\n|(.*)\n"
    )
    for plain, text in ((False, _ANY_TEXT), (True, _PLAIN_TEXT))
    for count_only in (False, True)
}
_PLAIN = b"\n" + bytes(code for code in range(32, 256) if code not in b'"\\')
_LINE_BREAK = re.compile(r"\\(\\?)n")


class PushReader:
    """
    Rows of one push file, in order. Fed block by block.

    After `finish`, `ends_within_a_line` tells that the last line has no line end, and `cut_off` that it is no whole
    row.

    Args:
        count_only: `feed` renders no rows, which saves half of the time.
    """

    def __init__(self, text: Text, *, count_only: bool = False) -> None:
        self._file_id = text.file_id
        # What `encode` makes of a row.
        self._json = b'{"id":"%b:%%d","line":%%d,"ext_id":"%%b","text":"%%b","deeplink":"%%b"}' % text.file_id.encode()
        self._count_only = count_only
        self._lines = Lines(text)
        self._number = 0
        self.ends_within_a_line = False
        self.cut_off = False

    def feed(self, block: bytes) -> Parsed:
        """The rows whose line ends within this block; blank lines and a header are none."""
        return self._parse(self._lines.feed(block))

    def finish(self) -> Parsed:
        """The row of a last line that has no line end."""
        self._count_only = False
        parsed = self._parse(self._lines.finish())
        self.ends_within_a_line = self._lines.ends_within_a_line
        # A row may have no link, but then its line has an end: `12345;Welcome;` is also how a cut row looks.
        self.cut_off = bool(parsed.errors) or any(not decode(row, PushRow).deeplink for row in parsed.rows)
        return parsed

    def _parse(self, data: bytes) -> Parsed:
        shown = data.replace(rb"\n", b"") if b"\\" in data else data
        found = _PATTERNS[not shown.translate(None, _PLAIN), self._count_only].findall(data)
        first, json = self._number + 1, self._json
        self._number += len(found)
        ext_ids = [row[0] for row in found]
        if not all(ext_ids):
            return self._parse_each(first, found)
        if self._count_only:
            return Parsed(range(first, self._number + 1), ext_ids)
        rows = [
            json % (line, line, ext_id, text[:-1], link) for line, (ext_id, text, link, _) in enumerate(found, first)
        ]
        return Parsed(range(first, self._number + 1), ext_ids, rows)

    def _parse_each(self, first: int, found: list[tuple[bytes, ...]]) -> Parsed:
        lines: list[int] = []
        ext_ids: list[bytes] = []
        rows: list[bytes] = []
        errors: list[RowError] = []
        for line, (ext_id, *fields, other) in enumerate(found, first):
            if ext_id:
                lines.append(line)
                ext_ids.append(ext_id)
                if not self._count_only:
                    text, link = fields
                    rows.append(self._json % (line, line, ext_id, text[:-1], link))
                continue
            row = self._row(line, other)
            if isinstance(row, PushRow):
                lines.append(line)
                ext_ids.append(row.ext_id.encode())
                if not self._count_only:
                    rows.append(encode(row))
            elif row is not None:
                errors.append(row)
        return Parsed(lines, ext_ids, rows, errors)

    def _row(self, number: int, data: bytes) -> PushRow | RowError | None:
        """Parse any line; None for a line that is no row."""
        line = line_of(data)
        if line is None:
            return overlong(number)
        if not line.strip() or (number == 1 and _is_header(line)):
            return None
        return self._any_row(number, line)

    def _any_row(self, number: int, line: str) -> PushRow | RowError:
        ext_id, text, deeplink = _split(line)
        if text is None:
            return _error(number, line, "columns", "expected ExternalID;Text;Deeplink")
        if deeplink is None:
            return _error(number, line, "deeplink", "expected a link such as https://… or app://… after the last ';'")
        problem = _problem(ext_id, text, deeplink)
        if problem:
            return _error(number, line, *problem)
        return PushRow(id=f"{self._file_id}:{number}", line=number, ext_id=ext_id, text=text, deeplink=deeplink)


def _is_header(line: str) -> bool:
    # Bytes, so that the lower case is that of ASCII: a Turkish capital I is one character, and its lower case two.
    return ";".join(_unquote(name.strip()) for name in line.split(";")).encode().lower() == _HEADER


def _error(number: int, line: str, code: str, message: str) -> RowError:
    return RowError(line=number, code=code, message=message, excerpt=excerpt(line))


def _split(line: str) -> tuple[str, str | None, str | None]:
    """External id, text, link. Without a text there are too few columns; without a link there is none to be found."""
    first = line.find(";")
    last = line.rfind(";")
    if first == last:
        return line, None, None
    ext_id = _unquote(line[:first].strip())
    end = len(line)
    if not line[last + 1 :].strip():
        # A spreadsheet's empty fourth column, or a row that has no link on purpose.
        end, last = last, line.rfind(";", first + 1, last)
        if last == -1:
            return ext_id, _text(line[first + 1 : end]), ""
    at = last
    while at > first:
        tail = _unquote(line[at + 1 : end].strip())
        if _LINK.fullmatch(tail):
            return ext_id, _text(line[first + 1 : at]), tail
        if end - at > MAX_DEEPLINK_CHARS:
            # Nothing longer can be a link, and a line of nothing but ';' must not cost its length squared.
            break
        at = line.rfind(";", first + 1, at)
    if end < len(line):
        return ext_id, _text(line[first + 1 : end]), ""
    return ext_id, "", None


def _unquote(field: str) -> str:
    """Remove a spreadsheet's quotes around a whole field; any other quote is an ordinary character."""
    if len(field) >= 2 and field[0] == field[-1] == '"':
        inner = field[1:-1]
        if '"' not in inner.replace('""', ""):
            return inner.replace('""', '"')
    return field


def _text(field: str) -> str:
    r"""The text as it is shown: `\n` is a line break, `\\n` the two characters, every other escape stays."""
    field = _unquote(field)
    return _unescape(field) if "\\" in field else field


def _unescape(field: str) -> str:
    if "\\\\" not in field:
        return field.replace(r"\n", "\n")
    return _LINE_BREAK.sub(lambda found: r"\n" if found[1] else "\n", field)


def _problem(ext_id: str, text: str, deeplink: str) -> tuple[str, str] | None:
    if not ext_id:
        return "ext_id_missing", "expected an ExternalID before the first ';'"
    if len(ext_id) > MAX_EXT_ID_CHARS:
        return "ext_id_too_long", f"expected an ExternalID of at most {MAX_EXT_ID_CHARS} characters"
    if _SCIENTIFIC.fullmatch(ext_id):
        return "ext_id_scientific", "scientific notation: a spreadsheet has changed this ExternalID; format it as text"
    if not text.strip():
        return "text_missing", "expected a text between the first and the last ';'"
    if len(text) > MAX_TEXT_CHARS:
        return "text_too_long", f"expected a text of at most {MAX_TEXT_CHARS} characters"
    if len(deeplink) > MAX_DEEPLINK_CHARS:
        return "deeplink_too_long", f"expected a link of at most {MAX_DEEPLINK_CHARS} characters"
    return None
