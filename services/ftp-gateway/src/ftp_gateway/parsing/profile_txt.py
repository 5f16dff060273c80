"""
Profile files: a pattern line, then lines of `~`-separated typed values, become rows or row errors. Pure.

The pattern line is `~~~city~age` (three unnamed identity columns, then attributes) or, in full, `extID~email~device
token~city~age`, with or without the three `~` in front. An empty field leaves the value as it is; `""` is an empty
string.

One file of 300 lines: the fast pattern of a plain row and the careful functions below it must agree.
"""

import re
from zoneinfo import ZoneInfo

import msgspec

from ftp_gateway.model.outcome import RowError
from ftp_gateway.model.rules import AttributeType
from ftp_gateway.parsing.profile_values import ValueProblem, parse_value
from ftp_gateway.parsing.text import Lines, Parsed, RefusedError, Text, excerpt, line_of, overlong
from shared.contracts.messages import ProfileAttributes, ProfileRow, encode

MAX_ATTRIBUTES = 256
MAX_ATTRIBUTE_NAME_CHARS = 128
MAX_EXT_ID_CHARS = 256
MAX_ADDRESS_CHARS = 4096
"""An e-mail address has at most 254 characters, a web push token may have thousands."""

KNOWN_VALUES = 256
KNOWN_BYTES = 64
"""Short values of an attribute that are cached, with their length: cities, ages and days repeat in a file."""

_IDENTITY = ("extid", "email", "devicetoken")
_WRAPPED = {'"': '"', "[": "]"}
# Nearly every row of a large file: external id, address and token of plain ASCII, then the values. Any other line is
# found as a whole, in the last group. As in `push_csv`.
_ROW = re.compile(
    rb"""([!#-Z\]-}][!#-\[\]-}]{0,255})~((?:[!#-?A-Z\]-}][!#-?A-\[\]-}]{0,999}@[!#-?A-\[\]-}]{1,999})?)"""
    rb"""~((?:[!#-Z\]-}][!#-\[\]-}]{0,3999})?)((?:~.*)?)\n|(.*)\n"""
)


class _NotPlainError(Exception):
    """The field is no plain value; the careful functions have to parse the line."""


class _Members(dict[bytes, bytes]):
    """Cache of one attribute: a field as a member of a JSON object."""

    def __init__(self, name: str, declared: AttributeType | None, timezone: ZoneInfo) -> None:
        super().__init__({b"": b""})
        self._name = name
        self._declared = declared
        self._timezone = timezone

    def __missing__(self, field: bytes) -> bytes:
        text = field.decode()
        closing = _WRAPPED.get(text[0])
        if len(text.strip()) != len(text) or (closing is not None and (len(text) == 1 or text[-1] != closing)):
            raise _NotPlainError
        try:
            value = parse_value(text, self._declared, self._timezone)
        except ValueProblem:
            raise _NotPlainError from None
        member = msgspec.json.encode({self._name: value})[1:-1]
        if len(self) < KNOWN_VALUES and len(field) <= KNOWN_BYTES:
            self[field] = member
        return member


