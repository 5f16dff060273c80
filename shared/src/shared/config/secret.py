"""
Type of a secret value: never printed, and `***` in an answer of HTTP.

A configuration Struct types a field as `Secret`. `shared.config.secret_store` alone encrypts it. Code that reveals one
registers it with `shared.runtime.logs.redactor` first. Nothing here logs.
"""

import hmac
from typing import Any, NoReturn, TypeVar

from msgspec import Struct

T = TypeVar("T")
S = TypeVar("S", bound=Struct)

MASK = "***"
SECRET_CHARACTERS = 32 << 10
"""A chain of certificates with its key takes some 10 KB."""


class Secret:
    """
    String that is printed only by `reveal`.

    Comparing takes the same time wherever two secrets differ. It cannot be pickled: it would travel in the clear.
    """

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """The string itself."""
        return self._value

    def __repr__(self) -> str:
        return MASK

    def __format__(self, _: str) -> str:
        return MASK

    def __bool__(self) -> bool:
        return bool(self._value)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        return hmac.compare_digest(self._value.encode(), other._value.encode())

    def __hash__(self) -> int:
        return hash((Secret, self._value))

    def __copy__(self) -> "Secret":
        return self

    def __deepcopy__(self, _: object) -> "Secret":
        return self

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Secret cannot be pickled")


def dec_hook(type_: type, value: Any) -> Any:
    """Decode a `Secret` from what a client sends. `***` is refused, because it stands for a stored one."""
    if type_ is not Secret:
        raise NotImplementedError(type_)
    if isinstance(value, Secret):
        return value
    if not isinstance(value, str):
        raise ValueError("Expected `str`")
    if len(value) > SECRET_CHARACTERS:
        raise ValueError(f"Expected a secret of at most {SECRET_CHARACTERS} characters, got {len(value)}")
    if value == MASK:
        raise ValueError(f"Expected the secret itself: there is no stored one that {MASK} could stand for")
    return Secret(value)


def enc_hook_masked(value: Any) -> Any:
    """Encode a `Secret` as `***`, one that is empty as an empty string."""
    if isinstance(value, Secret):
        return MASK if value else ""
    raise NotImplementedError(type(value))


def merge_masked(new: dict[str, Any], old: Struct | None) -> dict[str, Any]:
    """
    The body of a `PUT` with the secrets that it leaves out, or sends as `***`, taken over from the old value.

    Looks into Structs inside the old value, not into lists, whose entries have no names. A value of
    another tag is another thing and keeps nothing.
    """
    if old is None:
        return new
    config = old.__struct_config__
    if config.tag_field is not None and new.get(config.tag_field, config.tag) != config.tag:
        return new
    merged = dict(new)
    for attribute, field in zip(old.__struct_fields__, old.__struct_encode_fields__, strict=True):
        kept = getattr(old, attribute)
        if isinstance(kept, Secret) and merged.get(field, MASK) == MASK:
            merged[field] = kept
        elif isinstance(kept, Struct) and isinstance(merged.get(field), dict):
            merged[field] = merge_masked(merged[field], kept)
    return merged
