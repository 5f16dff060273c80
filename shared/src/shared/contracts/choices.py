"""
Choices that a type leaves at a path: the values of a `Literal` or an enumeration, and the tags of a union of Structs.

msgspec names the value that is none of them and not what was expected (`Invalid enum value 'EVNT'`), so errors are
completed here. A path is as msgspec writes it: `$.destination.type`, `$.rules[0]`, `$.names[...]` in a mapping.
"""

import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any

from msgspec import inspect

STEP = re.compile(r"\.([^.\[\]]+)|\[([^\]]*)\]")
KEY = "`key` in "
"""The beginning of a path to the key of a mapping."""
NONE_OF_THEM = re.compile(r"Invalid (?:enum )?value (.+)", re.DOTALL)
WRONG_TYPE = re.compile(r"Expected `[^`]*`(?:, got (`[^`]*`))?")
MISSING = re.compile(r"Object missing required field `([^`]+)`")
FOUND_CHARS = 64
"""Characters of the wrong value that an error repeats."""


def with_choices(message: str, path: str, kind: Any) -> str:
    """msgspec's sentence with the choices that `kind` leaves at the path, where it leaves any."""
    if missing := MISSING.fullmatch(message):
        expected = choices_at(kind, f"{path.strip('`')}.{missing[1]}")
        return f"{message}: expected {either(expected)}" if expected else message
    wrong = NONE_OF_THEM.fullmatch(message) or WRONG_TYPE.fullmatch(message)
    if wrong is None or not (expected := choices_at(kind, path)):
        return message
    found = wrong[1] or "another type"
    return f"Expected {either(expected)}, got {found if len(found) <= FOUND_CHARS else f'{found[:FOUND_CHARS]}…'}"


def either(choices: Sequence[str]) -> str:
    """The choices as a sentence has them: `a, b or c`."""
    return " or ".join(", ".join(part) for part in (choices[:-1], choices[-1:]) if part)


def choices_at(kind: Any, path: str) -> tuple[str, ...]:
    """The choices of a type at a path, by name; none where other values may stand there too."""
    whole, at_key = path.removeprefix(KEY).strip("`"), path.startswith(KEY)
    steps = STEP.findall(whole.removeprefix("$"))
    found = list(_alternatives(_type_info(kind)))
    tags: list[str] = []
    for name, _ in steps:
        parents, found, tags = found, [], []
        for parent in parents:
            found += [inner for stepped in _inside(parent, name) for inner in _alternatives(stepped)]
            if isinstance(parent, inspect.StructType) and name and name == parent.tag_field:
                tags.append(str(parent.tag))
    if at_key:
        found = [key for one in found if isinstance(one, inspect.DictType) for key in _alternatives(one.key_type)]
    choices = list(tags)
    for one in found:
        if isinstance(one, inspect.LiteralType):
            choices += [str(value) for value in one.values]
        elif isinstance(one, inspect.EnumType):
            choices += [str(member.value) for member in one.cls]
        elif isinstance(one, inspect.NoneType):
            choices.append("null")
        else:
            return ()
    return tuple(dict.fromkeys(choices)) if choices != ["null"] else ()


@lru_cache(maxsize=256)
def _type_info(kind: Any) -> inspect.Type:
    return inspect.type_info(kind)


def _alternatives(found: inspect.Type) -> Iterator[inspect.Type]:
    if isinstance(found, inspect.Metadata):
        yield from _alternatives(found.type)
    elif isinstance(found, inspect.UnionType):
        for one in found.types:
            yield from _alternatives(one)
    else:
        yield found


def _inside(found: inspect.Type, name: str) -> Iterator[inspect.Type]:
    """Types at one step inside a type: at the field `name`, or, where it is empty, at an item or a value."""
    if name:
        if isinstance(found, inspect.StructType):
            yield from (field.type for field in found.fields if field.encode_name == name)
    elif isinstance(found, inspect.ListType | inspect.VarTupleType | inspect.SetType | inspect.FrozenSetType):
        yield found.item_type
    elif isinstance(found, inspect.DictType):
        yield found.value_type
