"""The retry loop: the errors it retries, its waits, and its deadline."""

import asyncio
import itertools
import random
from collections.abc import Awaitable, Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.errors import BusyError, InvalidError, MillraceError, UnavailableError
from shared.runtime.retry import Backoff, retry


class Clock:
    """Time that passes only during a sleep."""

    def __init__(self) -> None:
        self.now = 0.0
        self.waits: list[float] = []

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.now += seconds


def longest(_: float, ceiling: float) -> float:
    """The jitter at its upper end."""
    return ceiling


def failing(*errors: Exception) -> Callable[[], Awaitable[str]]:
    """An operation that fails with each error in turn, and then returns `done`."""
    left = list(errors)

    async def operation() -> str:
        if left:
            raise left.pop(0)
        return "done"

    return operation


BACKOFF = Backoff(first_s=1, max_s=5, factor=2)


@given(first=st.floats(0.001, 10), most=st.floats(0.001, 100), factor=st.floats(1, 10), seed=st.integers(0, 2**32))
def test_every_delay_is_between_nothing_and_its_ceiling(first: float, most: float, factor: float, seed: int) -> None:
    backoff = Backoff(first_s=first, max_s=most, factor=factor)

    delays = list(itertools.islice(backoff.delays(random.Random(seed).uniform), 50))

    ceilings = [min(most, first * factor**n) for n in range(50)]
    assert all(0 <= delay <= ceiling * 1.000001 for delay, ceiling in zip(delays, ceilings, strict=True))


def test_delays_have_no_end_and_no_overflow() -> None:
    delays = Backoff(first_s=1, max_s=60, factor=10).delays(longest)

    assert 60 == next(itertools.islice(delays, 5_000, None))


async def test_the_first_success_is_returned_without_a_wait() -> None:
    clock = Clock()

    result = await retry(failing(), backoff=BACKOFF, deadline_s=10, sleep=clock.sleep, clock=clock)

    assert "done" == result
    assert [] == clock.waits


async def test_retryable_errors_are_tried_again_with_growing_waits() -> None:
    clock = Clock()
    operation = failing(*(UnavailableError("gone") for _ in range(4)))

    result = await retry(operation, backoff=BACKOFF, deadline_s=60, sleep=clock.sleep, clock=clock, uniform=longest)

    assert "done" == result
    assert [1, 2, 4, 5] == clock.waits


@pytest.mark.parametrize("error", [InvalidError("wrong"), ValueError("a bug")])
async def test_anything_else_passes_through_at_once(error: Exception) -> None:
    clock = Clock()

    with pytest.raises(type(error)) as caught:
        await retry(failing(error), backoff=BACKOFF, deadline_s=60, sleep=clock.sleep, clock=clock)

    assert error is caught.value
    assert [] == clock.waits


async def test_the_wait_is_at_least_the_one_requested_by_the_peer() -> None:
    clock = Clock()
    operation = failing(BusyError("slow down", retry_after_s=7))

    await retry(operation, backoff=BACKOFF, deadline_s=60, sleep=clock.sleep, clock=clock, uniform=longest)

    assert [7 + 1] == clock.waits


async def test_the_last_error_is_raised_when_the_deadline_would_pass() -> None:
    clock = Clock()
    errors = [UnavailableError(f"attempt {n}") for n in range(1, 10)]

    with pytest.raises(UnavailableError, match="attempt 3"):
        await retry(failing(*errors), backoff=BACKOFF, deadline_s=6, sleep=clock.sleep, clock=clock, uniform=longest)

    assert [1, 2] == clock.waits


async def test_the_caller_is_notified_of_each_retry() -> None:
    clock = Clock()
    told: list[tuple[str, int, float]] = []

    def on_retry(error: MillraceError, attempt: int, wait_s: float) -> None:
        told.append((error.message, attempt, wait_s))

    await retry(
        failing(UnavailableError("one"), UnavailableError("two")),
        backoff=BACKOFF,
        deadline_s=60,
        on_retry=on_retry,
        sleep=clock.sleep,
        clock=clock,
        uniform=longest,
    )

    assert [("one", 1, 1), ("two", 2, 2)] == told


async def test_a_cancellation_ends_the_operation() -> None:
    started = asyncio.Event()

    async def operation() -> None:
        started.set()
        await asyncio.Event().wait()

    task = asyncio.ensure_future(retry(operation, backoff=BACKOFF, deadline_s=60))
    await started.wait()
    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_cancellation_ends_the_wait() -> None:
    waiting = asyncio.Event()

    async def sleep(_: float) -> None:
        waiting.set()
        await asyncio.Event().wait()

    task = asyncio.ensure_future(retry(failing(UnavailableError("gone")), backoff=BACKOFF, deadline_s=60, sleep=sleep))
    await waiting.wait()
    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task
