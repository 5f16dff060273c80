"""Events go to an address of the customer's and to no other: signed, and in order for any answer of the receiver."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import pytest

from hooks.delivery.counters import HookCounters
from hooks.delivery.model import Outcome, Record, Sent
from hooks.delivery.packing import pack
from hooks.matching.hook import BatchSettings
from hooks.sinks.webhook.client import WebhookClient
from hooks.sinks.webhook.config import WebhookConfig
from hooks.sinks.webhook.sink import AT_ONCE, WebhookSink
from shared.config.secret import Secret
from shared.contracts import streams
from shared.contracts.messages import DeadLetter, decode
from shared.errors import (
    BusyError,
    CredentialsError,
    DeniedError,
    MillraceError,
    NotFoundError,
    UnavailableError,
)
from shared.messaging.bus import Bus
from shared.messaging.consumers import open_scan
from shared.outgoing.door import Outgoing
from shared.service import RunningService
from support.clients.hooks import HooksClient, by_user, events, open_client, pending, wait_acknowledged
from support.fakes.sink import make_record
from support.outgoing import open_outgoing
from support.servers.webhooks import SECRET, Received, Receiver
from support.waiting import until

SCHEMA = json.loads((Path(__file__).parents[5] / "docs/schemas/hook.event.v1.json").read_text())
NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)


@pytest.fixture
async def outgoing() -> AsyncIterator[Outgoing]:
    async with open_outgoing() as outgoing:
        yield outgoing


@pytest.fixture
async def client(client: HooksClient, receiver: Receiver) -> HooksClient:
    """Tenant `shop` with a webhook for everything, and no connector."""
    await client.hook("all", **webhook(receiver))
    return client


def webhook(receiver: Receiver, **changes: Any) -> dict[str, Any]:
    return {"type": "WEBHOOK", "stream_name": "", "url": receiver.url, "secret": SECRET} | changes


def ids_by_user(received: Sequence[Received]) -> dict[str, list[str]]:
    """Each user's event ids in the order of arrival, repetitions left out."""
    found: dict[str, dict[str, None]] = {}
    for request in received:
        found.setdefault(request.value["user"]["userId"], {}).setdefault(request.value["id"])
    return {user: list(ids) for user, ids in found.items()}


async def test_matching_events_arrive_signed_and_in_order(client: HooksClient, receiver: Receiver, bus: Bus) -> None:
    posted = events(300, users=11)
    await client.post(posted)

    await wait_acknowledged(bus)

    assert by_user(posted) == ids_by_user(receiver.received)
    assert 300 == len(receiver.received)
    assert 300 == len({request.id for request in receiver.received})
    for request in receiver.received[:20]:
        assert ("application/json", "all") == (request.content_type, request.value["hookId"])
        jsonschema.validate(request.value, SCHEMA, cls=jsonschema.Draft202012Validator)
    status = await client.status("all")
    assert (True, 300, 300, 0) == (
        status["connector_active"],
        status["matched"],
        status["sent"],
        status["failed"],
    )


async def test_each_user_keeps_the_order_while_requests_fail(client: HooksClient, receiver: Receiver, bus: Bus) -> None:
    receiver.answers.extend([(500, {}), (200, {}), (503, {}), (200, {}), (408, {}), (429, {"Retry-After": "0"})] * 4)
    posted = events(100, users=7)
    await client.post(posted)

    await wait_acknowledged(bus)

    assert by_user(posted) == ids_by_user(receiver.received)
    assert (await client.status("all"))["failed"] > 0


async def test_a_receiver_that_is_not_found_keeps_its_events_until_the_hook_is_mended(
    client: HooksClient, receiver: Receiver, bus: Bus
) -> None:
    await client.hook("all", **webhook(receiver, url=f"{receiver.url}/moved"))
    await client.post(events(10, users=2))

    async def told() -> bool:
        return "the receiver is not there: HTTP 404" == str((await client.status("all"))["waits_because"])

    await until(told)
    assert await pending(bus) > 0
    # The secret is left out: it is the saved one.
    await client.hook("all", type="WEBHOOK", stream_name="", url=receiver.url)
    await wait_acknowledged(bus)

    assert by_user(events(10, users=2)) == ids_by_user(receiver.received)


