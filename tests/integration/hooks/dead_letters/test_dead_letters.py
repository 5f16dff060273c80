"""Dead letters over HTTP: each tenant lists, reads, replays and purges its own."""

import asyncio
import json
from collections.abc import Iterable
from datetime import UTC, datetime
from functools import partial
from typing import Any

import pytest

from hooks.app import now
from hooks.dead_letters import store
from hooks.dead_letters.replay import Replays
from hooks.dead_letters.store import DeadLetterFilter
from hooks.dead_letters.writer import DeadLetterWriter
from hooks.matching.rule import Target
from shared.errors import ConflictError
from shared.messaging.bus import Bus
from shared.runtime.telemetry import Metrics
from shared.service import RunningService
from support.clients.hooks import SECRET, HooksClient, events, first_successes, holds, open_client
from support.servers.kinesis import FaultyKinesis, Stored
from support.waiting import until

ALL = {"letters": 0, "replayable": 0, "sent": 0, "dead_lettered": 0, "not_replayable": 0, "inactive": 0}
"""A replay that found nothing."""
NOTHING = ALL | {"oversize": 0, "waiting": 0, "last_error": None, "next": None}


@pytest.fixture
async def client(client: HooksClient, hooks: RunningService, kinesis: FaultyKinesis) -> HooksClient:
    """Tenant `shop` with a connector and a hook for everything."""
    await client.connect(kinesis)
    await client.hook("all")
    await until(lambda: hooks.state.targets.serves(Target("shop", "orders")))
    await until(lambda: "all" in hooks.state.targets.index.of_app("shop").rules)
    return client


@pytest.fixture
def writer(bus: Bus, hooks: RunningService) -> DeadLetterWriter:
    """Writer of dead letters as the service has it."""
    return DeadLetterWriter(bus, Metrics(), now)


async def put(
    writer: DeadLetterWriter,
    places: Iterable[int],
    *,
    users: int = 1,
    app_key: str = "shop",
    hook: str = "all",
    reason: str = "rejected",
    filler: str = "",
) -> None:
    """Put dead letters of the events at these places of `EVENTS`, the users taking turns."""
    for place in places:
        user = f"user-{place % users}"
        body = json.dumps({"id": f"e{place:04}", "user": {"userId": user}, "filler": filler}).encode()
        key = "" if hook == "entrance" else user
        await writer.put(
            app_key, hook, reason, message=f"no {place}", source=f"EVENTS:{place}:0", body=body, attempts=2, key=key
        )


async def letters(client: HooksClient, query: str = "") -> list[dict[str, Any]]:
    """Return the first page."""
    status, page = await client.ask("GET", f"/dead-letters{query}")
    assert status == 200, page
    found: list[dict[str, Any]] = page["letters"]
    return found


async def replay(client: HooksClient, **form: Any) -> dict[str, Any]:
    """Replay dead letters."""
    status, told = await client.ask("POST", "/dead-letters/replay", form)
    assert status == 200, told
    reply: dict[str, Any] = told
    return reply


def ids(records: Iterable[Stored]) -> list[str]:
    return [record.value["id"] for record in records]


async def test_a_rejected_record_is_shown_whole_and_sent_again_as_it_was_rendered(
    client: HooksClient, kinesis: FaultyKinesis
) -> None:
    kinesis.call_faults.append("validation")
    await client.post([{"id": "e1", "code": "c", "user_id": "ann", "attributes": {"text": "x" * 3000}}])
    await until(lambda: letters(client))

    (listed,) = await letters(client)
    _, letter = await client.ask("GET", f"/dead-letters/{listed['id']}")
    assert {"hook": "all", "reason": "rejected", "attempts": 1} == {
        name: listed[name] for name in ("hook", "reason", "attempts")
    }
    assert (1024, len(letter["body"])) == (len(listed["body"]), listed["body_bytes"])
    assert "ValidationException" in listed["message"]

    # Rendered anew it would have the hook's new revision.
    await client.hook("all", event_code=["c", "d"])
    assert NOTHING | {"letters": 1, "replayable": 1, "sent": 1} == await replay(client)

    (record,) = kinesis.records("orders")
    assert (letter["body"], "ann") == (record.data.decode(), record.key)
    assert [] == await letters(client)
    status = await client.status("all")
    assert (1, 0, 1, 1) == tuple(status[name] for name in ("matched", "sent", "dead_lettered", "replayed"))


