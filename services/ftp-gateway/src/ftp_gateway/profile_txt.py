"""
Profile files: a pattern line, then lines of `~`-separated typed values, become rows or row errors. Pure.

The pattern line is `~~~city~age` (three unnamed identity columns, then attributes) or, in full, `extID~email~device
token~city~age`, with or without the three `~` in front. A field that is empty leaves the value as it is; `""` is an
empty string.
"""

from zoneinfo import ZoneInfo

from ftp_gateway.lines import Lines, Parsed, RefusedError, RowError, Text, excerpt, overlong
from ftp_gateway.profile_values import AttributeType, ValueProblem, parse_value
from shared.messages import ProfileRow, Value

MAX_ATTRIBUTES = 256
MAX_ATTRIBUTE_NAME_CHARS = 128
MAX_EXT_ID_CHARS = 256
MAX_ADDRESS_CHARS = 4096
"""An e-mail address has at most 254 characters, a web push token may have thousands."""

KNOWN_VALUES = 256
KNOWN_CHARS = 64
"""Of each attribute, so many short values are not parsed again: cities, ages and days repeat in a file."""

_IDENTITY = ("extid", "email", "devicetoken")
_WRAPPED = {'"': '"', "[": "]"}


class ProfileReader:
    """
    Rows of one profile file, in order. Fed block by block; each row comes with the length of its line.

    After `finish`, `ends_within_a_line` tells that the last line has no line end, and `cut_off` that it is no whole
    row.

    Args:
        attributes: The type of every attribute that the app declares; empty accepts any.
        timezone: What a date and time without an offset means.
    """

    def __init__(self, text: Text, attributes: dict[str, AttributeType], timezone: ZoneInfo) -> None:
        self._file_id = text.file_id
        self._lines = Lines(text)
        self._number = 0
        self._declared = attributes
        self._timezone = timezone
        self._names: tuple[str, ...] | None = None
        self._known: list[dict[str, Value]] = []
        self.ends_within_a_line = False
        self.cut_off = False

    def feed(self, block: bytes) -> Parsed[ProfileRow]:
        """
        The rows whose line ends within this block; blank lines are none.

        Raises:
            RefusedError: `pattern` or `unknown_attribute`, before row 1.
        """
        return self._parse(self._lines.feed(block))

    def finish(self) -> Parsed[ProfileRow]:
        """The row of a last line that has no line end. Raises as `feed` does, also when there was no pattern line."""
        parsed = self._parse(self._lines.finish())
        if self._names is None:
            raise _bad_pattern(1)
        self.ends_within_a_line = self._lines.ends_within_a_line
        self.cut_off = bool(parsed.errors)
        return parsed

    def _parse(self, lines: list[str | None]) -> Parsed[ProfileRow]:
        rows: list[ProfileRow] = []
        sizes: list[int] = []
        errors: list[RowError] = []
        for line in lines:
            self._number += 1
            if line is None:
                if self._names is None:
                    raise _bad_pattern(self._number)
                errors.append(overlong(self._number))
            elif not line.strip():
                continue
            elif self._names is None:
                self._names = self._pattern(self._number, line)
                self._known = [{} for _ in self._names]
            else:
                row = self._row(self._number, line, self._names)
                if isinstance(row, RowError):
                    errors.append(row)
                else:
                    rows.append(row)
                    sizes.append(len(line))
        return Parsed(rows, sizes, errors)

    def _pattern(self, number: int, line: str) -> tuple[str, ...]:
        names = [name.strip() for name in line.split("~")]
        implicit = names[:3] == ["", "", ""]
        named = names[3:] if implicit else names
        if tuple(_folded(name) for name in named[:3]) == _IDENTITY:
            attributes = named[3:]
        elif implicit:
            attributes = [] if named == [""] else named
        else:
            raise _bad_pattern(number)
        self._check_names(number, attributes)
        return tuple(attributes)

    def _check_names(self, number: int, names: list[str]) -> None:
        if len(names) > MAX_ATTRIBUTES:
            raise RefusedError("pattern", f"expected at most {MAX_ATTRIBUTES} attributes", line=number)
        for name in names:
            if not name or len(name) > MAX_ATTRIBUTE_NAME_CHARS or not name.isprintable():
                message = f"expected attribute names of 1 to {MAX_ATTRIBUTE_NAME_CHARS} printable characters"
                raise RefusedError("pattern", message, line=number)
        if len(set(names)) < len(names):
            raise RefusedError("pattern", "an attribute is named twice", line=number)
        unknown = [name for name in names if self._declared and name not in self._declared]
        if unknown:
            message = f"the app has no attribute {', '.join(repr(name) for name in unknown)}"
            raise RefusedError("unknown_attribute", message, line=number)

    def _row(self, number: int, line: str, names: tuple[str, ...]) -> ProfileRow | RowError:
        try:
            fields = _plain_split(line) or _split(line)
            if len(fields) != len(names) + 3:
                raise ValueProblem("columns", f"expected {len(names) + 3} fields separated by '~', found {len(fields)}")
            return ProfileRow(
                id=f"{self._file_id}:{number}",
                line=number,
                ext_id=_ext_id(fields[0]),
                email=_email(fields[1]),
                device_token=_address(fields[2], "device_token"),
                attributes=self._attributes(names, fields[3:]),
            )
        except ValueProblem as problem:
            return RowError(line=number, code=problem.code, message=problem.message, excerpt=excerpt(line))

    def _attributes(self, names: tuple[str, ...], fields: list[str]) -> dict[str, Value]:
        attributes: dict[str, Value] = {}
        for name, field, known in zip(names, fields, self._known, strict=True):
            if not field:
                continue
            # No value is None, and a list is never kept, because whoever gets it may change it.
            value = known.get(field)
            if value is None:
                try:
                    value = parse_value(field, self._declared.get(name), self._timezone)
                except ValueProblem as problem:
                    raise ValueProblem(problem.code, f"{name}: {problem.message}") from None
                if len(known) < KNOWN_VALUES and len(field) <= KNOWN_CHARS and not isinstance(value, list):
                    known[field] = value
            attributes[name] = value
        return attributes


