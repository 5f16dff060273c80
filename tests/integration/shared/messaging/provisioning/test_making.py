"""All of a configuration is managed: made once, put right where it differs, and told, on a real server."""

import asyncio
import json
from typing import Any

import msgspec
import pytest

from shared.contracts import streams
from shared.contracts.consumers import HOOKS_CONSUMERS, PROFILES_READER, PUSH_ENGINE_READER, DurableConsumer
from shared.contracts.messages import Alert, decode
from shared.contracts.streams import ALERTS, CONFIG, EVENTS, PUSH, Bucket, Stream
from shared.contracts.subjects import push_send
from shared.errors import ConflictError, UnavailableError
from shared.messaging.bus import Bus
from shared.messaging.consumers import open_pull
from shared.messaging.provisioning.configurations import stream_of
from shared.messaging.provisioning.looking import find_problems, wait_provisioned
from shared.messaging.provisioning.making import ensure, ensure_consumer, provision, provision_mesh
from shared.runtime.settings import Settings
from support.stored_messages import messages

FOREIGN = {
    "republish": {"src": "push.send.*.*", "dest": "$KV.CONFIG.tokens.forged"},
    "sources": [{"name": "ALERTS"}],
    "subject_transform": {"src": "push.send.*.*", "dest": "push.send.evil.{{wildcard(2)}}"},
    "max_age": 3_600_000_000_000,
    "max_msgs": 5,
    "max_msg_size": 1 << 20,
    "no_ack": True,
    "allow_rollup_hdrs": True,
    "consumer_limits": {"max_ack_pending": 1},
    "discard": "old",
    "allow_direct": True,
}
"""A change by hand of each kind that a server takes; earlier releases made streams with `allow_direct`."""


