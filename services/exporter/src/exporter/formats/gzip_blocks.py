"""
Gzip of a text that arrives in pieces: the same text gives the same bytes, however it is split.

The output of gzip depends on how the input is split into writes, so it gets blocks of one fixed size. Its header holds
no time and no name. Another version of isal may give other bytes, so a plan keeps the hash of its file.
"""

import hashlib
from typing import BinaryIO, Final

from isal import isal_zlib

LEVEL: Final = 1
"""isal's level 1: 4 times stdlib level 1 in speed, and 9 % smaller (measured on click rows)."""
GZIP_WINDOW: Final = 31
"""zlib's window bits for 32 KiB with a gzip header and trailer."""
BLOCK_BYTES: Final = 256 * 1024


class GzipBlocks:
    """Writes to `out`, a binary file. `size_bytes` counts the bytes written there; it lags by up to one block."""

    def __init__(self, out: BinaryIO) -> None:
        self._out = out
        self._gzip = isal_zlib.compressobj(LEVEL, isal_zlib.DEFLATED, GZIP_WINDOW)
        self._hash = hashlib.sha256()
        self._waiting = bytearray()
        self.size_bytes = 0

    def write(self, data: bytes) -> None:
        """Append a piece."""
        self._waiting += data
        whole = len(self._waiting) - len(self._waiting) % BLOCK_BYTES
        for start in range(0, whole, BLOCK_BYTES):
            self._emit(self._gzip.compress(self._waiting[start : start + BLOCK_BYTES]))
        del self._waiting[:whole]

    def finish(self) -> str:
        """Write the rest. Returns the SHA-256 of the file in hexadecimal digits. Nothing may be written afterwards."""
        self._emit(self._gzip.compress(self._waiting))
        self._emit(self._gzip.flush())
        return self._hash.hexdigest()

    def _emit(self, block: bytes) -> None:
        self._out.write(block)
        self._hash.update(block)
        self.size_bytes += len(block)
