"""
Locks on files that replicas share. A lock is held until its handle is closed.

They are Linux's open file description locks (`F_OFD_SETLK`, fcntl(2)). They exclude other processes, other machines
(NFS 4, CephFS and the like) and other handles of this process alike. The kernel releases them with the process, however
it ends. Asking whether a file is locked takes no lock, so it never makes another attempt fail.
"""

import errno
import fcntl
import os
import struct
from pathlib import Path

_FLOCK = struct.Struct("hhqqi4x")
"""`struct flock` on 64 bits: type, whence, start, length (0: all of it), pid."""


def try_lock(handle: int) -> bool:
    """Take the lock of a file that is open for writing; False while another handle has it. Does not wait."""
    try:
        fcntl.fcntl(handle, fcntl.F_OFD_SETLK, _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0))
    except OSError as error:
        if error.errno in (errno.EAGAIN, errno.EACCES):
            return False
        raise
    return True


def is_locked(handle: int) -> bool:
    """Return whether another handle has the lock of the file."""
    asked = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
    kind, *_ = _FLOCK.unpack(fcntl.fcntl(handle, fcntl.F_OFD_GETLK, asked))
    return bool(kind != fcntl.F_UNLCK)


def try_lock_path(path: Path) -> int | None:
    """Return a handle that holds the lock of a file, which is made if missing; None while another handle has it."""
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    locked = False
    try:
        locked = try_lock(handle)
    finally:
        if not locked:
            os.close(handle)
    return handle if locked else None
