"""
Rules for an object's key and headers: those of S3, of Azure and of a directory together. Pure.
"""

import re
from collections.abc import Mapping
from mimetypes import MimeTypes
from typing import Final

from shared.errors import InvalidError

KEY_BYTES: Final = 1024
"""The longest key of S3 and of Azure."""


def check_key(key: str) -> str:
    """Return the key, or raise `InvalidError`. A key that one store takes, every store takes."""
    try:
        size = len(key.encode())
    except UnicodeEncodeError:
        raise InvalidError("expected a key that is UTF-8", field="key") from None
    if not 0 < size <= KEY_BYTES:
        raise InvalidError(f"expected a key of 1 to {KEY_BYTES} bytes", field="key")
    if any(part in {"", ".", ".."} for part in key.split("/")):
        raise InvalidError("expected a key without empty parts, `.` or `..`", field="key")
    if re.search(r"[\x00-\x1f\x7f]", key) or re.search(r"#\d+$", key):
        raise InvalidError("expected a key without control characters, and not ending in # and digits", field="key")
    return key


def content_type_of(key: str) -> str:
    """The content type that a name implies, for a store that keeps none."""
    guessed, encoding = _TYPES.guess_type(key)
    return "application/gzip" if encoding == "gzip" else guessed or "application/octet-stream"


_TYPES: Final = MimeTypes(filenames=())
for _extension, _type in {
    ".webp": "image/webp",
    ".woff": "font/woff",
    ".woff2": "font/woff2",
    ".ttf": "font/ttf",
    ".otf": "font/otf",
    ".xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
}.items():
    _TYPES.add_type(_type, _extension)


def folder_of(prefix: str) -> str | None:
    """A prefix as a folder, without the slash at its end; None for no folder."""
    folder = prefix.rstrip("/")
    return check_key(folder) if folder else None


def headers_of(
    content_type: str, cache_control: str | None, content_disposition: str | None, metadata: Mapping[str, str] | None
) -> dict[str, str]:
    """
    The headers of an object. Raises `InvalidError`: obstore panics on what cannot be a header. Names are those that
    Azure takes, which is the stricter one.
    """
    for name in metadata or {}:
        if not re.fullmatch(r"[a-z][a-z0-9_]{0,63}", name):
            raise InvalidError("expected a name of lower-case letters, digits and _", field=f"metadata.{name}")
    headers = {"Content-Type": content_type, "Cache-Control": cache_control, "Content-Disposition": content_disposition}
    attributes = {name: value for name, value in (headers | dict(metadata or {})).items() if value is not None}
    for name, value in attributes.items():
        if not value.isascii() or not value.isprintable():
            raise InvalidError("expected printable ASCII", field=name)
    return attributes
