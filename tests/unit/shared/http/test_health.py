"""Readiness: pings are shared by those who ask, and kept for a moment."""

import asyncio

from shared.errors import UnavailableError
from shared.http.health import KEPT_S, Health


async def test_many_who_ask_at_once_and_within_a_moment_cost_one_ping() -> None:
    now, pings, down = 100.0, 0, False

    async def ping() -> None:
        nonlocal pings
        pings += 1
        await asyncio.sleep(0)
        if down:
            raise UnavailableError("away")

    health = Health(clock=lambda: now)
    health.add("nats", ping)
    health.state = "running"

    answers = await asyncio.gather(*(health.check() for _ in range(50)))
    assert (pings, {answer.ready for answer in answers}) == (1, {True})

    down = True
    now += KEPT_S + 0.01
    answers = await asyncio.gather(*(health.check() for _ in range(50)))
    assert (pings, {answer.failing["nats"] for answer in answers}) == (2, {"away"})


async def test_state_of_the_service_is_never_an_old_one() -> None:
    health = Health(clock=lambda: 100.0)
    health.state = "running"
    assert (await health.check()).ready

    health.state = "stopping"
    stopping = await health.check()
    assert (stopping.ready, stopping.failing) == (False, {"service": "stopping"})


async def test_ping_that_is_added_counts_at_once() -> None:
    async def ping() -> None:
        raise UnavailableError("away")

    health = Health(clock=lambda: 100.0)
    health.state = "running"
    await health.check()

    health.add("leases", ping)

    assert (await health.check()).failing == {"leases": "away"}
