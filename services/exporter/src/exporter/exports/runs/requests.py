"""
Requests to runs, which any process may hold. A request lies in `RUNS` beside the record of its run, and the process
that works on the run looks for one every few seconds, or at once when it was asked itself.
"""

import asyncio
from typing import Final

import structlog

from exporter.exports.retry_budget import Signals
from exporter.exports.run_store import Run, RunStore
from shared.errors import MillraceError

log = structlog.get_logger()

LOOK_S: Final = 3.0


async def follow_requests(run_store: RunStore, run: Run, signals: Signals) -> None:
    """Obey the requests to a run, until cancelled. The first look is at once: a run that goes on may have one."""
    while True:
        try:
            request = await run_store.requested(run)
            if request == "cancel":
                signals.cancel()
            elif request == "retry":
                await run_store.remove_request(run)
                signals.wake.set()
        except MillraceError as error:
            log.warning("run_request_reading_failed", run=run.id, message=error.message)
        try:
            async with asyncio.timeout(LOOK_S):
                await signals.asked.wait()
        except TimeoutError:
            continue
        signals.asked.clear()
