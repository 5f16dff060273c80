"""
Back-off, and the one loop that retries. Knows which errors are retryable; knows no vendor.
"""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import TypeVar

from msgspec import Struct

from shared.errors import MillraceError

T = TypeVar("T")


class Backoff(Struct, frozen=True, kw_only=True):
    """
    Exponential back-off with full jitter (AWS Architecture Blog, "Exponential Backoff And Jitter").

    The n-th wait, from 0, is drawn evenly from 0 to `min(max_s, first_s * factor**n)` seconds.
    """

    first_s: float = 0.1
    max_s: float = 10.0
    factor: float = 2.0

    def delays(self, uniform: Callable[[float, float], float] = random.uniform) -> Iterator[float]:
        """Waits in seconds, without end."""
        ceiling = min(self.first_s, self.max_s)
        while True:
            yield uniform(0, ceiling)
            ceiling = min(self.max_s, ceiling * self.factor)


async def retry(
    operation: Callable[[], Awaitable[T]],
    *,
    backoff: Backoff,
    deadline_s: float,
    on_retry: Callable[[MillraceError, int, float], None] | None = None,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    clock: Callable[[], float] = time.monotonic,
    uniform: Callable[[float, float], float] = random.uniform,
) -> T:
    """
    Run the operation until it succeeds, fails for good, or the deadline is too near for another wait.

    Only a `MillraceError` whose kind is retryable is tried again. Where it has `retry_after_s`, the wait is that plus
    the jitter, so clients with the same hint do not come back at once. Everything else passes through, a cancellation
    included.

    Args:
        operation: Called anew for each attempt. It brings its own timeout: the deadline only rules the waits.
        deadline_s: Seconds from now after which no further attempt begins.
        on_retry: Gets the error, the number of the attempt that failed (from 1) and the wait in seconds.

    Raises:
        MillraceError: The last error of the operation.
    """
    give_up_at = clock() + deadline_s
    for attempt, delay_s in enumerate(backoff.delays(uniform), start=1):
        try:
            return await operation()
        except MillraceError as error:
            wait_s = delay_s + (error.retry_after_s or 0.0)
            if not error.retryable or clock() + wait_s > give_up_at:
                raise
            if on_retry is not None:
                on_retry(error, attempt, wait_s)
        await sleep(wait_s)
    raise AssertionError("the delays have no end")
