"""
The fixed tree of an app and the names in it. Pure: a client's path becomes a folder and a name, or is refused.

    /           push files                    *.csv, *.txt
    /Profile    profile files                 *.txt
    /errors     error reports, result files   read-only
    /reports    the app's reports             read-only

No part of a path ever reaches the operating system: files lie in the spool under ids of our own.
"""

import fnmatch
import re
import unicodedata
from functools import lru_cache
from typing import Literal

from msgspec import Struct

from shared.errors import DeniedError, InvalidError, NotFoundError

Folder = Literal["", "Profile", "errors", "reports"]

FOLDERS: tuple[Folder, ...] = ("Profile", "errors", "reports")
WRITABLE: tuple[Folder, ...] = ("", "Profile")
MAX_NAME_BYTES = 200
MAX_PATH_BYTES = 4096

_TEMPORARY = ("*.filepart", "*.part", "*.tmp", "*.partial", "*.uploading", ".in.*", "~*", ".*")
"""Names under which clients upload before they rename: WinSCP, rclone, Nextcloud, lftp, Data Factory."""
_AGAIN = re.compile(r"\.resend\d*\.(?:csv|txt)$")
_CANDIDATES: dict[Folder, tuple[tuple[str, ...], Literal["push", "profile"]]] = {
    "": ((".csv", ".txt"), "push"),
    "Profile": ((".txt",), "profile"),
}


COMPANIONS = {"done_marker": ".done", "sha256": ".sha256"}
"""Suffixes of marker and checksum files, appended to the name of the file they belong to."""


class Place(Struct, frozen=True):
    """A file of an app, by the name its customer knows. Hashable."""

    app_key: str
    folder: Folder
    name: str


class Location(Struct, frozen=True):
    """The target of a path: a folder of the tree, and a file in it, or the folder itself (`name` is empty)."""

    folder: Folder
    name: str = ""

    @property
    def path(self) -> str:
        return "/" + "/".join(part for part in (self.folder, self.name) if part)


def locate(path: bytes) -> Location:
    """
    Resolve a client's path. `..` climbs, never above the root, as in a chroot; a relative path starts at the root.

    Raises:
        InvalidError: The path is not UTF-8, too long, or holds a character that no name may have.
        NotFoundError: There is no such folder.
    """
    if len(path) > MAX_PATH_BYTES:
        raise InvalidError(f"expected a path of at most {MAX_PATH_BYTES} bytes")
    parts: list[str] = []
    for raw in path.split(b"/"):
        part = _name(raw)
        if part == "..":
            parts = parts[:-1]
        elif part not in {"", "."}:
            parts.append(part)
    match parts:
        case []:
            return Location("")
        case [name]:
            folder = next((folder for folder in FOLDERS if folder == name), None)
            return Location("", name) if folder is None else Location(folder)
        case [first, name]:
            for folder in FOLDERS:
                if folder == first:
                    return Location(folder, name)
    raise NotFoundError("there is no such folder")


def place_of(app_key: str, location: Location) -> Place:
    """Return the file at a location. Raises `DeniedError` for a folder."""
    if not location.name:
        raise DeniedError("this is a folder")
    return Place(app_key, location.folder, location.name)


def writable_place(app_key: str, location: Location) -> Place:
    """Return the file at a location that customers may write to. Raises `DeniedError` for any other."""
    if location.folder not in WRITABLE:
        raise DeniedError(f"/{location.folder} is read-only")
    return place_of(app_key, location)


@lru_cache(maxsize=4096)
def kind_of(found: Place) -> Literal["push", "profile"] | None:
    """
    Return the kind of a file by its name; None for a name that is never processed. Called for all waiting files, often.
    """
    name = found.name.lower()
    if any(fnmatch.fnmatchcase(name, pattern) for pattern in _TEMPORARY):
        return None
    endings, kind = _CANDIDATES.get(found.folder, ((), "push"))
    return kind if name.endswith(endings) and endings else None


def kind_in(folder: Folder) -> Literal["push", "profile"]:
    """Return the kind of file that a folder is for."""
    return "profile" if folder == "Profile" else "push"


def is_sent_again(name: str) -> bool:
    """Return whether a name asks to process content again that came before: `push.resend.csv`, `push.resend2.csv`."""
    return _AGAIN.search(name.lower()) is not None


def _name(raw: bytes) -> str:
    if len(raw) > MAX_NAME_BYTES:
        raise InvalidError(f"expected a name of at most {MAX_NAME_BYTES} bytes")
    try:
        name = raw.decode()
    except UnicodeDecodeError:
        raise InvalidError("expected a name in UTF-8") from None
    # Cc also has NUL and the C1 controls; Zl and Zp break lines in a report or a log.
    if "\\" in name or any(unicodedata.category(char) in {"Cc", "Zl", "Zp"} for char in name):
        raise InvalidError("expected a name without control characters and backslashes")
    return name
