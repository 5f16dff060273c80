"""Asking and answering on a real server."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from msgspec import Struct

from millrace.nats_servers.server import NatsServer
from shared.errors import BusyError, InvalidError, NotFoundError, UnavailableError
from shared.messaging.bus import Bus
from shared.messaging.connection import connect
from shared.messaging.endpoints import REQUESTS_AT_ONCE, REQUESTS_WAITING, Endpoint, answering
from shared.runtime.telemetry import Metrics

HELD = asyncio.Event()


class Question(Struct, forbid_unknown_fields=True):
    text: str
    app_key: str = ""


class Answer(Struct):
    text: str


async def answer(state: str, question: Question) -> Answer:
    match question.text:
        case "missing":
            raise NotFoundError("no such thing", field="text")
        case "bug":
            raise RuntimeError("the secret is hunter2")
        case "wait":
            await asyncio.sleep(0.05)
        case "hold":
            await HELD.wait()
    return Answer(f"{state}: {question.text}")


ENDPOINT = Endpoint(subject="test.question.ask", request=Question, handler=answer)


@pytest.fixture
async def asker(nats_server: NatsServer, bus: Bus) -> AsyncIterator[Bus]:
    """A second connection, to a bus that answers."""
    async with (
        answering(bus, "test", "1.0.0", "state", [ENDPOINT]),
        connect("asker", nats_server.url, metrics=Metrics(), wait_s=5) as asker,
    ):
        yield asker


async def test_a_request_is_answered(asker: Bus) -> None:
    assert await asker.request("test.question.ask", Question("hello"), Answer) == Answer("state: hello")


async def test_requests_are_answered_side_by_side(asker: Bus) -> None:
    started = asyncio.get_running_loop().time()
    await asyncio.gather(*(asker.request("test.question.ask", Question("wait"), Answer) for _ in range(20)))

    # One after another they would take a second.
    assert asyncio.get_running_loop().time() - started < 0.7


async def test_requests_of_one_app_that_take_long_delay_no_other_app(asker: Bus) -> None:
    async def ask(text: str, app_key: str) -> Answer:
        return await asker.request("test.question.ask", Question(text, app_key), Answer, timeout_s=30)

    slow = [asyncio.create_task(ask("hold", "a")) for _ in range(REQUESTS_AT_ONCE + REQUESTS_WAITING)]
    await asyncio.sleep(0)
    one_more = asyncio.create_task(ask("hold", "a"))
    try:
        with pytest.raises(BusyError, match="the app has too many requests in progress"):
            await one_more
        assert await ask("hello", "b") == Answer("state: hello")
        assert not any(task.done() for task in slow)
    finally:
        HELD.set()
    assert set(map(str, await asyncio.gather(*slow))) == {str(Answer("state: hold"))}


async def test_an_error_keeps_its_kind_over_the_wire(asker: Bus) -> None:
    with pytest.raises(NotFoundError, match="no such thing") as error:
        await asker.request("test.question.ask", Question("missing"), Answer)

    assert error.value.field == "text"


async def test_a_request_that_does_not_decode_names_the_field(asker: Bus) -> None:
    class Other(Struct):
        text: int

    with pytest.raises(InvalidError, match="Expected `str`, got `int`") as error:
        await asker.request("test.question.ask", Other(1), Answer)

    assert error.value.field == "text"


async def test_a_bug_reveals_nothing_to_the_caller(asker: Bus) -> None:
    with pytest.raises(UnavailableError, match="internal error") as error:
        await asker.request("test.question.ask", Question("bug"), Answer)

    assert "hunter2" not in str(error.value)


async def test_a_request_without_a_responder_is_unavailable(bus: Bus) -> None:
    with pytest.raises(UnavailableError, match="nobody answers"):
        await bus.request("test.nobody", Question("?"), Answer)


async def test_the_service_is_listed_by_nats(asker: Bus) -> None:
    pong = await asker.client.request("$SRV.PING.test", b"", timeout=2)

    assert b'"name": "test"' in pong.data or b'"name":"test"' in pong.data
