"""
What becomes of the files that exporter left in the `/reports` of apps: they are removed when they are old. Whoever
writes there removes; ftp-gateway only shows. Every replica does it, because removing what is gone is no error.
"""

import asyncio
import random
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from datetime import datetime, timedelta

import structlog

from shared.errors import MillraceError
from shared.objects.app_reports import is_report
from shared.objects.store import ObjectStore

log = structlog.get_logger()

INTERVAL_S = 3600.0
AT_ONCE = 1000
"""Names that are held at a time."""


async def remove_expired(
    open_store: Callable[[], AbstractAsyncContextManager[ObjectStore]],
    keep_for: timedelta,
    clock: Callable[[], datetime],
) -> None:
    """For ever, once an hour. While the store does not answer, old files stay."""
    while True:
        try:
            async with open_store() as store:
                removed = await remove_old(store, clock() - keep_for)
        except MillraceError as error:
            log.warning("old_reports_stay", message=error.message)
        else:
            if removed:
                log.info("old_reports_removed", files=removed)
        await asyncio.sleep(INTERVAL_S * random.uniform(0.9, 1.1))


async def remove_old(store: ObjectStore, before: datetime) -> int:
    """Remove what was written before then, of all apps; gives how many. Raises the store's `MillraceError`."""
    removed = 0
    while True:
        old: list[str] = []
        async for info in store.list():
            if info.modified_at < before and is_report(info.key):
                old.append(info.key)
                if len(old) == AT_ONCE:
                    break
        for key in old:
            await store.delete(key)
        removed += len(old)
        if len(old) < AT_ONCE:
            return removed