def _bad_pattern(number: int) -> RefusedError:
    return RefusedError(
        "pattern", "expected a pattern line: ~~~attribute~… or extID~email~device token~attribute~…", line=number
    )


def _folded(name: str) -> str:
    # ASCII only: the lower case of a Turkish capital I is not one character.
    return "".join(char for char in name if char not in " _").encode().lower().decode()


def _plain_split(line: str) -> list[str] | None:
    """What `_split` gives, in a third of its time; None where a field may hold a `~` or has space around it."""
    fields = line.split("~")
    for field in fields:
        if len(field.strip()) != len(field):
            return None
        closing = _WRAPPED.get(field[:1])
        if closing is not None and (len(field) == 1 or field[-1] != closing):
            return None
    return fields


def _split(line: str) -> list[str]:
    """Fields without the space around them. One that starts with a quote runs to a quote before `~` or the end."""
    fields: list[str] = []
    at = 0
    while at <= len(line):
        start = _after_spaces(line, at)
        closing = _WRAPPED.get(line[start : start + 1])
        end = line.find("~", at) if closing is None else _end_of_wrapped(line, start, closing)
        if end == -1:
            end = len(line)
        fields.append(line[at:end].strip())
        at = end + 1
    return fields


def _end_of_wrapped(line: str, start: int, closing: str) -> int:
    at = start
    while (at := line.find(closing, at + 1)) != -1:
        after = _after_spaces(line, at + 1)
        if after == len(line) or line[after] == "~":
            return after
    raise ValueProblem("quotes", f"expected {closing} at the end of the field that starts with {line[start]}")


def _after_spaces(line: str, at: int) -> int:
    # By index and not by slices: a line of nothing but quotes must not cost its length squared.
    while line.startswith(" ", at):
        at += 1
    return at


def _unquoted(field: str) -> str:
    return field[1:-1] if len(field) >= 2 and field[0] == field[-1] == '"' else field


def _ext_id(field: str) -> str:
    ext_id = _unquoted(field).strip()
    if not ext_id:
        raise ValueProblem("ext_id_missing", "expected an external id in the first field")
    if len(ext_id) > MAX_EXT_ID_CHARS:
        raise ValueProblem("ext_id_too_long", f"expected an external id of at most {MAX_EXT_ID_CHARS} characters")
    return ext_id


def _address(field: str, name: str) -> str | None:
    if not field:
        return None
    address = _unquoted(field).strip()
    if len(address) > MAX_ADDRESS_CHARS:
        raise ValueProblem(name, f"expected at most {MAX_ADDRESS_CHARS} characters")
    return address


def _email(field: str) -> str | None:
    address = _address(field, "email")
    if address and ("@" not in address.strip("@") or len(address.split()) > 1):
        raise ValueProblem("email", "expected an e-mail address")
    return address
