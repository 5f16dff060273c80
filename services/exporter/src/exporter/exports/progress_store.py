"""
One export's progress in `PLANS`, changed by whoever read it last and by nobody else.

Every write names the revision that was read. A process that was overtaken by another notices at its next write and
leaves off, so that two never move one cursor; the objects they both may write are the same, because the plan is.
"""

from collections.abc import Callable

import msgspec

from exporter.exports.progress import ExportProgress
from shared.errors import ConflictError, UnavailableError
from shared.messaging.kv import KeyValueStore

_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(ExportProgress)


class ClaimedElsewhereError(ConflictError):
    """Another process works on this export."""


class ProgressStore:
    """The progress of one export, as this process knows it. `progress` is None until `load` has found one."""

    def __init__(self, store: KeyValueStore, key: str) -> None:
        self._store = store
        self._key = key
        self._revision = 0
        self._progress: ExportProgress | None = None

    @property
    def progress(self) -> ExportProgress:
        """What is known. Only after `load` or `begin`."""
        assert self._progress is not None
        return self._progress

    async def load(self) -> bool:
        """Read it anew. Gives False when there is none."""
        found = await self._store.get(self._key)
        self._revision = found.revision if found else 0
        self._progress = _decoder.decode(found.data) if found else None
        return found is not None

    async def begin(self, progress: ExportProgress) -> None:
        """Write the first progress of an export, unless there is one; then know the one that is there."""
        try:
            await self._write(progress, expect_revision=0)
        except ClaimedElsewhereError:
            await self.load()

    async def change(self, change: Callable[[ExportProgress], ExportProgress]) -> ExportProgress:
        """
        Write what `change` makes of the progress.

        Raises:
            TakenError: Somebody else has written in the meantime; nothing was changed.
            UnavailableError: It is not known whether it was written.
        """
        return await self._write(change(self.progress), expect_revision=self._revision)

    async def erase(self) -> None:
        """Forget everything about the export."""
        await self._store.delete(self._key)

    async def _write(self, progress: ExportProgress, *, expect_revision: int) -> ExportProgress:
        data = _encoder.encode(progress)
        try:
            revision = await self._store.put(self._key, data, expect_revision=expect_revision)
        except (ConflictError, UnavailableError) as error:
            # An answer may be lost while the write was not, and the next attempt then meets its own write.
            found = await self._store.get(self._key)
            if found is None or found.data != data:
                if isinstance(error, UnavailableError):
                    raise
                raise ClaimedElsewhereError("another process works on this export") from None
            revision = found.revision
        self._revision, self._progress = revision, progress
        return progress
