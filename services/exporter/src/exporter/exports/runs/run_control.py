"""Cancelling a run, and retrying one now, whichever process works on it."""

import asyncio
from collections.abc import Callable
from typing import Final

from exporter.exports.progress_store import ProgressStore
from exporter.exports.run_store import Run, RunRequest, RunStore
from shared.contracts.keys import lane_progress_key
from shared.errors import ConflictError
from shared.messaging.kv import KeyValueStore

ANSWER_S: Final = 15.0
"""The longest wait for a run to obey. An upload in progress is finished first, so it may take longer than that."""
POLL_S: Final = 0.1


class RunControl:
    """
    Requests to the runs of all exports.

    Args:
        nudge: Tells this process to look for requests to an export's run; called with the app and the export.
    """

    def __init__(self, run_store: RunStore, plans: KeyValueStore, nudge: Callable[[str, str], None]) -> None:
        self._run_store = run_store
        self._plans = plans
        self._nudge = nudge

    async def cancel(self, app_key: str, export_id: str, run_id: str) -> Run:
        """
        Cancel a run in progress. It ends after the file in progress; a window that is planned is written by the next.

        Returns:
            Its record: `cancelled`, or as it is when it does not end within `ANSWER_S`; then it ends later.

        Raises:
            NotFoundError: There is no such run.
            ConflictError: It has ended.
        """
        run = await self._run_store.get(app_key, export_id, run_id)
        if not run.is_open:
            raise ConflictError(f"the run is {run.state}; expected one that is running or retrying")
        return await self._ask(run, "cancel", lambda now: not now.is_open)

    async def retry_waiting(self, app_key: str, export_id: str, run_id: str) -> Run | None:
        """
        Let a run that is `retrying` try now.

        Returns:
            Its record after the attempt has begun; None for a run that has failed, in whose place a new one may begin.

        Raises:
            NotFoundError: There is no such run.
            ConflictError: It is in another state.
        """
        run = await self._run_store.get(app_key, export_id, run_id)
        if run.state == "failed":
            return None
        if run.state != "retrying":
            advice = "" if run.is_open else "; flush starts a run"
            raise ConflictError(f"the run is {run.state}; expected one that is retrying or failed{advice}")
        tried = run.attempts
        return await self._ask(run, "retry", lambda now: now.state != "retrying" or now.attempts > tried)

    async def _ask(self, run: Run, request: RunRequest, obeyed: Callable[[Run], bool]) -> Run:
        if not await self._is_held(run):
            # Its process died, and no other goes on with it, such as for an export that was deleted or paused.
            raise ConflictError("no process works on the run any more")
        await self._run_store.request(run, request)
        self._nudge(run.app_key, run.export_id)
        try:
            async with asyncio.timeout(ANSWER_S):
                while True:
                    run = await self._run_store.get(run.app_key, run.export_id, run.id)
                    if obeyed(run):
                        break
                    await asyncio.sleep(POLL_S)
        except TimeoutError:
            return run
        if not run.is_open:
            await self._run_store.remove_request(run)
        return run

    async def _is_held(self, run: Run) -> bool:
        key = lane_progress_key(run.app_key, run.export_id, run.lane.shards, run.lane.shard)
        progress_store = ProgressStore(self._plans, key)
        if not await progress_store.load():
            return False
        claim = progress_store.progress.claim
        return claim is not None and claim.run_id == run.id
