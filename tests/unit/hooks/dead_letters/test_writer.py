"""Dead letters of records that cannot be delivered."""

import json

import pytest

from hooks.dead_letters.writer import DeadLetterWriter, ReplayedRecord
from hooks.delivery.counters import HookCounters
from shared.contracts.messages import DeadLetter, decode
from shared.errors import BusyError, MillraceError, UnavailableError
from shared.messaging.bus import Published
from shared.runtime.telemetry import Metrics
from support.fakes.sink import NOW, TARGET, make_record


class Bus:
    """A bus that accepts messages after its configured failures."""

    max_payload = 20_000

    def __init__(self, *failures: MillraceError) -> None:
        self.failures = list(failures)
        self.remembers = False
        self.taken: list[tuple[str, bytes, str | None]] = []

    async def publish(self, subject: str, data: bytes, *, message_id: str | None = None) -> Published:
        if self.failures:
            raise self.failures.pop()
        assert len(data) <= self.max_payload
        duplicate = self.remembers and message_id in [taken for *_, taken in self.taken]
        if not duplicate:
            self.taken.append((subject, data, message_id))
        return Published(len(self.taken), duplicate)


def make_box(bus: Bus) -> DeadLetterWriter:
    return DeadLetterWriter(bus, Metrics(), lambda: NOW)


async def test_a_dead_letter_names_its_owner_and_its_source() -> None:
    bus, counters = Bus(), HookCounters(lambda: NOW)
    record = make_record(
        key="ann", data=b'{"a":1}', hook_id="all", source="EVENTS:7:1", counters=counters, done=lambda _: None
    )

    await make_box(bus).put_record(TARGET, record, "oversize", "too large")

    ((subject, data, message_id),) = bus.taken
    assert ("dlq.hooks.shop.all.oversize", "all:shop:EVENTS:7:1") == (subject, message_id)
    assert DeadLetter(
        service="hooks",
        app_key="shop",
        owner_id="all",
        reason="oversize",
        message="too large",
        at=NOW,
        source="EVENTS:7:1",
        attempts=1,
        key="ann",
        body='{"a":1}',
    ) == decode(data, DeadLetter)
    assert 1 == counters.dead_lettered


async def test_a_dead_letter_that_is_stored_already_is_not_counted_twice() -> None:
    bus, counters, metrics = Bus(), HookCounters(lambda: NOW), Metrics()
    bus.remembers = True
    box = DeadLetterWriter(bus, metrics, lambda: NOW)
    record = make_record(
        key="ann", data=b"{}", hook_id="all", source="EVENTS:7:1", counters=counters, done=lambda _: None
    )

    for _ in range(2):
        # The partition was lost before its message was acknowledged.
        counters.matched += 1
        await box.put_record(TARGET, record, "rejected", "no")

    assert (1, 1) == (counters.matched, counters.dead_lettered)
    assert b'millrace_hooks_dead_letters_total{reason="rejected"} 1.0' in metrics.render()


async def test_a_dead_letter_whose_first_answer_was_lost_is_counted() -> None:
    bus, counters = Bus(UnavailableError("no answer")), HookCounters(lambda: NOW)
    bus.remembers = True
    record = make_record(
        key="ann", data=b"{}", hook_id="all", source="EVENTS:7:1", counters=counters, done=lambda _: None
    )
    bus.taken.append(("", b"", "all:shop:EVENTS:7:1"))

    await make_box(bus).put_record(TARGET, record, "rejected", "no")

    assert (0, 1) == (counters.matched, counters.dead_lettered)


async def test_a_put_waits_until_the_dead_letter_is_stored() -> None:
    bus = Bus(BusyError("full"), BusyError("full"))

    await make_box(bus).put("shop", "entrance", "invalid", message="m", source="EVENTS:7", body=b"x")

    assert 1 == len(bus.taken)


@pytest.mark.parametrize("body", [b"x" * 100_000, b"\x00\xff" * 50_000, "ü\n".encode() * 50_000])
async def test_a_body_that_no_message_can_hold_is_cut(body: bytes) -> None:
    bus = Bus()

    await make_box(bus).put("shop", "entrance", "invalid", message="m", source="EVENTS:7", body=body)

    letter = decode(bus.taken[0][1], DeadLetter)
    assert 1000 < len(letter.body) < len(body)
    assert letter.message.endswith("cut here")
    assert letter.cut


async def test_a_replayed_record_becomes_another_dead_letter_than_its_first() -> None:
    bus, counters = Bus(), HookCounters(lambda: NOW)
    record = ReplayedRecord(
        dead_letter_id=12,
        key="ann",
        data=b"{}",
        size=5,
        hook_id="all",
        source="EVENTS:7:1",
        attempts=2,
        counters=counters,
        done=lambda _: None,
    )

    await make_box(bus).put_record(TARGET, record, "rejected", "no")

    # The server would drop a second one of the first letter's id, and the first is taken out then.
    assert "all:shop:EVENTS:7:1:12" == bus.taken[0][2]


@pytest.mark.parametrize("secret", ["s3cr3t+key/=", 'quo"ted\\key'])
async def test_a_secret_of_the_app_is_in_no_dead_letter(secret: str) -> None:
    bus = Bus()
    box = DeadLetterWriter(bus, Metrics(), lambda: NOW, lambda app_key: [secret, "short"] if app_key == "shop" else [])
    body = json.dumps({"note": f"my {secret} is short", "text": secret}).encode()

    for app_key in ("shop", "rival"):
        await box.put(app_key, "all", "rejected", message="m", source="EVENTS:7:1", body=body)

    mine, theirs = (json.loads(decode(data, DeadLetter).body) for _, data, _ in bus.taken)
    assert {"note": "my *** is short", "text": "***"} == mine
    assert secret == theirs["text"]