async def test_dead_letters_come_by_the_page_the_oldest_first(client: HooksClient, writer: DeadLetterWriter) -> None:
    await put(writer, range(7))
    await put(writer, range(3), app_key="rival")

    pages, after = [], 0
    while after is not None:
        _, page = await client.ask("GET", f"/dead-letters?limit=3&after={after}")
        pages.append([letter["message"] for letter in page["letters"]])
        after = page["next"]

    assert [["no 0", "no 1", "no 2"], ["no 3", "no 4", "no 5"], ["no 6"]] == pages


async def test_a_page_of_large_dead_letters_is_shorter(writer: DeadLetterWriter, hooks: RunningService) -> None:
    await put(writer, range(5), filler="x" * 1000)

    found, after = await hooks.state.dead_letters.read(DeadLetterFilter(app_key="shop"), limit=100, max_bytes=2000)
    rest, end = await hooks.state.dead_letters.read(
        DeadLetterFilter(app_key="shop"), after=after, limit=100, max_bytes=1 << 20
    )

    assert (["no 0", "no 1"], ["no 2", "no 3", "no 4"], None) == (
        [letter.message for letter in found],
        [letter.message for letter in rest],
        end,
    )


async def test_a_dead_letter_that_cannot_be_read_hides_no_other(
    client: HooksClient, writer: DeadLetterWriter, bus: Bus
) -> None:
    await bus.publish("dlq.hooks.shop.all.odd", b"{not json")
    await put(writer, [1])

    odd, good = await letters(client)

    assert ("all", "odd", "{not json") == (odd["hook"], odd["reason"], odd["body"])
    assert "cannot be read" in odd["message"]
    assert "no 1" == good["message"]
    reply = await replay(client)
    assert (1, 1) == (reply["sent"], reply["not_replayable"])


async def test_dead_letters_are_found_by_hook_reason_and_time(client: HooksClient, writer: DeadLetterWriter) -> None:
    await put(writer, [1], hook="all", reason="oversize")
    await put(writer, [2], hook="other")
    before = datetime.now(UTC).isoformat().replace("+00:00", "Z")
    await put(writer, [3], hook="entrance", reason="invalid")
    after = datetime.now(UTC).isoformat().replace("+00:00", "Z")
    await put(writer, [4], hook="all")

    found = {
        query: [letter["message"] for letter in await letters(client, query)]
        for query in (
            "?hook=all",
            "?reason=oversize",
            "?hook=entrance&reason=invalid",
            f"?since={before}",
            f"?until={before}",
            f"?since={before}&until={after}",
            f"?hook=all&since={after}",
            "?hook=nobody",
        )
    }

    assert [
        ["no 1", "no 4"],
        ["no 1"],
        ["no 3"],
        ["no 3", "no 4"],
        ["no 1", "no 2"],
        ["no 3"],
        ["no 4"],
        [],
    ] == list(found.values())


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("hook=*", "hook"),
        ("reason=a.b", "reason"),
        ("since=yesterday", "since"),
        ("since=2026-11-22T10:00:00", "since"),
        ("until=0.5", "until"),
        ("limit=0", "limit"),
        ("after=-1", "after"),
        ("since=2026-11-22T10:00:00Z&until=2026-11-22T10:00:00Z", "until"),
    ],
)
async def test_a_wrong_question_names_its_field(client: HooksClient, query: str, field: str) -> None:
    status, told = await client.ask("GET", f"/dead-letters?{query}")

    assert (400, field) == (status, told["error"]["field"])


