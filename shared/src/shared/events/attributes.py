"""
Checks of the attributes of an event, which stay the JSON text that was sent.

msgspec passes over an attribute without making it, and checks all of its JSON but the levels and the UTF-8.
"""

import re
from collections.abc import Generator, Iterator
from typing import Final

import msgspec

from shared.contracts.messages import ATTRIBUTE_LEVELS, NAME_CHARS
from shared.errors import InvalidError
from shared.events.splitting import object_members

OBJECT: Final = ord("{")
LINE_FEED: Final = ord("\n")
CARRIAGE_RETURN: Final = ord("\r")
"""As numbers, because `10 in data` costs a tenth of `b"\\n" in data`."""
_LIST: Final = ord("[")
FEW_BRACKETS: Final = ATTRIBUTE_LEVELS + 1
"""Opening brackets that cannot nest too deep: those of the attributes themselves, and a level each."""
LOCATED_BYTES: Final = 64 << 10
"""The largest event in which a fault of the JSON is looked for."""
_MEMBERS_OF: Final = {"": ("attributes", "user", "identities"), "user": ("attributes",)}
_BRACKETS = re.compile(rb'(?:[^"\[\]{}]{1,200}+|"[^"\\]{0,200}+"){0,500}+([\[{]{1,64}+|[\]}]{1,64}+|"|)')
_STRING = re.compile(rb'(?:[^"\\]{1,200}+|\\.){0,500}+("?)', re.DOTALL)
_STEPS: Final = 4
_PAIR_BYTES: Final = len("\\ud83d\\ude00")

_raw = msgspec.json.Decoder(msgspec.Raw)


def are_shallow(attributes: bytes) -> bool:
    """Whether JSON is an object with so few brackets that `check_steps` finds no fault."""
    # Few have a list, and the search for a byte by its number costs a tenth of counting.
    lists = _LIST in attributes and attributes.count(b"[")
    return attributes[0] == OBJECT and attributes.count(b"{") + lists <= FEW_BRACKETS


def check_steps(attributes: bytes, field: str) -> Iterator[None]:
    """
    Check attributes, which are JSON, in steps of less than a millisecond.

    Raises:
        InvalidError: They are no object, or one nests too deep. Names the attribute.
    """
    if attributes[0] != OBJECT:
        raise InvalidError("expected an object", field=field)
    if are_shallow(attributes) or not (yield from _nests_deeper(attributes, FEW_BRACKETS)):
        return
    for name, value in object_members(attributes):
        if (yield from _nests_deeper(value, ATTRIBUTE_LEVELS)):
            field = f"{field}.{_shortened(name)}"
            break
    raise InvalidError(f"expected at most {ATTRIBUTE_LEVELS} levels of objects and lists", field=field)


def faulty_field(event: bytes) -> str | None:
    """The field in which the JSON of an event is malformed: `attributes.cart`. None where none can be named."""
    if len(event) > LOCATED_BYTES:
        return None
    path = ""
    while True:
        fault = next(((name, value) for name, value in object_members(event) if not _is_json(value)), None)
        if fault is None:
            return path or None
        name, event = fault
        inner = name in _MEMBERS_OF.get(path, ())
        path = f"{path}.{_shortened(name)}" if path else _shortened(name)
        if not inner:
            return path or None


def describe_fault(event: bytes, error: msgspec.DecodeError | UnicodeDecodeError | RecursionError) -> str:
    """The words for an event that msgspec refuses as JSON, or that is no UTF-8."""
    if not event:
        return "expected an event, found nothing"
    if isinstance(error, RecursionError):
        return f"expected at most {ATTRIBUTE_LEVELS} levels of objects and lists"
    if isinstance(error, UnicodeDecodeError):
        return f"expected UTF-8, found 0x{event[error.start]:02x} (byte {error.start})"
    try:
        # msgspec takes half a surrogate pair near the end for a text that is cut there.
        _raw.decode(event + b" " * _PAIR_BYTES)
    except msgspec.DecodeError as padded:
        # Not kept in a variable: its traceback has this frame, and 50,000 such cycles are a long collection.
        return f"expected JSON: {padded}"
    return f"expected JSON: {error}"


def _is_json(value: bytes) -> bool:
    try:
        if not value.isascii():
            value.decode()
        _raw.decode(value)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    return True


def _shortened(name: str) -> str:
    return name if len(name) <= NAME_CHARS else f"{name[:NAME_CHARS]}…"


def _nests_deeper(data: bytes, levels: int) -> Generator[None, None, bool]:
    at = depth = steps = 0
    in_string = False
    while at < len(data):
        steps += 1
        if steps % _STEPS == 0:
            yield
        found = (_STRING if in_string else _BRACKETS).match(data, at)
        assert found is not None
        at, mark = found.end(), found[1]
        if mark == b'"':
            in_string = not in_string
        elif mark:
            depth += len(mark) if mark[0] in b"[{" else -len(mark)
            if depth > levels:
                return True
    return False