async def ask(bus: Bus, subject: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads((await bus.client.request(subject, json.dumps(body or {}).encode())).data)
    assert "error" not in answer, answer
    return answer


async def config_of(bus: Bus, spec: Stream | Bucket) -> dict[str, Any]:
    found: dict[str, Any] = (await ask(bus, f"$JS.API.STREAM.INFO.{stream_of(spec)}"))["config"]
    return found


async def change(bus: Bus, spec: Stream | Bucket, **fields: object) -> None:
    """Change a stream as someone with the right to update it would."""
    await ask(bus, f"$JS.API.STREAM.UPDATE.{stream_of(spec)}", {**await config_of(bus, spec), **fields})


@pytest.mark.parametrize("field", sorted(FOREIGN))
async def test_change_by_hand_is_seen_by_services_put_back_and_told(bus: Bus, settings: Settings, field: str) -> None:
    for spec in (ALERTS, PUSH):
        await ensure(bus, spec, settings)
    before = await config_of(bus, PUSH)
    await change(bus, PUSH, **{field: FOREIGN[field]})

    [problem] = await find_problems(bus, (ALERTS, PUSH), ())
    done = await ensure(bus, PUSH, settings)

    assert f"stream PUSH: {field}: expected " in problem
    assert done is not None
    assert [field] == [one.field for one in done.differences]
    assert before == await config_of(bus, PUSH)
    assert [] == await find_problems(bus, (ALERTS, PUSH), ())


async def test_addition_that_no_release_makes_is_alerted(bus: Bus, settings: Settings) -> None:
    await provision_mesh(settings, wait_s=5)
    await change(bus, PUSH, republish=FOREIGN["republish"])

    changed = await provision_mesh(settings, wait_s=5)

    [alert] = [decode(message.data, Alert) for message in await messages(bus, ALERTS, "alerts.provision.*.*")]
    assert ["stream PUSH"] == [one.title for one in changed]
    assert ("configuration-put-back", "stream PUSH") == (alert.kind, alert.subject)
    assert "republish: expected nothing, found" in alert.message
    assert "tokens.forged" in alert.message


async def test_old_events_that_nobody_reads_are_alerted(bus: Bus, settings: Settings) -> None:
    await provision_mesh(settings, wait_s=5)
    await bus.publish("events.shop.7", b"[]")
    await provision_mesh(settings, wait_s=5)
    assert [] == await messages(bus, ALERTS, "alerts.provision.*.*")
    await change(bus, EVENTS, subjects=["events.*.*"])
    for subject in ("events.shop.16", "events.shop.16", "events.shop.07", "events.shop.x"):
        await bus.publish(subject, b"[]")

    await provision_mesh(settings, wait_s=5)

    [alert] = [decode(message.data, Alert) for message in await messages(bus, ALERTS, "alerts.provision.-.*")]
    assert ("events-unread", "EVENTS") == (alert.kind, alert.subject)
    assert alert.message.startswith("4 messages lie under 3 subjects that hooks does not read, such as events.shop.07:")


async def test_description_placement_and_foreign_metadata_stay(bus: Bus, settings: Settings) -> None:
    await ensure(bus, PUSH, settings)
    metadata = (await config_of(bus, PUSH))["metadata"]
    await change(bus, PUSH, description="watched by the night shift", metadata={**metadata, "team": "night"})

    assert await ensure(bus, PUSH, settings) is None
    await ensure(bus, PUSH, msgspec.structs.replace(settings, stream_max_bytes="PUSH=1073741824"))

    config = await config_of(bus, PUSH)
    assert ("watched by the night shift", "night") == (config["description"], config["metadata"]["team"])
    assert 1 << 30 == config["max_bytes"]


async def test_services_take_the_limits_that_provision_was_told(bus: Bus, settings: Settings) -> None:
    larger = msgspec.structs.replace(settings, events_max_age_h=96.0, events_max_bytes=1 << 30)

    await ensure(bus, EVENTS, larger)

    assert [] == await find_problems(bus, (EVENTS,), ())
    await change(bus, EVENTS, max_age=48 * 3_600_000_000_000)
    [problem] = await find_problems(bus, (EVENTS,), ())
    assert "stream EVENTS: max_age: expected 345600 s, found 172800 s" == problem


async def test_field_that_cannot_be_changed_is_named_with_both_values(bus: Bus, settings: Settings) -> None:
    await ask(bus, "$JS.API.STREAM.CREATE.PUSH", {"name": "PUSH", "subjects": ["push.send.*.*"], "storage": "memory"})

    with pytest.raises(ConflictError, match=r'stream PUSH: .*storage: expected "file", found "memory"'):
        await ensure(bus, PUSH, settings)


async def test_stream_that_the_disk_has_no_room_for_names_the_setting(bus: Bus, settings: Settings) -> None:
    with pytest.raises(UnavailableError, match=r"stream EVENTS reserves .* GiB of disk.*MILLRACE_EVENTS_MAX_BYTES"):
        await ensure(bus, EVENTS, msgspec.structs.replace(settings, events_max_bytes=1 << 60))


async def test_consumer_of_the_release_before_keeps_its_floor(bus: Bus, settings: Settings) -> None:
    await ensure(bus, PUSH, settings)
    # As the readers made it themselves.
    config = {
        "name": "push-engine",
        "durable_name": "push-engine",
        "filter_subject": "push.send.*.*",
        "ack_policy": "all",
        "ack_wait": 86400 * 10**9,
        "max_ack_pending": 100_000,
        "max_deliver": -1,
        "deliver_policy": "all",
    }
    created = {"stream_name": "PUSH", "config": config}
    await ask(bus, "$JS.API.CONSUMER.CREATE.PUSH.push-engine.push.send.*.*", created)
    for number in range(3):
        await bus.publish(push_send("shop", "f"), b"%d" % number)
    async with open_pull(bus, PUSH_ENGINE_READER) as pull:
        first = await pull.next(1)
        await pull.ack_sync(first[0])

    assert await ensure_consumer(bus, PUSH_ENGINE_READER) is None

    async with open_pull(bus, PUSH_ENGINE_READER) as pull:
        assert b"1" == (await pull.next(1))[0].data


@pytest.mark.parametrize(
    ("field", "value"), [("max_ack_pending", 7), ("headers_only", True), ("filter_subject", "push.send.evil.*")]
)
async def test_changed_consumer_is_seen_by_its_reader_and_put_back(push: Bus, field: str, value: object) -> None:
    consumer = PUSH_ENGINE_READER
    await ensure_consumer(push, consumer)
    found = (await ask(push, "$JS.API.CONSUMER.INFO.PUSH.push-engine"))["config"] | {field: value}
    subject = f"$JS.API.CONSUMER.CREATE.PUSH.push-engine.{found['filter_subject']}"
    await ask(push, subject, {"stream_name": "PUSH", "config": found, "action": "update"})

    [problem] = await find_problems(push, (), (consumer,))
    done = await ensure_consumer(push, consumer)

    assert problem.startswith(f"consumer push-engine of stream PUSH: {field}: expected ")
    assert done is not None
    assert [field] == [one.field for one in done.differences]
    assert [] == await find_problems(push, (), (consumer,))


async def test_missing_ones_are_all_named_with_the_command(bus: Bus, settings: Settings) -> None:
    await ensure(bus, EVENTS, settings)

    with pytest.raises(UnavailableError) as caught:
        await wait_provisioned(bus, (EVENTS, CONFIG), (HOOKS_CONSUMERS[3], PROFILES_READER), wait_s=0)

    assert (
        "NATS is not provisioned for this release: bucket CONFIG is missing | consumer hooks-p03 of stream EVENTS is"
        " missing | consumer ftp-gateway-profiles of stream PROFILE_UPDATES is missing; run `millrace provision`"
    ) == caught.value.message


async def test_one_that_waits_goes_on_when_it_is_provisioned(bus: Bus, settings: Settings) -> None:
    waiting = asyncio.create_task(wait_provisioned(bus, (CONFIG, EVENTS), HOOKS_CONSUMERS))
    await asyncio.sleep(0)

    await provision(bus, settings, specs=(EVENTS, CONFIG), consumers=HOOKS_CONSUMERS)

    async with asyncio.timeout(20):
        await waiting


async def test_reader_of_a_consumer_that_is_missing_makes_none(push: Bus) -> None:
    with pytest.raises(Exception, match="consumer not found"):
        async with open_pull(push, DurableConsumer(stream=streams.PUSH, name="nobodys", subject="push.send.*.*")):
            pass

    assert [] == [one.name for one in await push.js.consumers_info("PUSH") if one.name == "nobodys"]