async def test_a_tenant_reaches_its_own_dead_letters_alone(
    client: HooksClient, writer: DeadLetterWriter, hooks: RunningService, rival: dict[str, str], kinesis: FaultyKinesis
) -> None:
    await put(writer, range(3))
    (first, *_) = await letters(client)

    async with open_client(hooks.url, rival, "rival") as other:
        await other.connect(kinesis)
        await other.hook("all")
        assert [] == await letters(other)
        assert 404 == (await other.ask("GET", f"/dead-letters/{first['id']}"))[0]
        assert NOTHING == await replay(other)
        assert (200, {"purged": 0}) == await other.ask("DELETE", "/dead-letters")

    assert 3 == len(await letters(client))


@pytest.mark.parametrize("id", ["0", "999", "x", "1" * 30])
async def test_a_missing_dead_letter_is_not_found(client: HooksClient, id: str) -> None:
    assert 404 == (await client.ask("GET", f"/dead-letters/{id}"))[0]


async def test_a_replay_keeps_each_users_order_through_failures(
    client: HooksClient, writer: DeadLetterWriter, kinesis: FaultyKinesis
) -> None:
    # Records fail in another order than that of their events.
    await put(writer, [7, 5, *range(10, 120), 8, 6, 9], users=4)
    await put(writer, [3], hook="entrance", reason="invalid")
    kinesis.record_failure_rate = 0.1
    kinesis.call_faults.extend(["throttled", "none", "internal", "short"])

    reply = await replay(client, per_second=10_000)

    found = first_successes(kinesis.records("orders"))
    places = range(5, 120)
    assert {f"user-{user}": [f"e{place:04}" for place in places if place % 4 == user] for user in range(4)} == found
    assert (116, 115, 1, 0) == (reply["letters"], reply["sent"], reply["not_replayable"], reply["waiting"])
    assert reply["next"] is None
    assert ["entrance"] == [letter["hook"] for letter in await letters(client)]


async def test_a_replay_goes_on_where_the_call_before_ended(
    client: HooksClient, writer: DeadLetterWriter, kinesis: FaultyKinesis
) -> None:
    await put(writer, range(10))

    first = await replay(client, limit=4)
    await put(writer, [50])
    second = await replay(client, limit=4, after=first["next"])
    third = await replay(client, limit=4, after=second["next"])

    assert [f"e{place:04}" for place in range(10)] == ids(kinesis.records("orders"))
    assert [4, 4, 2] == [reply["sent"] for reply in (first, second, third)]
    # One that came later waits for another replay, or a replay of what is refused each time would have no end.
    assert third["next"] is None
    assert ["no 50"] == [letter["message"] for letter in await letters(client)]


async def test_a_replay_that_is_broken_off_loses_nothing_and_is_done_again_in_order(
    client: HooksClient, writer: DeadLetterWriter, kinesis: FaultyKinesis, hooks: RunningService
) -> None:
    await put(writer, range(60), users=3)
    kinesis.delay_s = 0.02
    running = asyncio.create_task(
        hooks.state.replays.run(
            DeadLetterFilter(app_key="shop"), after=None, limit=100, per_second=10_000, dry_run=False
        )
    )
    await kinesis.wait_records("orders", holds(20))

    with pytest.raises(ConflictError):
        await hooks.state.replays.run(
            DeadLetterFilter(app_key="shop"), after=None, limit=1, per_second=1, dry_run=False
        )
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    left = {letter["message"] for letter in await letters(client, "?limit=500")}
    stored = {f"no {int(record.value['id'][1:])}" for record in kinesis.records("orders")}
    assert {f"no {place}" for place in range(60)} == left | stored
    assert len(stored) < 60

    reply = await replay(client)

    assert (len(left), 0) == (reply["sent"], reply["waiting"])
    found = first_successes(kinesis.records("orders"))
    assert {f"user-{user}": [f"e{place:04}" for place in range(user, 60, 3)] for user in range(3)} == found
    assert [] == await letters(client)


