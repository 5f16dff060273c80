"""The record of one run while it works, shown to readers at each window and at each wait."""

from collections.abc import Callable
from datetime import datetime, timedelta

import structlog
from msgspec.structs import replace

from exporter.exports.progress_store import ProgressStore
from exporter.exports.run_store import ERROR_CHARACTERS, Run, RunError, RunStore
from shared.errors import MillraceError

log = structlog.get_logger()


class RunRecord:
    """
    The record so far, as `run`. Satisfies `exporter.exports.retry_budget.RetryNotes`.

    Waits are shown as well as the run store allows: that it fails stops no run.
    """

    def __init__(
        self, run: Run, run_store: RunStore, progress_store: ProgressStore, clock: Callable[[], datetime]
    ) -> None:
        self.run = run
        self._run_store = run_store
        self._progress_store = progress_store
        self._clock = clock

    async def save(self) -> None:
        """Write the record. Raises `UnavailableError`, and `ClaimedElsewhereError` where it is another process's."""
        await self._progress_store.check_claim(self._clock())
        await self._run_store.put(self.run)

    async def waiting(self, error: MillraceError, wait_s: float, attempt: int) -> None:
        """Show that the run is `retrying`."""
        self.run = replace(
            self.run,
            state="retrying",
            attempts=attempt,
            next_try_at=self._clock() + timedelta(seconds=wait_s),
            error=RunError(code=error.code, message=error.message[:ERROR_CHARACTERS]),
        )
        await self._show()

    async def going_on(self) -> None:
        """Show that the run is `running` again."""
        self.run = going_on(self.run)
        await self._show()

    async def _show(self) -> None:
        try:
            await self.save()
        except MillraceError as error:
            log.warning("run_record_failed", run=self.run.id, message=error.message)


def going_on(run: Run) -> Run:
    """The record of a run that goes on after a wait, or in another process."""
    return replace(run, state="running", finished_at=None, next_try_at=None, error=None)
