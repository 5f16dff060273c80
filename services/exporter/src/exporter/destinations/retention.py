"""
Removal of old files in the `/reports` of apps.

The writer of `/reports` removes its files; ftp-gateway only reads them. Every replica removes, because deleting a
deleted file is no error.
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
"""Names held in memory at a time."""


async def remove_expired(
    open_store: Callable[[], AbstractAsyncContextManager[ObjectStore]],
    max_age: timedelta,
    clock: Callable[[], datetime],
) -> None:
    """Remove old files once an hour, until cancelled. While the store does not answer, old files stay."""
    while True:
        try:
            async with open_store() as store:
                removed = await remove_old(store, clock() - max_age)
        except MillraceError as error:
            log.warning("app_report_removal_failed", message=error.message)
        else:
            if removed:
                log.info("app_reports_removed", files=removed)
        await asyncio.sleep(INTERVAL_S * random.uniform(0.9, 1.1))


async def remove_old(store: ObjectStore, before: datetime) -> int:
    """
    Remove the files of all apps that were written before a time.

    Returns:
        The number of removed files.

    Raises:
        MillraceError: The store failed.
    """
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