async def test_a_record_that_the_receiver_refuses_is_put_aside_and_stops_nothing(
    client: HooksClient, receiver: Receiver, bus: Bus
) -> None:
    receiver.status_of = lambda body: 413 if b'"id":"e000003"' in body else 422 if b'"id":"e000005"' in body else 200
    await client.post(events(8, users=1))

    await wait_acknowledged(bus)

    assert ["e000000", "e000001", "e000002", "e000004", "e000006", "e000007"] == [
        request.value["id"] for request in receiver.received
    ]
    letters: list[DeadLetter] = []
    async with open_scan(bus, streams.DLQ, subject="dlq.hooks.shop.all.rejected") as scan:
        while len(letters) < 2:
            letters += [decode(message.data, DeadLetter) for message in await scan.next(2)]
    assert [
        ("e000003", "the receiver finds the record too large: HTTP 413"),
        ("e000005", "the receiver refuses the record: HTTP 422"),
    ] == [(json.loads(letter.body)["id"], letter.message) for letter in letters]


async def test_a_hook_that_becomes_a_webhook_takes_along_what_waits(
    hooks: RunningService, shop: dict[str, str], receiver: Receiver, bus: Bus
) -> None:
    dead_end = {"region": "eu-west-1", "api_key": "x", "secret_key": "y", "endpoint_url": "http://127.0.0.1:9"}
    async with open_client(hooks.url, shop) as client:
        assert 200 == (await client.ask("PUT", "/connectors/kinesis", dead_end))[0]
        await client.hook("all")
        await client.post(events(10, users=2))

        async def stuck() -> bool:
            return (await client.status("all"))["waits_because"] is not None

        await until(stuck)
        await client.hook("all", **webhook(receiver))
        await wait_acknowledged(bus)

    assert by_user(events(10, users=2)) == ids_by_user(receiver.received)


async def test_the_secret_of_a_webhook_never_comes_out(client: HooksClient, receiver: Receiver) -> None:
    _, shown = await client.ask("GET", "/hooks/all")
    _, listed = await client.ask("GET", "/hooks")

    assert "***" == shown["secret"]
    assert SECRET not in json.dumps([shown, listed])


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"url": ""}, "url"),
        ({"url": "https://user:password@example.com"}, "url"),
        ({"stream_name": "orders"}, "stream_name"),
        ({"secret": "whsec_c2hvcnQ="}, "secret"),
        ({"type": "KINESIS"}, "stream_name"),
        ({"batch": {"max_records": 501}}, "batch.max_records"),
        ({"max_record_bytes": 1}, "max_record_bytes"),
    ],
)
async def test_a_bad_webhook_is_refused_and_the_field_named(
    client: HooksClient, receiver: Receiver, changes: dict[str, Any], field: str
) -> None:
    form = {"name": "h", "trigger_type": "EVENT", "event_code": "*"} | webhook(receiver) | changes

    status, told = await client.ask("PUT", "/hooks/h", form)

    assert (400, field) == (status, told["error"].get("field"))
    assert "c2hvcnQ" not in json.dumps(told)


def record(place: int, data: bytes) -> Record:
    tally = HookCounters(lambda: NOW)
    source = f"EVENTS:{place}:0"
    return make_record(
        key=f"user-{place}", data=data, hook_id="all", source=source, counters=tally, done=lambda _: None
    )


def open_sink(config: WebhookConfig, outgoing: Outgoing) -> WebhookSink:
    return config.open(WebhookClient(outgoing, lambda: NOW), "all", lambda _: None)


async def send(receiver: Receiver, outgoing: Outgoing, *data: bytes, **changes: Any) -> Sequence[Outcome]:
    """One call of a sink."""
    config = WebhookConfig(url=changes.get("url", receiver.url), secret=Secret(changes.get("secret", SECRET)))
    return await open_sink(config, outgoing).send([record(place, body) for place, body in enumerate(data)])


async def test_what_is_sent_again_keeps_its_id(receiver: Receiver, outgoing: Outgoing) -> None:
    await send(receiver, outgoing, b"1")
    # A change of the hook changes the record, which names the hook's revision.
    await send(receiver, outgoing, b"12")

    assert ["all:EVENTS:0:0"] * 2 == [request.id for request in receiver.received]
    assert {int(NOW.timestamp())} == {request.timestamp for request in receiver.received}


async def test_a_record_of_several_events_has_an_id_of_all_of_them(receiver: Receiver, outgoing: Outgoing) -> None:
    ndjson = BatchSettings(format="ndjson")
    sink = open_sink(WebhookConfig(url=receiver.url, secret=Secret(SECRET)), outgoing)

    for revision, places in ((b"1", (0, 1)), (b"2", (0, 1)), (b"2", (0, 1, 2))):
        head, *rest = [msgspec.structs.replace(record(place, revision), key="u", batch=ndjson) for place in places]
        last = head
        for following in rest:
            last.next = last = following
        await sink.send([pack(head, 1000)])

    first, again, longer = [request.id for request in receiver.received]
    assert first == again
    assert first.startswith("all:EVENTS:0:0:")
    assert first != longer


