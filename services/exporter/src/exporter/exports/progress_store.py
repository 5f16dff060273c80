"""
The progress of one lane of an export in the bucket `PLANS`, written only by the process that read its latest revision.

Every write names the revision that was read. A process whose claim was taken over fails at its next write, so two
processes never move one cursor. Both may upload the planned object, which is the same for both.
"""

import asyncio
from collections.abc import Callable
from datetime import datetime

import msgspec
from msgspec.structs import replace

from exporter.exports.progress import ExportProgress, lane_count, renewed
from shared.contracts.keys import LAKE_EXPORT, parse_export_progress_key, parse_replay_export
from shared.errors import ConflictError, UnavailableError
from shared.messaging.kv import KeyValueStore

_encoder = msgspec.json.Encoder()


class ClaimedElsewhereError(ConflictError):
    """Another process works on this export."""


class UnreadableProgressError(ConflictError):
    """
    The stored progress cannot be read: any user of NATS can lead an answer to its key (docs/adr/0027). Nobody knows how
    far the export has come, so no run may guess it.
    """

    def __init__(self, key: str) -> None:
        advice = "delete the export, which deletes its progress, and create it again"
        if parse_export_progress_key(key)[1] == LAKE_EXPORT:
            advice = "erase the lake (DELETE /v1/apps/{app}/lake), which begins a new one"
        elif parse_replay_export(parse_export_progress_key(key)[1]):
            advice = "delete the replay, and start another one"
        super().__init__(f"the stored progress of this export cannot be read; {advice}")


class ProgressStore:
    """The progress of one lane, as this process knows it. `progress` is None until `load` has found one."""

    def __init__(self, store: KeyValueStore, key: str) -> None:
        self._store = store
        self._key = key
        self._revision = 0
        self._progress: ExportProgress | None = None
        self._changing = asyncio.Lock()

    @property
    def progress(self) -> ExportProgress:
        """The progress as last read or written. Only after `load` or `begin`."""
        assert self._progress is not None
        return self._progress

    @property
    def cursor(self) -> int:
        """The cursor as last read or written; 0 before that."""
        return self._progress.passed if self._progress is not None else 0

    async def load(self) -> bool:
        """Read the progress. Returns False when there is none. Raises `UnreadableProgressError`."""
        found = await self._store.get(self._key)
        self._revision = found.revision if found else 0
        if found is not None and lane_count(found.data) is not None:
            # Several lanes have taken the place of the only one.
            found = None
        progress = self._store.decoded(self._key, found.data, ExportProgress) if found else None
        if found is not None and progress is None:
            raise UnreadableProgressError(self._key)
        self._progress = with_window(progress) if progress is not None else None
        return found is not None

    async def begin(self, progress: ExportProgress) -> None:
        """Write the first progress of an export, or load the one that exists. Raises `UnreadableProgressError`."""
        try:
            await self._write(progress, expect_revision=0)
        except ClaimedElsewhereError:
            await self.load()

    async def begin_anew(self, progress: ExportProgress) -> None:
        """Write over what `load` could not read. Raises `ClaimedElsewhereError`."""
        await self._write(progress, expect_revision=self._revision)

    async def change(self, change: Callable[[ExportProgress], ExportProgress]) -> ExportProgress:
        """
        Write the result of `change`, applied to the progress. Callers of one store wait for each other.

        Raises:
            ClaimedElsewhereError: Another process has written in the meantime; nothing was changed.
            UnavailableError: It is not known whether the write took effect.
        """
        async with self._changing:
            return await self._write(change(self.progress), expect_revision=self._revision)

    async def check_claim(self, now: datetime) -> None:
        """
        Renew a claim that has ended: this process stood still, and another one may have taken the export over.

        Raises:
            ClaimedElsewhereError: It has.
            UnavailableError: NATS does not answer.
        """
        claim = self.progress.claim
        if claim is not None and claim.until <= now:
            await self.change(lambda progress: renewed(progress, now))

    async def erase(self) -> None:
        """Delete the progress."""
        await self._store.delete(self._key)

    async def _write(self, progress: ExportProgress, *, expect_revision: int) -> ExportProgress:
        data = _encoder.encode(progress)
        try:
            revision = await self._store.put(self._key, data, expect_revision=expect_revision)
        except (ConflictError, UnavailableError) as error:
            # The reply may be lost although the write took effect; a retry then conflicts with its own write.
            found = await self._store.get(self._key)
            if found is None or found.data != data:
                if isinstance(error, UnavailableError):
                    raise
                raise ClaimedElsewhereError("another process works on this export") from None
            revision = found.revision
        self._revision, self._progress = revision, progress
        return progress


def with_window(progress: ExportProgress) -> ExportProgress:
    """Progress in which the plan of a release before is given as a window."""
    if progress.plan is None:
        return progress
    return replace(progress, plan=None, window=progress.plan.as_window())
