"""
How long a run tries again what may get better, and what ends its waiting early.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import structlog

from shared.errors import MillraceError
from shared.runtime.retry import Backoff, retry

log = structlog.get_logger()
T = TypeVar("T")

LEAST_S = 30.0
MOST_S = 900.0
BACKOFF = Backoff(first_s=0.5, max_s=60.0)


class StopRequested(Exception):
    """The service stops; what is left is for the next run."""


class Signals:
    """What a run listens to while it works: `nudge` cuts a back-off short, `stopping` ends the run where it can end."""

    def __init__(self) -> None:
        self.wake = asyncio.Event()
        self.stopping = False

    def stop(self) -> None:
        """Leave off between two files, and wait for nothing any more."""
        self.stopping = True
        self.wake.set()

    def check(self) -> None:
        """Raises `StopAsked` when the service stops."""
        if self.stopping:
            raise StopRequested

    async def wait(self, delay_s: float) -> None:
        """Wait so long, or until the nudge. Raises `StopAsked` when the service stops."""
        self.check()
        try:
            async with asyncio.timeout(delay_s):
                await self.wake.wait()
        except TimeoutError:
            return
        self.wake.clear()
        self.check()


class RetryBudget:
    """
    The time of one run for what fails and may get better: one period of its export, within bounds.

    `attempts` counts the run's tries, from 1.
    """

    def __init__(self, every_s: float, signals: Signals) -> None:
        self.signals = signals
        self.attempts = 1
        self._give_up_at = asyncio.get_running_loop().time() + min(max(every_s, LEAST_S), MOST_S)

    async def run(self, operation: Callable[[], Awaitable[T]]) -> T:
        """
        The operation's result, tried again with a back-off while its error is retryable and there is time.

        Raises:
            StopAsked: The service stops, and the operation would have to wait.
            MillraceError: The operation's last error.
        """
        left_s = self._give_up_at - asyncio.get_running_loop().time()
        return await retry(
            operation, backoff=BACKOFF, deadline_s=left_s, on_retry=self._on_retry, sleep=self.signals.wait
        )

    def _on_retry(self, error: MillraceError, attempt: int, wait_s: float) -> None:
        self.attempts += 1
        log.warning("attempt_failed", code=error.code, message=error.message, attempt=attempt, wait_s=round(wait_s, 1))