@pytest.mark.parametrize("status", [402, 405, 406, 407, 411, 415, 426, 431, 451])
async def test_an_answer_that_says_nothing_of_the_record_pauses(
    client: HooksClient, receiver: Receiver, bus: Bus, status: int
) -> None:
    receiver.status_of = lambda _: status
    await client.post(events(5, users=5))

    async def waits() -> bool:
        return str(status) in str((await client.status("all"))["waits_because"])

    await until(waits)
    before = await client.status("all")
    receiver.status_of = lambda _: 200
    await client.hook("all", **webhook(receiver))
    await wait_acknowledged(bus)

    assert 0 == before["dead_lettered"]
    assert 5 == len(receiver.received)


@pytest.mark.parametrize(
    ("told", "wanted"),
    [
        ("7", 7.0),
        ("Sun, 22 Nov 2026 12:00:30 GMT", 30.0),
        ("Sun, 22 Nov 2026 11:00:00 GMT", 0.0),
        ("Sun, 22 Nov 2026 12:00:30 -0000", 30.0),
        ("999999999999", 3600.0),
        ("soon", None),
        ("-1", None),
        ("1.5", None),
    ],
)
@pytest.mark.parametrize(("status", "kind"), [(429, BusyError), (503, UnavailableError)])
async def test_retry_after_is_obeyed_within_bounds(
    receiver: Receiver,
    outgoing: Outgoing,
    told: str,
    wanted: float | None,
    status: int,
    kind: type[BusyError | UnavailableError],
) -> None:
    receiver.answers.append((status, {"Retry-After": told}))

    with pytest.raises(kind) as caught:
        await send(receiver, outgoing, b"1")

    assert wanted == caught.value.retry_after_s


async def test_a_receiver_that_throttles_gets_no_further_requests(receiver: Receiver, outgoing: Outgoing) -> None:
    receiver.status_of = lambda _: 429

    with pytest.raises(BusyError):
        await send(receiver, outgoing, *(b"%d" % number for number in range(32)))

    assert receiver.asked <= AT_ONCE


async def test_requests_at_once_are_bounded(receiver: Receiver, outgoing: Outgoing) -> None:
    receiver.gate.clear()
    async with asyncio.TaskGroup() as tasks:
        sending = tasks.create_task(send(receiver, outgoing, *(b"%d" % number for number in range(32))))
        await until(lambda: receiver.most_at_once == AT_ONCE)
        receiver.gate.set()
        outcomes = await sending

    assert 32 == len(outcomes) == len(receiver.received)
    assert AT_ONCE == receiver.most_at_once


@pytest.mark.parametrize(
    ("status", "kind"), [(301, NotFoundError), (307, NotFoundError), (404, NotFoundError), (410, NotFoundError)]
)
async def test_a_redirect_is_not_followed_and_pauses_like_a_missing_address(
    receiver: Receiver, outgoing: Outgoing, status: int, kind: type[NotFoundError]
) -> None:
    receiver.answers.append((status, {"Location": receiver.url}))

    with pytest.raises(kind):
        await send(receiver, outgoing, b"1")

    assert (1, []) == (receiver.asked, receiver.received)


async def test_an_address_of_our_own_network_is_not_connected_to_whatever_its_name_is(receiver: Receiver) -> None:
    async with open_outgoing(allow_private_endpoints=False) as outgoing:
        for host in ("127.0.0.1", "localhost", "[::1]"):
            url = receiver.url.replace("127.0.0.1", host)
            with pytest.raises(DeniedError, match="not reachable from the internet"):
                await send(receiver, outgoing, b"1", url=url)

    assert 0 == receiver.asked


@pytest.mark.parametrize(
    ("changes", "kind"), [({"secret": "whsec_c2hvcnQ="}, CredentialsError), ({"url": "https://1.2.3/"}, NotFoundError)]
)
async def test_no_record_is_guilty_of_what_no_form_should_have_let_through(
    receiver: Receiver, outgoing: Outgoing, changes: dict[str, str], kind: type[MillraceError]
) -> None:
    with pytest.raises(kind):
        await send(receiver, outgoing, b"1", b"2", **changes)


async def test_a_confirmation_counts_although_the_rest_of_the_answer_never_comes(outgoing: Outgoing) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n")
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        host, port = server.sockets[0].getsockname()[:2]
        config = WebhookConfig(url=f"http://{host}:{port}/", secret=Secret(SECRET))
        outcomes = await open_sink(config, outgoing).send([record(0, b"1")])

    assert [Sent()] == outcomes


async def test_a_receiver_that_is_not_there_is_unavailable(receiver: Receiver, outgoing: Outgoing) -> None:
    with pytest.raises(UnavailableError, match="cannot be reached"):
        await send(receiver, outgoing, b"1", url="http://127.0.0.1:9/hook")
