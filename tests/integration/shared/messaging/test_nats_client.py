"""A call to NATS that is cancelled ends, also where the answer comes at the same time."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

import pytest

from shared.contracts.streams import PUSH
from shared.contracts.subjects import push_send
from shared.errors import UnavailableError
from shared.messaging.bus import Bus
from support.waiting import until

SUBJECT = push_send("shop", "f1")
CALLS: dict[str, Callable[[Bus], Awaitable[object]]] = {
    "publish": lambda bus: bus.publish(SUBJECT, b"{}"),
    "read": lambda bus: bus.last_message(PUSH, SUBJECT),
    "manage": lambda bus: bus.stream_state(PUSH),
    "publish where nobody listens": lambda bus: bus.publish("nowhere.at.all", b"{}"),
}


async def answer_to(bus: Bus) -> asyncio.Future[object]:
    """The future that the library waits for."""

    async def asked() -> bool:
        return bool(bus.client._resp_map)

    await until(asked)
    (answer,) = bus.client._resp_map.values()
    return answer


async def call_for_ever(call: Callable[[Bus], Awaitable[object]], bus: Bus) -> None:
    while True:
        with contextlib.suppress(UnavailableError):
            await call(bus)


@pytest.mark.parametrize("name", CALLS)
async def test_a_cancellation_at_the_time_of_the_answer_is_not_lost(push: Bus, name: str) -> None:
    await push.ping()
    calling = asyncio.create_task(call_for_ever(CALLS[name], push))

    (await answer_to(push)).add_done_callback(lambda _: calling.cancel())
    async with asyncio.timeout(5):
        await asyncio.wait((calling,))

    assert calling.cancelled()


@pytest.mark.parametrize("name", CALLS)
async def test_a_timeout_at_the_time_of_the_answer_is_not_lost(push: Bus, name: str) -> None:
    await push.publish(SUBJECT, b"{}")

    async def call() -> None:
        async with asyncio.timeout(None) as limit:
            answer = asyncio.create_task(answer_to(push))
            answer.add_done_callback(lambda found: found.result().add_done_callback(lambda _: limit.reschedule(0.0)))
            await call_for_ever(CALLS[name], push)

    with pytest.raises(TimeoutError):
        await call()
