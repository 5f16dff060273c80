"""
Checks of fields that several connectors have: prefixes, URLs, and values of a known pattern. No I/O.
"""

import re
from typing import Final
from urllib.parse import urlsplit

from shared.errors import InvalidError
from shared.outgoing.addresses import refuse_private_host

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
    wrong = InvalidError("expected https://host" + ("[:port][/path]" if path else "[:port]"), field=field)
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        raise wrong from None
    plain = f"{parts.scheme}://{parts.netloc}{parts.path}" == url and "@" not in parts.netloc
    if not host or not plain or (parts.path and not path) or not URL_PATH.fullmatch(parts.path):
        raise wrong
    if parts.scheme not in ({"https", "http"} if allow_private else {"https"}):
        raise wrong
    if not allow_private:
        refuse_private_host(url, field)
