"""
What every connector's form is checked for before anybody is asked: a prefix, addresses, and values of a known shape.
"""

import re
from typing import Final
from urllib.parse import urlsplit

from shared.errors import InvalidError
from shared.private_addresses import refuse_private_host

PREFIX: Final = re.compile(r"(?:[A-Za-z0-9_-][A-Za-z0-9._-]*/)*[A-Za-z0-9_-][A-Za-z0-9._-]*")
PREFIX_CHARS: Final = 256
URL_PATH: Final = re.compile(r"[A-Za-z0-9._~/-]*")


def expect(pattern: re.Pattern[str], value: str, field: str, expected: str) -> None:
    """Raises `InvalidError` when a value is not as expected; the value itself stays out of the message."""
    if not pattern.fullmatch(value):
        raise InvalidError(f"expected {expected}", field=field)


def check_prefix(prefix: str) -> None:
    """A prefix that keys, paths and URLs can all begin with, or none. Raises `InvalidError`."""
    if prefix and (len(prefix) > PREFIX_CHARS or not PREFIX.fullmatch(prefix)):
        raise InvalidError(
            f"expected up to {PREFIX_CHARS} of letters, digits, '.', '_', '-' and '/', no part beginning with '.'",
            field="prefix",
        )


def check_url(url: str, field: str, *, allow_private: bool, path: bool) -> None:
    """
    An address without credentials, query and fragment, or none; with a `path` where one may be.

    Raises:
        InvalidError: It is none, or not HTTPS or inside our own network where that is not allowed.
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
