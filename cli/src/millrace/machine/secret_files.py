"""Files that hold one secret each: made once, readable by their owner alone, never printed."""

import os
from collections.abc import Callable
from pathlib import Path

from shared.errors import InvalidError


def read_or_make(path: Path, make: Callable[[], str]) -> str:
    """
    The secret in `path`, which `make` provides the first time.

    Two processes that start at once agree on one secret. Raises `InvalidError` when the file is empty or unreadable.
    """
    make_private(path.parent)
    if not path.exists():
        fresh = path.with_name(f".{path.name}.{os.getpid()}")
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(make() + "\n")
        try:
            # A link fails where a rename would replace, so that the first of two wins, and with its whole content.
            os.link(fresh, path)
        except FileExistsError:
            pass
        finally:
            fresh.unlink()
    return read_secret(path)


def read_secret(path: Path) -> str:
    """The secret in `path`. Raises `InvalidError`, which names the file, when it has none."""
    try:
        secret = path.read_text().strip()
    except OSError as error:
        raise InvalidError(f"cannot be read: {error.strerror}", field=str(path)) from None
    except UnicodeDecodeError:
        raise InvalidError("expected a secret, found bytes that are no text", field=str(path)) from None
    if not secret:
        raise InvalidError("expected a secret, found an empty file", field=str(path))
    return secret


def make_private(folder: Path) -> None:
    """
    Make a folder, and those above it, for their owner alone, where there are none.

    Raises:
        InvalidError: There can be no such folder.
    """
    try:
        # `parents=True` would make those above with the usual mode.
        for missing in reversed([above for above in folder.parents if not above.exists()]):
            missing.mkdir(mode=0o700, exist_ok=True)
        folder.mkdir(mode=0o700, exist_ok=True)
    except FileExistsError:
        raise InvalidError("expected a folder, found a file", field=str(folder)) from None
    except OSError as error:
        raise InvalidError(f"the folder cannot be made: {error.strerror}", field=str(folder)) from None
