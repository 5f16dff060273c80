"""Waiting for a condition that belongs to another process or library. No test lives here."""

import asyncio
import inspect
from collections.abc import Callable
from typing import Any


async def until(holds: Callable[[], Any], *, within_s: float = 30) -> None:
    """Wait for a condition; it may be a coroutine function."""
    async with asyncio.timeout(within_s):
        while True:
            found = holds()
            if await found if inspect.isawaitable(found) else found:
                return
            await asyncio.sleep(0.01)
