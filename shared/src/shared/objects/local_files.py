"""
Files below one directory, written so that they are whole or absent and survive a power cut. Knows no object store.

A file is written under a temporary name in the folder `.parts`, synced and moved to its path; then the directory is
synced. A name that ends in `#` and digits is temporary. Files that a crash leaves behind are never listed. They are
removed when the directory is opened an hour later. Every step names a file by its open directory, and no symbolic link
is followed: a link that somebody makes meanwhile leads nowhere else.
"""

import errno
import os
import secrets
import shutil
import stat
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from shared.errors import DeniedError, InvalidError, MillraceError, UnavailableError

Data = bytes | bytearray | memoryview
COPY_BYTES = 1 << 20
ABANDONED_S = 3600.0
"""A temporary file of this age has no writer any more."""
PARTS = ".parts"
DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


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
            self._parts = self.root / PARTS
            self._parts.mkdir(exist_ok=True)
            self._sweep()
        except OSError as error:
            raise DeniedError(f"the directory cannot be made: {error.strerror}", field="root") from None

    def path(self, key: str) -> Path:
        """
        Path of the object of a checked key.

        Raises:
            DeniedError: A symbolic link is on the way.
        """
        path = self.root / key
        if path.resolve() != path:
            raise _link_error()
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
            with self._open_directory(path.parent.relative_to(self.root).parts) as directory:
                if not replace and _is_there(path.name, directory):
                    os.fsync(directory)
                    return False
                return self._place(path.name, directory, data, replace)
        except OSError as error:
            raise _written_error(error) from error

    def _place(self, name: str, directory: int, data: Data | IO[bytes], replace: bool) -> bool:
        temporary = f"part#{secrets.randbits(64)}"
        with self._open_directory([PARTS]) as parts:
            try:
                with os.fdopen(os.open(temporary, NEW_FILE, 0o666, dir_fd=parts), "wb") as file:
                    if isinstance(data, Data):
                        file.write(data)
                    else:
                        shutil.copyfileobj(data, file, COPY_BYTES)
                    file.flush()
                    os.fsync(file.fileno())
                if replace:
                    os.rename(temporary, name, src_dir_fd=parts, dst_dir_fd=directory)
                else:
                    os.link(temporary, name, src_dir_fd=parts, dst_dir_fd=directory, follow_symlinks=False)
                return True
            except FileExistsError:
                return False
            finally:
                with suppress(FileNotFoundError):
                    os.unlink(temporary, dir_fd=parts)
                # Also when somebody else was faster: that file may not be in the synced directory yet.
                os.fsync(directory)

    @contextmanager
    def _open_directory(self, parts: Sequence[str]) -> Iterator[int]:
        """The number of an open directory below the root, made where it is missing."""
        opened = os.open(self.root, DIRECTORY)
        try:
            for part in parts:
                below = _opened(part, opened)
                os.close(opened)
                opened = below
            yield opened
        finally:
            os.close(opened)

    def _sweep(self) -> None:
        for part in self._parts.iterdir():
            # Another writer ends its own meanwhile.
            with suppress(FileNotFoundError):
                if part.stat().st_mtime < time.time() - ABANDONED_S:
                    part.unlink()


def _opened(name: str, directory: int) -> int:
    """Open a directory in another one, and make it first where it is missing."""
    try:
        return os.open(name, DIRECTORY, dir_fd=directory)
    except FileNotFoundError:
        with suppress(FileExistsError):
            os.mkdir(name, dir_fd=directory)
        os.fsync(directory)
        return os.open(name, DIRECTORY, dir_fd=directory)
    except NotADirectoryError:
        if stat.S_ISLNK(os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode):
            raise _link_error() from None
        raise


def _is_there(name: str, directory: int) -> bool:
    try:
        os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def _link_error() -> DeniedError:
    return DeniedError("a symbolic link is on the way to the key, and none is followed")


def _written_error(error: OSError) -> MillraceError:
    if isinstance(error, PermissionError):
        return DeniedError("the directory of local objects cannot be written to")
    if isinstance(error, IsADirectoryError | NotADirectoryError | FileExistsError):
        return InvalidError("one key is the folder of another")
    if error.errno == errno.ENAMETOOLONG:
        return InvalidError("a part of the key is too long for a file name")
    return UnavailableError(f"the object cannot be written: {error.strerror}")
