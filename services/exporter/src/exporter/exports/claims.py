"""
The claim of a run, renewed by a task of its own for as long as the run works.

However long an upload or a build takes, the claim lasts; when its process dies, it ends within `LEASE_S`.
"""

import asyncio
from collections.abc import Callable, Coroutine
from datetime import datetime
from typing import Any, TypeVar

import structlog

from exporter.exports.progress import RENEW_S, renewed
from exporter.exports.progress_store import ClaimedElsewhereError, ProgressStore
from shared.errors import MillraceError

log = structlog.get_logger()
T = TypeVar("T")


async def hold_claim(progress_store: ProgressStore, clock: Callable[[], datetime], work: Coroutine[Any, Any, T]) -> T:
    """
    Do some work, and renew the claim meanwhile.

    Returns:
        The result of the work.

    Raises:
        ClaimedElsewhereError: Another process has taken the export over; the work is cancelled.
    """
    working = asyncio.ensure_future(work)
    renewing = asyncio.create_task(_renew(progress_store, clock))
    try:
        await asyncio.wait((working, renewing), return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            await renewing
        return await working
    finally:
        for task in (working, renewing):
            task.cancel()
        await asyncio.gather(working, renewing, return_exceptions=True)


async def _renew(progress_store: ProgressStore, clock: Callable[[], datetime]) -> None:
    while True:
        await asyncio.sleep(RENEW_S)
        try:
            await progress_store.change(lambda progress: renewed(progress, clock()))
        except ClaimedElsewhereError:
            raise
        except MillraceError as error:
            # Nobody else can write now either; the lease decides.
            log.warning("claim_renewal_failed", message=error.message)
