"""Publishing, asking and answering on a real server."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from msgspec import Struct

from millrace.nats_server import NatsServer
from shared.bus import Bus, Endpoint, connect
from shared.errors import BusyError, ConflictError, InvalidError, NotFoundError, TooLargeError, UnavailableError
from shared.settings import Settings
from shared.streams import ensure
from shared.subjects import EVENTS, PUSH, push_send
from shared.telemetry import Metrics


class Question(Struct, forbid_unknown_fields=True):
    text: str


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
    return Answer(f"{state}: {question.text}")


ENDPOINT = Endpoint(subject="test.question.ask", request=Question, handler=answer)


@pytest.fixture
async def asker(nats_server: NatsServer, bus: Bus) -> AsyncIterator[Bus]:
    """A second connection, to a bus that answers."""
    async with (
        bus.answering("test", "1.0.0", "state", [ENDPOINT]),
        connect("asker", nats_server.url, metrics=Metrics(), wait_s=5) as asker,
    ):
        yield asker


@pytest.fixture
async def push(bus: Bus, settings: Settings) -> Bus:
    await ensure(bus, PUSH, settings)
    return bus


async def test_publish_gives_the_sequence_once_stored(push: Bus) -> None:
    sequences = [await push.publish(push_send("shop", "f1"), b"{}") for _ in range(3)]

    assert sequences == [1, 2, 3]
    assert (await push.stream_state(PUSH)).messages == 3


async def test_publish_drops_a_repetition_of_the_same_id(push: Bus) -> None:
    first = await push.publish(push_send("shop", "f1"), b"{}", message_id="f1:1-500")
    second = await push.publish(push_send("shop", "f1"), b"{}", message_id="f1:1-500")

    assert second == first
    assert (await push.stream_state(PUSH)).messages == 1


async def test_publish_refuses_when_the_subject_has_moved_on(push: Bus) -> None:
    await push.publish(push_send("shop", "f1"), b"1", expect_last_sequence=0)

    with pytest.raises(ConflictError):
        await push.publish(push_send("shop", "f1"), b"2", expect_last_sequence=0)
    await push.publish(push_send("shop", "f2"), b"another file", expect_last_sequence=0)


async def test_publish_says_too_large_over_the_servers_limit(push: Bus) -> None:
    with pytest.raises(TooLargeError, match="at most"):
        await push.publish(push_send("shop", "f1"), bytes(push.max_payload + 1))


async def test_a_full_stream_refuses_and_keeps_what_it_has(bus: Bus, settings: Settings) -> None:
    small = Settings(
        **{name: getattr(settings, name) for name in settings.__struct_fields__} | {"events_max_bytes": 1 << 20}
    )
    await ensure(bus, EVENTS, small)
    for _ in range(20):
        await bus.publish("events.shop.1", bytes(50_000))

    with pytest.raises(BusyError) as refusal:
        await bus.publish("events.shop.1", bytes(100_000))

    assert refusal.value.retry_after_s is not None
    assert (await bus.stream_state(EVENTS)).messages == 20


async def test_publish_is_unavailable_without_a_stream(bus: Bus) -> None:
    with pytest.raises(UnavailableError):
        await bus.publish("nowhere.at.all", b"{}")


async def test_last_message_is_the_newest_of_its_subject(push: Bus) -> None:
    await push.publish(push_send("shop", "f1"), b"1")
    await push.publish(push_send("shop", "f1"), b"2", message_id="two")
    await push.publish(push_send("shop", "f2"), b"3")

    last = await push.last_message(PUSH, push_send("shop", "f1"))

    assert last is not None
    assert (last.data, last.sequence, last.headers["Nats-Msg-Id"]) == (b"2", 2, "two")
    assert last.at.year >= 2024
    assert await push.last_message(PUSH, push_send("shop", "f9")) is None


async def test_a_request_is_answered(asker: Bus) -> None:
    assert await asker.request("test.question.ask", Question("hello"), Answer) == Answer("state: hello")


async def test_requests_are_answered_side_by_side(asker: Bus) -> None:
    started = asyncio.get_running_loop().time()
    await asyncio.gather(*(asker.request("test.question.ask", Question("wait"), Answer) for _ in range(20)))

    # One after another they would take a second.
    assert asyncio.get_running_loop().time() - started < 0.7


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


async def test_a_bug_tells_the_asker_nothing(asker: Bus) -> None:
    with pytest.raises(UnavailableError, match="internal error") as error:
        await asker.request("test.question.ask", Question("bug"), Answer)

    assert "hunter2" not in str(error.value)


async def test_a_request_that_nobody_answers_is_unavailable(bus: Bus) -> None:
    with pytest.raises(UnavailableError, match="nobody answers"):
        await bus.request("test.nobody", Question("?"), Answer)


async def test_the_service_is_listed_by_nats(asker: Bus) -> None:
    pong = await asker.client.request("$SRV.PING.test", b"", timeout=2)

    assert b'"name": "test"' in pong.data or b'"name":"test"' in pong.data


async def test_connecting_gives_up_with_the_last_reason() -> None:
    with pytest.raises(UnavailableError, match=r"cannot be reached at nats://127\.0\.0\.1:9"):
        async with connect("test", "nats://127.0.0.1:9", metrics=Metrics(), wait_s=0.3):
            pass


async def test_ping_fails_while_the_server_is_gone(bus: Bus, nats_server: NatsServer) -> None:
    await bus.ping()
    await nats_server.kill()

    with pytest.raises(UnavailableError):
        await bus.ping()

    await nats_server.restart()
    async with asyncio.timeout(10):
        while not bus.connected:
            await asyncio.sleep(0.01)
    await bus.ping()
