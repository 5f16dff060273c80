"""The retry budget of a run, and the signals that end its waits early."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import structlog

from shared.errors import MillraceError
from shared.runtime.retry import Backoff, retry

log = structlog.get_logger()
T = TypeVar("T")

MIN_S = 30.0
MAX_S = 900.0
BACKOFF = Backoff(first_s=0.5, max_s=60.0)


class StopRequested(Exception):
    """The service stops. The next run continues."""


class Signals:
    """Signals to a run: `wake` ends a back-off, `stopping` ends the run after the current file."""

    def __init__(self) -> None:
        self.wake = asyncio.Event()
        self.stopping = False

    def stop(self) -> None:
        """End the run after the current file, and end every wait now."""
        self.stopping = True
        self.wake.set()

    def check(self) -> None:
        """Raise `StopRequested` if the service stops."""
        if self.stopping:
            raise StopRequested

    async def wait(self, delay_s: float) -> None:
        """Wait for `delay_s` or until `wake`. Raises `StopRequested` when the service stops."""
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
    The time in which one run retries its failures: one period of its export, within `MIN_S` and `MAX_S`.

    `attempts` counts the attempts of the run, from 1.
    """

    def __init__(self, every_s: float, signals: Signals) -> None:
        self.signals = signals
        self.attempts = 1
        self._give_up_at = asyncio.get_running_loop().time() + min(max(every_s, MIN_S), MAX_S)

    async def run(self, operation: Callable[[], Awaitable[T]]) -> T:
        """
        Run an operation, and retry it with a back-off while its error is retryable and the budget lasts.

        Raises:
            StopRequested: The service stops, and the operation would have to wait.
            MillraceError: The operation's last error.
        """
        remaining_s = self._give_up_at - asyncio.get_running_loop().time()
        return await retry(
            operation, backoff=BACKOFF, deadline_s=remaining_s, on_retry=self._on_retry, sleep=self.signals.wait
        )

    def _on_retry(self, error: MillraceError, attempt: int, wait_s: float) -> None:
        self.attempts += 1
        log.warning("attempt_failed", code=error.code, message=error.message, attempt=attempt, wait_s=round(wait_s, 1))
