"""
Lag of the event loop: how late a timer comes, because something held the loop meanwhile.
"""

import asyncio
from collections.abc import Callable

TICK_S = 0.02
"""A stall shows with its length, less up to this."""
PERIOD_S = 30.0


async def report_loop_lag(report: Callable[[float], None], *, tick_s: float = TICK_S) -> None:
    """
    Report the largest lag, in seconds, of the present period of 30 s and the one before, for ever.

    A scraper that asks at least every 30 s misses no stall. A larger lag is reported at once.
    """
    clock = asyncio.get_running_loop().time
    before = largest = 0.0
    period_end = clock() + PERIOD_S
    report(0.0)
    while True:
        due = clock() + tick_s
        await asyncio.sleep(tick_s)
        now = clock()
        if now >= period_end:
            before, largest = largest, 0.0
            period_end = now + PERIOD_S
            report(before)
        if (lag := now - due) > largest:
            largest = lag
            report(max(before, largest))
