"""The retry budget of a run, and the signals that end its waits early."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Protocol, TypeVar

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


class RunCancelled(Exception):
    """Somebody has cancelled the run. The next run continues."""


class Signals:
    """
    Signals to the runs of one export: `wake` ends a back-off, `stopping` and `cancelled` end the run after the current
    file. `asked` says that a request to the run may have been stored.
    """

    def __init__(self) -> None:
        self.wake = asyncio.Event()
        self.asked = asyncio.Event()
        self.stopping = False
        self.cancelled = False

    def stop(self) -> None:
        """End the run after the current file, and end every wait now."""
        self.stopping = True
        self.wake.set()

    def cancel(self) -> None:
        """End this run as `stop` does, and no later one."""
        self.cancelled = True
        self.wake.set()

    def check(self) -> None:
        """Raise `StopRequested` if the service stops, and `RunCancelled` if the run is cancelled."""
        if self.stopping:
            raise StopRequested
        if self.cancelled:
            raise RunCancelled

    async def wait(self, delay_s: float) -> None:
        """Wait for `delay_s` or until `wake`. Raises as `check` does."""
        self.check()
        try:
            async with asyncio.timeout(delay_s):
                await self.wake.wait()
        except TimeoutError:
            return
        self.wake.clear()
        self.check()


class RetryNotes(Protocol):
    """Record of the retries of a run. Its methods do not raise."""

    async def waiting(self, error: MillraceError, wait_s: float, attempt: int) -> None:
        """Attempt number `attempt` begins in `wait_s`, after this error."""
        ...

    async def going_on(self) -> None:
        """An operation that was retried has succeeded."""
        ...


class RetryBudget:
    """
    The time in which one run retries its failures: one period of its export, within `MIN_S` and `MAX_S`.

    `attempts` counts the attempts of the run, from 1.

    Args:
        notes: Is told of waits, and of the success of an operation that was retried.
    """

    def __init__(self, every_s: float, signals: Signals, notes: RetryNotes | None = None) -> None:
        self.signals = signals
        self.attempts = 1
        self._notes = notes
        self._failure: tuple[MillraceError, float] | None = None
        self._give_up_at = asyncio.get_running_loop().time() + min(max(every_s, MIN_S), MAX_S)

    async def run(self, operation: Callable[[], Awaitable[T]]) -> T:
        """
        Run an operation, and retry it with a back-off while its error is retryable and the budget lasts.

        Raises:
            StopRequested: The service stops, and the operation would have to wait.
            RunCancelled: The run is cancelled, and the operation would have to wait.
            MillraceError: The operation's last error.
        """
        remaining_s = self._give_up_at - asyncio.get_running_loop().time()
        result = await retry(
            operation, backoff=BACKOFF, deadline_s=remaining_s, on_retry=self._on_retry, sleep=self._wait
        )
        if self._failure is not None:
            self._failure = None
            if self._notes is not None:
                await self._notes.going_on()
        return result

    async def _wait(self, delay_s: float) -> None:
        if self._notes is not None and self._failure is not None:
            await self._notes.waiting(*self._failure, self.attempts)
        await self.signals.wait(delay_s)

    def _on_retry(self, error: MillraceError, attempt: int, wait_s: float) -> None:
        self.attempts += 1
        self._failure = error, wait_s
        log.warning("attempt_failed", code=error.code, message=error.message, attempt=attempt, wait_s=round(wait_s, 1))
