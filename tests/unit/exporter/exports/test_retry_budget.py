"""A run retries retryable errors within its budget, and ends when the service stops."""

import asyncio

import pytest

from exporter.exports.retry_budget import RetryBudget, Signals, StopRequested
from shared.errors import CredentialsError, UnavailableError


class Flaky:
    """Fails a number of times before it succeeds."""

    def __init__(self, failures: int, error: Exception | None = None) -> None:
        self.calls = 0
        self._failures = failures
        self._error = error or UnavailableError("away", retry_after_s=3600)

    async def __call__(self) -> str:
        self.calls += 1
        if self.calls <= self._failures:
            raise self._error
        return "done"


async def test_operation_is_retried_at_once_after_a_wake() -> None:
    signals = Signals()
    signals.wake.set()
    flaky = Flaky(1, UnavailableError("away", retry_after_s=20))
    retry_budget = RetryBudget(60, signals)

    assert "done" == await retry_budget.run(flaky)
    assert 2 == retry_budget.attempts


async def test_error_is_raised_when_the_budget_is_used_up() -> None:
    with pytest.raises(UnavailableError):
        await RetryBudget(60, Signals()).run(Flaky(1))


async def test_error_that_is_not_retryable_is_raised_at_once() -> None:
    flaky = Flaky(1, CredentialsError("refused"))

    with pytest.raises(CredentialsError):
        await RetryBudget(60, Signals()).run(flaky)
    assert 1 == flaky.calls


async def test_waiting_ends_when_the_service_stops() -> None:
    signals = Signals()
    waiting = asyncio.ensure_future(RetryBudget(60, signals).run(Flaky(1, UnavailableError("away", retry_after_s=20))))
    await asyncio.sleep(0)

    signals.stop()

    with pytest.raises(StopRequested):
        await waiting


async def test_no_waiting_begins_when_the_service_stops() -> None:
    signals = Signals()
    signals.stop()

    with pytest.raises(StopRequested):
        await RetryBudget(60, signals).run(Flaky(1, UnavailableError("away")))
