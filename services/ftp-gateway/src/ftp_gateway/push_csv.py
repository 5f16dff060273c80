"""
Push files: lines of `ExternalID;Text;Deeplink` become rows or row errors. Pure.

The format has no quoting rule, and `csv.reader` would swallow the rest of a file at one stray quote. So a row is
split at its first and its last `;`, and the text keeps every `;` between them. Where the last field is no link,
earlier separators are tried until what follows is one: a link may hold `;` as well.
"""

import re

from ftp_gateway.lines import Lines, Parsed, RowError, Text, excerpt, overlong
from shared.messages import PushRow

MAX_EXT_ID_CHARS = 256
MAX_TEXT_CHARS = 4096
"""FCM and APNs take 4 KiB for a whole notification."""
MAX_DEEPLINK_CHARS = 2048

_HEADER = b"externalid;text;deeplink"
_LINK = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:\S+")
# What a spreadsheet makes of a long number; an id of letters and digits has no sign after its E.
_SCIENTIFIC = re.compile(r"\d+(?:[.,]\d+)?[eE][+-]\d+")
# Nearly every row of a large file: nothing quoted, a link without ';', no limit near. It means what the functions below
# mean, in a third of the time.
_PLAIN = re.compile(
    r"""(?!\d+(?:[.,]\d+)?[eE][+-]\d+;)([^;"\s]{1,256});([^"]{0,4095}[^"\s]);([A-Za-z][A-Za-z0-9+.-]{0,47}:[^;"\s]{1,2000})"""
)
_LINE_BREAK = re.compile(r"\\(\\?)n")


class PushReader:
    """
    Rows of one push file, in order. Fed block by block; each row comes with the length of its line.

    After `finish`, `ends_within_a_line` tells that the last line has no line end, and `cut_off` that it is no whole
    row.

    Args:
        count_only: Make no rows of what `feed` is given, which saves a quarter of the time.
    """

    def __init__(self, text: Text, *, count_only: bool = False) -> None:
        self._file_id = text.file_id
        self._count_only = count_only
        self._lines = Lines(text)
        self._number = 0
        self.ends_within_a_line = False
        self.cut_off = False

    def feed(self, block: bytes) -> Parsed[PushRow]:
        """The rows whose line ends within this block; blank lines and a header are none."""
        return self._parse(self._lines.feed(block))

    def finish(self) -> Parsed[PushRow]:
        """The row of a last line that has no line end."""
        self._count_only = False
        parsed = self._parse(self._lines.finish())
        self.ends_within_a_line = self._lines.ends_within_a_line
        # A row may have no link, but then its line has an end: `12345;Welcome;` is also how a cut row looks.
        self.cut_off = bool(parsed.errors) or any(not row.deeplink for row in parsed.rows)
        return parsed

    def _parse(self, lines: list[str | None]) -> Parsed[PushRow]:
        rows: list[PushRow] = []
        sizes: list[int] = []
        errors: list[RowError] = []
        counted: list[str] = []
        prefix, plain, count_only = f"{self._file_id}:", _PLAIN.fullmatch, self._count_only
        number, last = self._number, 0
        for line in lines:
            number += 1
            if line is None:
                errors.append(overlong(number))
                continue
            row: PushRow | RowError | None
            if found := plain(line):
                ext_id, text, deeplink = found.groups()
                if "\\" not in text or (text := _unescape(text)).strip():
                    if count_only:
                        counted.append(ext_id)
                        last = number
                        continue
                    row = PushRow(id=f"{prefix}{number}", line=number, ext_id=ext_id, text=text, deeplink=deeplink)
                    rows.append(row)
                    sizes.append(len(line))
                    continue
            row = self._row(number, line)
            if isinstance(row, PushRow) and count_only:
                counted.append(row.ext_id)
                last = number
            elif isinstance(row, PushRow):
                rows.append(row)
                sizes.append(len(line))
            elif row is not None:
                errors.append(row)
        self._number = number
        return Parsed(rows, sizes, errors, (last, counted))

    def _row(self, number: int, line: str) -> PushRow | RowError | None:
        """Any line; None for one that is no row."""
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
    """Undo a spreadsheet's quotes, where they wrap the whole field; any other quote is a character like the rest."""
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