class ProfileReader:
    """
    Rows of one profile file, in order. Fed block by block.

    After `finish`, `ends_within_a_line` tells that the last line has no line end, and `cut_off` that it is no whole
    row.

    Args:
        attributes: The type of every attribute that the app declares; empty accepts any.
        timezone: What a date and time without an offset means.
        count_only: `feed` renders no rows.
    """

    def __init__(
        self, text: Text, attributes: dict[str, AttributeType], timezone: ZoneInfo, *, count_only: bool = False
    ) -> None:
        self._count_only = count_only
        self._file_id = text.file_id
        self._id = text.file_id.encode()
        self._lines = Lines(text)
        self._number = 0
        self._declared = attributes
        self._timezone = timezone
        self._names: tuple[str, ...] | None = None
        self._known: list[_Members] = []
        self.ends_within_a_line = False
        self.cut_off = False

    def feed(self, block: bytes) -> Parsed:
        """
        The rows whose line ends within this block; blank lines are none.

        Raises:
            RefusedError: `pattern` or `unknown_attribute`, before row 1.
        """
        return self._parse(self._lines.feed(block))

    def finish(self) -> Parsed:
        """The row of a last line that has no line end. Raises as `feed` does, also when there was no pattern line."""
        parsed = self._parse(self._lines.finish())
        if self._names is None:
            raise _bad_pattern(1)
        self.ends_within_a_line = self._lines.ends_within_a_line
        self.cut_off = bool(parsed.errors)
        return parsed

    def _parse(self, data: bytes) -> Parsed:
        lines: list[int] = []
        ext_ids: list[bytes] = []
        rows: list[bytes] = []
        errors: list[RowError] = []
        first_line = self._number + 1
        for line, (ext_id, email, device_token, values, other) in enumerate(_ROW.findall(data), first_line):
            self._number = line
            if ext_id:
                members = self._members(values)
                if members is not None:
                    lines.append(line)
                    ext_ids.append(ext_id)
                    if not self._count_only:
                        rows.append(self._plain_row(ext_id, email, device_token, members))
                    continue
                other = b"~".join((ext_id, email, device_token)) + values
            careful = self._line(line, other)
            if isinstance(careful, ProfileRow):
                lines.append(line)
                ext_ids.append(careful.ext_id.encode())
                if not self._count_only:
                    rows.append(encode(careful))
            elif careful is not None:
                errors.append(careful)
        return Parsed(lines, ext_ids, rows, errors, data, first_line)

    def _plain_row(self, ext_id: bytes, email: bytes, device_token: bytes, members: list[bytes]) -> bytes:
        """A row's JSON, in a third of the time of `encode`."""
        attributes = b",".join(filter(None, members))
        return b'{"id":"%b:%d","line":%d,"ext_id":"%b"%b%b%b}' % (
            self._id,
            self._number,
            self._number,
            ext_id,
            b',"email":"%b"' % email if email else b"",
            b',"device_token":"%b"' % device_token if device_token else b"",
            b',"attributes":{%b}' % attributes if attributes else b"",
        )

    def _members(self, values: bytes) -> list[bytes] | None:
        """
        Return the attributes as members of a JSON object, empty ones empty; None where `_row` has to parse the line.
        """
        fields = values.split(b"~")
        if len(fields) != len(self._known):
            return None
        try:
            return [known[field] for known, field in zip(self._known, fields, strict=True)]
        except _NotPlainError:
            return None

    def _line(self, number: int, data: bytes) -> ProfileRow | RowError | None:
        """Parse any line; None for the pattern line and for a line that is no row."""
        line = line_of(data)
        if line is None:
            if self._names is None:
                raise _bad_pattern(number)
            return overlong(number)
        if not line.strip():
            return None
        if self._names is None:
            self._names = self._pattern(number, line)
            # What is before the first `~` is empty.
            names = ("", *self._names)
            self._known = [_Members(name, self._declared.get(name), self._timezone) for name in names]
            return None
        return self._row(number, line, self._names)

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
            fields = _split(line)
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

    def _attributes(self, names: tuple[str, ...], fields: list[str]) -> ProfileAttributes:
        attributes: ProfileAttributes = {}
        for name, field in zip(names, fields, strict=True):
            if field:
                try:
                    value = parse_value(field, self._declared.get(name), self._timezone)
                    attributes[name] = msgspec.Raw(msgspec.json.encode(value))
                except ValueProblem as problem:
                    raise ValueProblem(problem.code, f"{name}: {problem.message}") from None
        return attributes


def _bad_pattern(number: int) -> RefusedError:
    return RefusedError(
        "pattern", "expected a pattern line: ~~~attribute~… or extID~email~device token~attribute~…", line=number
    )


def _folded(name: str) -> str:
    # ASCII only: the lower case of a Turkish capital I is not one character.
    return "".join(char for char in name if char not in " _").encode().lower().decode()


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
