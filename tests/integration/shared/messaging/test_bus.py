"""Publishing and reading single messages on a real server, and servers that go away."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

import pytest

from millrace.nats_servers.server import NatsServer
from shared.contracts.messages import Alert, ResolveMedia, decode
from shared.contracts.streams import ALERTS, EVENTS, PROFILES, PUSH
from shared.contracts.subjects import alert, push_send
from shared.errors import BusyError, ConflictError, InvalidError, TooLargeError, UnavailableError
from shared.messaging.bus import Bus, Published
from shared.messaging.connection import connect
from shared.messaging.consumers import open_scan
from shared.messaging.kv import BucketEntry, KeyValueStore
from shared.messaging.message import Message, OutgoingMessage
from shared.messaging.provisioning.making import ensure
from shared.runtime.settings import Settings
from shared.runtime.telemetry import Metrics
from support.waiting import until


async def test_publish_returns_the_sequence_once_stored(push: Bus) -> None:
    published = [await push.publish(push_send("shop", "f1"), b"{}") for _ in range(3)]

    assert published == [Published(1, False), Published(2, False), Published(3, False)]
    assert (await push.stream_state(PUSH)).messages == 3


async def test_publish_drops_a_repetition_of_the_same_id(push: Bus) -> None:
    first = await push.publish(push_send("shop", "f1"), b"{}", message_id="f1:1-500")
    second = await push.publish(push_send("shop", "f1"), b"{}", message_id="f1:1-500")

    assert (first, second) == (Published(1, False), Published(1, True))
    assert (await push.stream_state(PUSH)).messages == 1


@pytest.mark.parametrize(
    "subject",
    ["push.send.shop." + "x" * 5000, "push.send..f1", "push.send.shop.a b", "push.send.shop.*", "push.send.a\r\nPUB"],
)
async def test_subject_that_would_break_the_line_does_not_reach_it(push: Bus, subject: str) -> None:
    refused: list[Callable[[], Awaitable[object]]] = [
        lambda: push.publish(subject, b"{}"),
        lambda: push.publish_together([OutgoingMessage(subject, b"1"), OutgoingMessage(push_send("shop", "f1"), b"2")]),
        lambda: push.request(subject, ResolveMedia(app_key="shop", id="1"), ResolveMedia),
        lambda: push.last_message(PUSH, subject),
        lambda: KeyValueStore(push, PROFILES).get(subject),
        lambda: KeyValueStore(push, PROFILES).put(subject, b"1"),
        lambda: KeyValueStore(push, PROFILES).get_many([subject]),
        lambda: KeyValueStore(push, PROFILES).put_many([BucketEntry("shop.A", b"1", 0), BucketEntry(subject, b"1", 0)]),
        lambda: KeyValueStore(push, PROFILES).delete(subject),
    ]
    for call in refused:
        with pytest.raises(InvalidError, match=r"expected at most 2048 bytes.*characters"):
            await call()

    await push.ping()
    assert 0 == (await push.stream_state(PUSH)).messages


async def test_filter_that_would_break_the_line_does_not_reach_it(push: Bus) -> None:
    with pytest.raises(InvalidError, match=r"found 'push\.send\."):
        async with open_scan(push, PUSH, subject="push.send." + "x" * 5000):
            pass

    await push.ping()


@pytest.mark.parametrize("message_id", ["x" * 5000, "a\r\nNats-Rollup: all", "a\nb"])
async def test_message_id_of_several_lines_is_refused(push: Bus, message_id: str) -> None:
    with pytest.raises(InvalidError) as refused:
        await push.publish(push_send("shop", "f1"), b"{}", message_id=message_id)

    assert "message_id" == refused.value.field


async def test_publish_refuses_when_the_subject_has_moved_on(push: Bus) -> None:
    await push.publish(push_send("shop", "f1"), b"1", expect_last_sequence=0)

    with pytest.raises(ConflictError):
        await push.publish(push_send("shop", "f1"), b"2", expect_last_sequence=0)
    await push.publish(push_send("shop", "f2"), b"another file", expect_last_sequence=0)


async def test_publish_over_the_servers_limit_raises_too_large(push: Bus) -> None:
    with pytest.raises(TooLargeError, match="at most"):
        await push.publish(push_send("shop", "f1"), bytes(push.max_payload + 1))


async def test_a_full_stream_refuses_a_message_and_keeps_the_stored_ones(bus: Bus, settings: Settings) -> None:
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


async def test_messages_together_are_stored_side_by_side(push: Bus) -> None:
    subject = push_send("shop", "f1")
    parts = [OutgoingMessage(subject, b"%d" % n, {"Part": str(n)}, 0 if n == 0 else None) for n in range(1000)]

    last = await push.publish_together(parts)

    assert 1000 == last == (await push.stream_state(PUSH)).messages
    newest = await push.last_message(PUSH, subject)
    assert newest is not None
    assert (b"999", "999") == (newest.data, newest.headers["Part"])


async def test_messages_together_are_refused_together(push: Bus) -> None:
    await push.publish(push_send("shop", "f2"), b"1")
    parts = [OutgoingMessage(push_send("shop", f"f{n}"), b"2", expect_last_sequence=0) for n in (1, 2, 3)]

    with pytest.raises(ConflictError):
        await push.publish_together(parts)
    with pytest.raises(TooLargeError):
        await push.publish_together([OutgoingMessage("push.send.shop.f4", bytes(push.max_payload + 1)), parts[0]])

    assert 1 == (await push.stream_state(PUSH)).messages


async def test_last_message_waits_for_a_stream_that_no_server_answers_for_yet(bus: Bus, settings: Settings) -> None:
    async def read() -> Message | None:
        asked.set()
        return await bus.last_message(PUSH, push_send("shop", "f1"))

    asked = asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        reading = tasks.create_task(read())
        await asked.wait()
        await ensure(bus, PUSH, settings)

    assert reading.result() is None


async def test_last_message_is_unavailable_without_a_stream(bus: Bus) -> None:
    with pytest.raises(UnavailableError, match="PUSH cannot be read now"):
        await bus.last_message(PUSH, push_send("shop", "f1"))


async def test_last_messages_are_those_of_the_subjects_that_have_one(push: Bus) -> None:
    for number in range(600):
        await push.publish(push_send("shop", f"f{number % 300}"), b"%d" % number)

    found = await push.last_messages(PUSH, [push_send("shop", f"f{number}") for number in range(200, 400)])

    assert {push_send("shop", f"f{n}"): (b"%d" % (n + 300), n + 301) for n in range(200, 300)} == {
        message.subject: (message.data, message.sequence) for message in found
    }
    assert [] == await push.last_messages(PUSH, [push_send("shop", "f9999")])


async def test_last_messages_are_unavailable_without_a_stream(bus: Bus) -> None:
    with pytest.raises(UnavailableError):
        await bus.last_messages(PUSH, [push_send("shop", "f1")])


async def test_connecting_fails_with_the_last_reason() -> None:
    with pytest.raises(UnavailableError, match=r"cannot be reached at nats://127\.0\.0\.1:9"):
        async with connect("test", "nats://127.0.0.1:9", metrics=Metrics(), wait_s=0.3):
            pass


async def test_ping_fails_while_the_server_is_down(bus: Bus, nats_server: NatsServer) -> None:
    await bus.ping()
    await nats_server.kill()

    with pytest.raises(UnavailableError):
        await bus.ping()

    await nats_server.restart()
    await until(lambda: bus.connected)
    await bus.ping()


async def test_a_seed_that_is_none_is_refused_with_its_file_and_not_shown(nats_server: NatsServer) -> None:
    with pytest.raises(InvalidError) as caught:
        async with connect("x", nats_server.url, seed="SUgarbage", seed_file="/keys/x.nk", metrics=Metrics()):
            pass

    assert "/keys/x.nk" == caught.value.field
    assert "garbage" not in str(caught.value)


@pytest.mark.parametrize("app_key", ["", "*", ">", "a b", "x" * 65])
async def test_alert_of_an_app_that_cannot_be_is_one_of_no_app(bus: Bus, settings: Settings, app_key: str) -> None:
    await ensure(bus, ALERTS, settings)
    told = Alert(service="hooks", app_key=app_key, kind="odd", subject="s", message="m", at=datetime.now(UTC))

    await bus.alert(told)

    stored = await bus.last_message(ALERTS, alert("hooks", "-", "odd"))
    assert stored is not None
    assert told == decode(stored.data, Alert)
