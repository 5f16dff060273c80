"""The lag of the event loop, as the gauge and as tests see it."""

import asyncio
import time

import pytest

from shared.runtime.loop_lag import report_loop_lag
from support import loop_watch
from support.loop_watch import HELD_S, KNOWN_WORK_S, LoopWatch
from support.virtual_time import run_virtually
from support.waiting import until


def use_the_cpu(seconds: float) -> None:
    begun = time.thread_time()
    while time.thread_time() - begun < seconds:
        pass


async def test_held_loop_is_reported_with_its_length() -> None:
    reports: list[float] = []
    reporting = asyncio.create_task(report_loop_lag(reports.append, tick_s=0.001))
    await until(lambda: reports)

    time.sleep(0.2)  # noqa: ASYNC251 - the stall is the test.
    await until(lambda: max(reports) >= 0.19)

    reporting.cancel()
    assert reports == [0.0, *sorted(reports[1:])]


@pytest.mark.parametrize(("slowness", "held_s"), [(0.5, 0.1), (1.0, 0.1), (2.0, 0.05)])
async def test_watch_measures_what_a_callback_computes(
    monkeypatch: pytest.MonkeyPatch, slowness: float, held_s: float
) -> None:
    monkeypatch.setattr(loop_watch, "known_work", lambda: slowness * KNOWN_WORK_S)
    async with LoopWatch() as watch:
        await asyncio.sleep(0)
        use_the_cpu(0.1)

    assert held_s <= watch.held_s < held_s + 0.02
    assert "test_watch_measures" in watch.holder


async def test_watch_does_not_add_up_the_work_of_several_callbacks() -> None:
    async with LoopWatch() as watch:
        for _ in range(50):
            use_the_cpu(0.002)
            await asyncio.sleep(0)

    assert watch.held_s < HELD_S
    assert watch.callbacks >= 50


async def test_watch_does_not_take_waiting_for_work() -> None:
    async with LoopWatch() as watch:
        time.sleep(0.1)  # noqa: ASYNC251 - the stall is the test.

    assert watch.held_s < HELD_S


def test_lag_is_forgotten_after_two_periods() -> None:
    reports: list[float] = []

    async def story() -> None:
        loop = asyncio.get_running_loop()
        reporting = asyncio.create_task(report_loop_lag(reports.append))
        await asyncio.sleep(0.01)
        loop.call_soon(hold)
        await asyncio.sleep(100)
        reporting.cancel()

    def hold() -> None:
        asyncio.get_running_loop()._selector.now += 5.0  # type: ignore[attr-defined]

    run_virtually(story())

    assert max(reports) > 4.9
    assert 0.0 == round(reports[-1], 3)
