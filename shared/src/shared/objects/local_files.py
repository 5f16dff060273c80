"""
Files below one directory, written so that they are whole or absent and survive a power cut. Knows no object store.

A file is written under a temporary name in the folder `.parts`, synced and moved to its path; then the directory is
synced. A name that ends in `#` and digits is temporary. Files that a crash leaves behind are never listed. They are
removed when the directory is opened an hour later.
"""

import errno
import os
import secrets
import shutil
import time
from pathlib import Path
from typing import IO

from shared.errors import DeniedError, InvalidError, MillraceError, UnavailableError

Data = bytes | bytearray | memoryview
COPY_BYTES = 1 << 20
ABANDONED_S = 3600.0
"""A temporary file of this age has no writer any more."""


class LocalFiles:
    """
    Files below one directory. All calls block: call them from a thread.

    Args:
        root: The directory; made when it is not there.

    Raises:
        DeniedError: The directory cannot be made or written to.
    """

    def __init__(self, root: Path) -> None:
        try:
            root.mkdir(parents=True, exist_ok=True)
            self.root = root.resolve()
            self._parts = self.root / ".parts"
            self._parts.mkdir(exist_ok=True)
            self._sweep()
        except OSError as error:
            raise DeniedError(f"the directory cannot be made: {error.strerror}", field="root") from None

    def path(self, key: str) -> Path:
        """
        Path of the object of a checked key.

        Raises:
            DeniedError: A symbolic link on the way leads out of the directory.
        """
        path = self.root / key
        if not path.resolve().is_relative_to(self.root):
            raise DeniedError("the key leads out of the directory")
        return path

    def ping(self) -> None:
        """Check the directory. Raises `UnavailableError` when nothing can be written."""
        if not os.access(self.root, os.W_OK | os.X_OK):
            raise UnavailableError("the directory of local objects is gone or cannot be written to")

    def write(self, key: str, data: Data | IO[bytes], *, replace: bool) -> bool:
        """
        Write a whole file, from bytes or from a reader; it is on the disk when this returns. False: it was there, and
        is not to be replaced.

        Raises:
            MillraceError: It cannot be written.
        """
        path = self.path(key)
        try:
            self._make_directory(path.parent)
            if not replace and path.exists():
                _sync(path.parent)
                return False
            return self._place(path, data, replace)
        except OSError as error:
            raise _written_error(error) from error

    def _place(self, path: Path, data: Data | IO[bytes], replace: bool) -> bool:
        temporary = self._parts / f"part#{secrets.randbits(64)}"
        try:
            with temporary.open("xb") as file:
                if isinstance(data, Data):
                    file.write(data)
                else:
                    shutil.copyfileobj(data, file, COPY_BYTES)
                file.flush()
                os.fsync(file.fileno())
            if replace:
                temporary.replace(path)
                return True
            path.hardlink_to(temporary)
            return True
        except FileExistsError:
            return False
        finally:
            temporary.unlink(missing_ok=True)
            # Also when somebody else was faster: that file may not be in the synced directory yet.
            _sync(path.parent)

    def _sweep(self) -> None:
        for part in self._parts.iterdir():
            if part.stat().st_mtime < time.time() - ABANDONED_S:
                part.unlink(missing_ok=True)

    def _make_directory(self, directory: Path) -> None:
        missing = []
        while not directory.is_dir() and directory != self.root:
            missing.append(directory)
            directory = directory.parent
        for new in reversed(missing):
            new.mkdir(exist_ok=True)
            _sync(new.parent)


def _sync(directory: Path) -> None:
    number = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def _written_error(error: OSError) -> MillraceError:
    if isinstance(error, PermissionError):
        return DeniedError("the directory of local objects cannot be written to")
    if isinstance(error, IsADirectoryError | NotADirectoryError | FileExistsError):
        return InvalidError("one key is the folder of another")
    if error.errno == errno.ENAMETOOLONG:
        return InvalidError("a part of the key is too long for a file name")
    return UnavailableError(f"the object cannot be written: {error.strerror}")
