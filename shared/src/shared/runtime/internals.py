"""
Check of a library's private names that we use. Each library has one file that lists them and calls this at start.
"""

from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

from shared.errors import UnavailableError


def refuse_moved_names(library: str, names: Mapping[str, bool]) -> None:
    """
    Refuse a release of a library that has moved a private name.

    Args:
        library: Its distribution, such as `nats-py`.
        names: Every private name that we use, and whether it is there.

    Raises:
        UnavailableError: One is not there; the message names library, version and names.
    """
    moved = [name for name, found in names.items() if not found]
    if moved:
        raise UnavailableError(
            f"{library} {version(library)} has moved what Millrace uses of its internals: {', '.join(moved)}. "
            "Install the version in requirements.lock"
        )


def mentions(function: Any, *names: str) -> bool:
    """Return whether the code of a function uses these attributes or texts. For what only an instance has."""
    code = getattr(function, "__code__", None)
    return code is not None and all(name in code.co_names or name in code.co_consts for name in names)
