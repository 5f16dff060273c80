"""Preview and lag of a hook, over HTTP."""

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from shared.contracts import streams
from shared.messaging.bus import Bus
from shared.messaging.provisioning.making import ensure
from shared.profiles.store import Profiles
from shared.runtime.settings import Settings
from shared.service import RunningService
from support.clients.hooks import HooksClient, events, holds, open_client, wait_acknowledged
from support.servers.kinesis import FaultyKinesis
from support.waiting import until

SCHEMA = json.loads((Path(__file__).parents[4] / "docs/schemas/hook.event.v1.json").read_text())


@pytest.fixture
async def client(client: HooksClient) -> HooksClient:
    """Tenant `shop` with an inactive hook and no connector: nothing can be sent."""
    await client.hook("all", active=False, event_code="purchase")
    return client


async def preview(client: HooksClient, form: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return the preview of the hook `all`."""
    status, told = await client.ask("POST", "/hooks/all/preview", form)
    assert status == 200, told
    shown: dict[str, Any] = told
    return shown


async def test_an_event_is_rendered_as_it_would_be_sent(
    client: HooksClient, kinesis: FaultyKinesis, bus: Bus, settings: Settings
) -> None:
    await ensure(bus, streams.PROFILES, settings)
    await Profiles(bus).merge("shop", "x1", attributes={"city": "Ankara"})
    event = {"id": "e1", "code": "purchase", "user_id": "u" * 300, "ext_id": "x1", "occurred_at": 7}

    shown = await preview(client, {"event": event})

    ((record, key),) = [(one["record"], one["partition_key"]) for one in shown["records"]]
    jsonschema.validate(record, SCHEMA, cls=jsonschema.Draft202012Validator)
    assert ("e1", "all", {"city": "Ankara"}) == (record["id"], record["hookId"], record["user"]["attributes"])
    assert (64, True, False) == (len(key), shown["records"][0]["matches"], shown["records"][0]["oversize"])
    assert len(json.dumps(record, separators=(",", ":"))) + 64 == shown["records"][0]["size_bytes"]
    assert 0 == kinesis.calls


async def test_a_record_that_would_be_too_large_is_reported(client: HooksClient, bus: Bus, settings: Settings) -> None:
    await ensure(bus, streams.PROFILES, settings)
    await Profiles(bus).merge("shop", "x1", attributes={f"a{number}": "y" * 1000 for number in range(200)})
    event = {"code": "purchase", "user_id": "u", "ext_id": "x1", "attributes": {"a": "x" * 900_000}}

    (shown,) = (await preview(client, {"event": event}))["records"]

    assert shown["oversize"]
    assert shown["size_bytes"] > 1 << 20


async def test_an_event_for_which_the_hook_does_not_fire_is_rendered_and_reported(client: HooksClient) -> None:
    (shown,) = (await preview(client, {"event": {"code": "login", "user_id": "u"}}))["records"]

    assert (False, "login") == (shown["matches"], shown["record"]["event"]["code"])


@pytest.mark.parametrize(
    ("form", "field"),
    [
        ({"event": {"code": "c"}}, "event.user_id"),
        ({"event": {"code": "c", "user_id": "u", "ext_id": "e" * 2600}}, "event.ext_id"),
        ({"event": {"code": "c", "user_id": ""}}, "event.user_id"),
        ({"event": {"code": "c", "user_id": "u", "app_key": "rival"}}, "event.app_key"),
        ({"last": 0}, "last"),
        ({"last": 101}, "last"),
        ({"last": 1, "event": {"code": "c", "user_id": "u"}}, "last"),
    ],
)
async def test_a_form_that_is_wrong_names_its_field(client: HooksClient, form: dict[str, Any], field: str) -> None:
    status, told = await client.ask("POST", "/hooks/all/preview", form)

    assert (400, field) == (status, told["error"]["field"])


async def test_an_empty_external_id_is_none(client: HooksClient) -> None:
    shown = await preview(client, {"event": {"code": "purchase", "user_id": "u", "ext_id": ""}})

    assert {} == shown["records"][0]["record"]["identities"]


async def test_a_hook_that_is_not_there_is_not_found(client: HooksClient) -> None:
    assert 404 == (await client.ask("POST", "/hooks/nobody/preview"))[0]


async def test_the_newest_events_that_match_are_rendered_in_their_order(
    client: HooksClient, kinesis: FaultyKinesis, hooks: RunningService, rival: dict[str, str], bus: Bus
) -> None:
    # One message each, so that the first windows are too small.
    for number, event in enumerate(events(30, users=1)):
        await client.post([event])
        async with open_client(hooks.url, rival, "rival") as other:
            for place in range(10):
                await other.post([event | {"id": f"r{number}-{place}"}])
    await client.post([{"id": f"l{place}", "code": "login", "user_id": "u"} for place in range(5)])

    shown, first = await preview(client, {"last": 25}), await preview(client)
    everything = await preview(client, {"last": 100})

    assert [f"e{place:06}" for place in range(5, 30)] == [one["record"]["id"] for one in shown["records"]]
    assert [f"e{place:06}" for place in range(20, 30)] == [one["record"]["id"] for one in first["records"]]
    assert 30 == len(everything["records"])
    last = (await bus.stream_state(streams.EVENTS)).last_sequence
    assert {"first_sequence": 1, "last_sequence": last, "messages": 31, "all": True} == everything["looked"]
    assert not first["looked"]["all"]
    assert 0 == kinesis.calls


async def test_an_empty_stream_has_nothing_to_show(client: HooksClient) -> None:
    shown = await preview(client, {"last": 5})

    assert [] == shown["records"]
    assert shown["looked"]["all"]


async def test_the_numbers_show_what_waits_and_for_how_long(
    client: HooksClient, kinesis: FaultyKinesis, hooks: RunningService, bus: Bus
) -> None:
    await client.connect(kinesis)
    await client.hook("all", event_code="purchase")
    kinesis.fails_record = lambda key, data: b'"id":"e000003"' in data
    await client.post(events(10, users=1))
    await kinesis.wait_records("orders", holds(3))

    async def lags() -> bool:
        return bool((await client.status("all"))["lag_s"] > 0.1)

    await until(lags)
    status = await client.status("all")
    assert (10, 3, 7) == (status["matched"], status["sent"], status["waiting"])
    assert "ProvisionedThroughputExceededException" in status["last_error"]
    assert status["last_error_at"] is not None
    await until(lambda: b"millrace_hooks_waiting_records 7.0" in hooks.mesh.metrics.render())
    assert b"millrace_hooks_lag_seconds 0.0" not in hooks.mesh.metrics.render()

    kinesis.fails_record = None
    await wait_acknowledged(bus)
    status = await client.status("all")
    assert (10, 0, 0.0) == (status["sent"], status["waiting"], status["lag_s"])
    await until(lambda: b"millrace_hooks_waiting_records 0.0" in hooks.mesh.metrics.render())
    assert b"millrace_hooks_lag_seconds 0.0" in hooks.mesh.metrics.render()