async def test_a_record_that_is_refused_again_becomes_a_new_dead_letter(
    client: HooksClient, writer: DeadLetterWriter, kinesis: FaultyKinesis
) -> None:
    await put(writer, [1])
    (old,) = await letters(client)
    kinesis.call_faults.append("validation")

    reply = await replay(client)

    assert (0, 1) == (reply["sent"], reply["dead_lettered"])
    (new,) = await letters(client)
    assert new["id"] > old["id"]
    assert (old["source"], old["body"], 3) == (new["source"], new["body"], new["attempts"])


async def test_dead_letters_of_a_paused_target_wait(
    client: HooksClient, writer: DeadLetterWriter, kinesis: FaultyKinesis
) -> None:
    await put(writer, range(3))
    kinesis.denied_operations |= {"PutRecords", "PutRecord"}
    await client.post(events(1, users=1))

    async def waits() -> bool:
        return (await client.status("all"))["waits_because"] is not None

    await until(waits)
    reply = await replay(client)

    assert (0, 3, "all") == (reply["sent"], reply["waiting"], (await letters(client))[0]["hook"])
    assert reply["last_error"]
    kinesis.denied_operations.clear()
    await client.connect(kinesis, region="eu-central-1")
    await kinesis.wait_records("orders", holds(1))
    assert 3 == (await replay(client, after=reply["next"]))["sent"]


async def are_left(client: HooksClient, count: int) -> bool:
    return len(await letters(client)) == count


async def test_what_is_not_confirmed_when_the_service_stops_is_withdrawn(
    client: HooksClient, writer: DeadLetterWriter, kinesis: FaultyKinesis, hooks: RunningService
) -> None:
    state = hooks.state
    replays = Replays(state.dead_letters, state.targets, state.counters, Metrics(), now)
    await put(writer, range(6), users=2)
    kinesis.fails_record = lambda key, data: b"e0003" in data

    running = asyncio.create_task(
        replays.run(DeadLetterFilter(app_key="shop"), after=None, limit=10, per_second=10_000, dry_run=False)
    )

    await until(partial(are_left, client, 2))
    replays.close()
    await replays.join()
    reply = await running

    assert (4, 2, ["no 3", "no 5"]) == (
        reply.sent,
        reply.waiting,
        [letter["message"] for letter in await letters(client)],
    )
    kinesis.fails_record = None
    # Nothing of it is in the lanes any more: only the next replay sends it.
    assert 2 == (await replay(client, after=reply.next))["sent"]
    assert ["e0001", "e0003", "e0005"] == first_successes(kinesis.records("orders"))["user-1"]


