"""
Values of profile files: the text of a field, and its declared type if any, become a value of a profile. Pure.

A number is bare, a string stands in quotes, an array is JSON. A date is ISO 8601 or milliseconds since the epoch, and
is kept as ISO 8601 in UTC, because a profile has no type for it.
"""

import re
from datetime import UTC, date, datetime
from math import isfinite
from zoneinfo import ZoneInfo

import msgspec

from ftp_gateway.model.rules import AttributeType

Scalar = str | int | float | bool | None
Value = Scalar | list[Scalar]

MAX_ARRAY_ITEMS = 1000

_NUMBER = re.compile(r"[+-]?\d+(\.\d+)?([eE][+-]?\d+)?", re.ASCII)
_EPOCH_MS = re.compile(r"-?\d{1,14}", re.ASCII)
_DATE = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)
_DATE_TIME = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d([.,]\d{1,6})?)?(Z|[+-]\d\d:?\d\d)?", re.ASCII)
_BOOLEANS = {"true": True, "false": False}
_INT64 = range(-(1 << 63), 1 << 63)

_array = msgspec.json.Decoder(list[Scalar])


class ValueProblem(Exception):
    """A field is refused. `profile_txt` makes a row error of it; it never leaves the package."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


def parse_value(field: str, declared: AttributeType | None, timezone: ZoneInfo) -> Value:
    """
    The value of a field that is not empty.

    Args:
        declared: The attribute's type; None infers it from the field.
        timezone: The zone of a date and time without an offset.

    Raises:
        ValueProblem: The code `value`: the field does not fit its type.
    """
    quoted = field[1:-1] if len(field) >= 2 and field[0] == field[-1] == '"' else None
    match declared:
        case "string":
            # "If necessary" says the format of quotes: a declared string needs none.
            return field if quoted is None else quoted
        case "number":
            return _number(field, "a number, bare and with a decimal point")
        case "boolean":
            return _boolean(field)
        case "date":
            return _date(field if quoted is None else quoted, timezone)
        case "array":
            return _items(field)
        case None:
            return _undeclared(field, timezone) if quoted is None else quoted


def _undeclared(field: str, timezone: ZoneInfo) -> Value:
    if field.startswith("["):
        return _items(field)
    if field.lower() in _BOOLEANS:
        return _boolean(field)
    if _DATE.fullmatch(field) or _DATE_TIME.fullmatch(field):
        return _date(field, timezone)
    return _number(field, "a number, true, false, an ISO date, an array in [ ] or a string in quotes")


def _number(field: str, expected: str) -> int | float:
    found = _NUMBER.fullmatch(field)
    if found is None:
        raise ValueProblem("value", f"expected {expected}")
    if found[1] is None and found[2] is None:
        # Python refuses to read thousands of digits, and a profile holds 64 bits.
        if len(field) > 20 or (whole := int(field)) not in _INT64:
            raise ValueProblem("value", "expected a whole number of at most 64 bits")
        return whole
    number = float(field)
    if not isfinite(number):
        raise ValueProblem("value", "expected a number that 64 bits can hold")
    return number


def _boolean(field: str) -> bool:
    value = _BOOLEANS.get(field.lower())
    if value is None:
        raise ValueProblem("value", "expected true or false")
    return value


def _date(field: str, timezone: ZoneInfo) -> str:
    try:
        return _iso(field, timezone)
    except (ValueError, OverflowError, OSError):
        # The calendar has no such day, or the platform's clock does not reach it.
        raise ValueProblem("value", "expected a date as ISO 8601 or as milliseconds since the epoch") from None


def _iso(field: str, timezone: ZoneInfo) -> str:
    if _EPOCH_MS.fullmatch(field):
        return _utc(datetime.fromtimestamp(int(field) / 1000, UTC))
    if _DATE.fullmatch(field):
        return date.fromisoformat(field).isoformat()
    if not _DATE_TIME.fullmatch(field):
        raise ValueError(field)
    moment = datetime.fromisoformat(field.replace(",", "."))
    return _utc(moment if moment.tzinfo else moment.replace(tzinfo=timezone))


def _utc(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


def _items(field: str) -> list[Scalar]:
    try:
        items = _array.decode(field)
    except (msgspec.DecodeError, UnicodeError):
        raise ValueProblem("value", 'expected an array such as ["a", "b"] or [1, 2]') from None
    if len(items) > MAX_ARRAY_ITEMS:
        raise ValueProblem("value", f"expected at most {MAX_ARRAY_ITEMS} items")
    if any(isinstance(item, float) and not isfinite(item) for item in items):
        raise ValueProblem("value", "expected numbers that 64 bits can hold")
    if any(isinstance(item, int) and item not in _INT64 for item in items):
        raise ValueProblem("value", "expected whole numbers of at most 64 bits")
    return items
