"""
Checks of fields that several connectors have: prefixes, URLs, and values of a known pattern. No I/O.
"""

import re
from typing import Final

from shared.errors import InvalidError
from shared.outgoing import urls

PREFIX: Final = re.compile(r"(?:[A-Za-z0-9_-][A-Za-z0-9._-]*/)*[A-Za-z0-9_-][A-Za-z0-9._-]*")
PREFIX_CHARS: Final = 256
URL_PATH: Final = re.compile(r"[A-Za-z0-9._~/-]*")


def expect(pattern: re.Pattern[str], value: str, field: str, expected: str) -> None:
    """Raise `InvalidError` if a value does not match. The message does not hold the value."""
    if not pattern.fullmatch(value):
        raise InvalidError(f"expected {expected}", field=field)


def check_prefix(prefix: str) -> None:
    """Check a prefix, which may be empty: keys, paths and URLs must be able to begin with it. Raises `InvalidError`."""
    if prefix and (len(prefix) > PREFIX_CHARS or not PREFIX.fullmatch(prefix)):
        raise InvalidError(
            f"expected up to {PREFIX_CHARS} of letters, digits, '.', '_', '-' and '/', no part beginning with '.'",
            field="prefix",
        )


def check_url(url: str, field: str, *, allow_private: bool, path: bool) -> None:
    """
    Check a URL, which may be empty: it has no credentials, query or fragment, and a path only where `path` allows one.

    Raises:
        InvalidError: It is no such URL; or, unless `allow_private`, not HTTPS or in a private network.
    """
    if not url:
        return
    form = "https://host" + ("[:port][/path]" if path else "[:port]")
    parts = urls.check_url(url, field, allow_private=allow_private, form=form)
    plain = f"{parts.scheme}://{parts.netloc}{parts.path}" == url
    if not plain or (parts.path and not path) or not URL_PATH.fullmatch(parts.path):
        raise InvalidError(f"expected {form}", field=field)