async def test_what_is_confirmed_while_others_are_removed_is_removed_soon(
    client: HooksClient,
    writer: DeadLetterWriter,
    kinesis: FaultyKinesis,
    hooks: RunningService,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    state = hooks.state
    replays = Replays(state.dead_letters, state.targets, state.counters, Metrics(), now, work_s=1000)
    await put(writer, range(6), users=2)
    kinesis.fails_record = lambda key, data: b"e0003" in data
    remove = state.dead_letters.remove

    async def all_can_be_confirmed() -> bool:
        target = next(iter(state.targets.index.of_app("shop").rules.values())).target
        queue = state.targets.find(target)
        return queue is not None and len(queue.waiting()) == 2

    async def slowly(letters: list[int]) -> None:
        if letters:
            await until(all_can_be_confirmed)
        await remove(letters)

    monkeypatch.setattr(state.dead_letters, "remove", slowly)
    running = asyncio.create_task(
        replays.run(DeadLetterFilter(app_key="shop"), after=None, limit=10, per_second=10_000, dry_run=False)
    )

    await until(partial(are_left, client, 2))
    replays.close()

    assert 4 == (await running).sent


async def test_a_dry_run_counts_and_sends_nothing(
    client: HooksClient, writer: DeadLetterWriter, kinesis: FaultyKinesis
) -> None:
    await put(writer, range(3))
    await put(writer, [4], hook="gone")
    await put(writer, [5], filler="x" * 1_200_000)
    await put(writer, [6], hook="entrance")

    reply = await replay(client, dry_run=True)

    assert NOTHING | {"letters": 6, "replayable": 3, "inactive": 1, "not_replayable": 1, "oversize": 1} == reply
    assert (0, 6) == (kinesis.calls, len(await letters(client)))


async def test_a_replay_is_no_faster_than_per_second_says(
    client: HooksClient, writer: DeadLetterWriter, kinesis: FaultyKinesis
) -> None:
    await put(writer, range(10), users=10)
    started = asyncio.get_running_loop().time()

    reply = await replay(client, per_second=20)

    assert 10 == reply["sent"]
    assert asyncio.get_running_loop().time() - started >= 0.45


async def test_dead_letters_are_purged_by_hook_reason_and_time(client: HooksClient, writer: DeadLetterWriter) -> None:
    await put(writer, range(3))
    await put(writer, [3], hook="other")
    await put(writer, [4], reason="oversize")
    await put(writer, [5], app_key="rival")
    middle = datetime.now(UTC).isoformat().replace("+00:00", "Z")
    await put(writer, range(6, 8))

    assert (200, {"purged": 1}) == await client.ask("DELETE", "/dead-letters?hook=other")
    assert (200, {"purged": 3}) == await client.ask("DELETE", f"/dead-letters?reason=rejected&until={middle}")
    assert ["no 4", "no 6", "no 7"] == [letter["message"] for letter in await letters(client)]
    assert (200, {"purged": 3}) == await client.ask("DELETE", "/dead-letters")
    assert [] == await letters(client)


async def test_dead_letters_before_since_are_not_purged(
    client: HooksClient, writer: DeadLetterWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "PURGED_AT_ONCE", 2)
    moments = []
    for first in (0, 3, 8):
        moments.append(datetime.now(UTC).isoformat().replace("+00:00", "Z"))
        await put(writer, range(first, first + 3))
    await put(writer, [6, 7], hook="other")

    for query in ("since=2099-01-01T00:00:00Z", f"since={moments[1]}&hook=nothing"):
        assert (200, {"purged": 0}) == await client.ask("DELETE", f"/dead-letters?{query}")
    assert 11 == len(await letters(client))
    assert (200, {"purged": 3}) == await client.ask(
        "DELETE", f"/dead-letters?since={moments[1]}&until={moments[2]}&hook=all"
    )
    assert (200, {"purged": 5}) == await client.ask("DELETE", f"/dead-letters?since={moments[1]}")
    assert ["no 0", "no 1", "no 2"] == [letter["message"] for letter in await letters(client)]


@pytest.mark.parametrize("query", ["hok=typo", "sinze=2099-01-01T00:00:00Z", "hook=a&hook=b"])
async def test_misspelt_filter_purges_nothing(client: HooksClient, writer: DeadLetterWriter, query: str) -> None:
    await put(writer, range(3))

    status, told = await client.ask("DELETE", f"/dead-letters?{query}")

    assert (400, query.partition("=")[0]) == (status, told["error"]["field"])
    assert 3 == len(await letters(client))


async def test_no_dead_letter_holds_a_secret_of_the_configuration(
    client: HooksClient, kinesis: FaultyKinesis, bus: Bus
) -> None:
    kinesis.call_faults.append("validation")
    await client.post([{"id": "e1", "code": "c", "user_id": "ann", "attributes": {"note": f"key {SECRET}!"}}])
    await bus.publish("events.shop.0", f'{{"secret_key": "{SECRET}"}}'.encode())

    async def both() -> bool:
        return len(await letters(client)) == 2

    await until(both)

    found = json.dumps(await letters(client))
    assert SECRET not in found
    assert "key ***!" in found
    assert 1 == (await replay(client, hook="all"))["sent"]
    assert "key ***!" == kinesis.records("orders")[0].value["event"]["attributes"]["note"]
