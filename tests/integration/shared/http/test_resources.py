"""Configuration over HTTP: the same routes for every kind."""

from collections.abc import AsyncIterator
from typing import Annotated, Any

import aiohttp
import pytest
from msgspec import Meta, Struct

from shared.config.registry import Kind
from shared.config.secret import Secret
from shared.contracts.streams import CONFIG
from shared.errors import InvalidError
from shared.http.resources import resource_routes
from shared.http.server import Call
from shared.runtime.settings import Settings
from shared.service import Mesh, Service
from support.run_service import running


class Hook(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    stream_name: Annotated[str, Meta(min_length=1, max_length=128)]
    active: bool = True


class Connector(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    region: str
    secret_key: Secret


async def check(call: Call[Any], new: Hook, old: Hook | None) -> Hook:
    if new.stream_name == "forbidden":
        raise InvalidError("expected another stream", field="stream_name")
    return new


HOOKS: Kind[Hook] = Kind(prefix="hooks", type=Hook, reserved=frozenset({"taken"}))
KINESIS: Kind[Connector] = Kind(prefix="connectors", type=Connector, fixed_id="kinesis")
ROUTES = (
    *resource_routes(HOOKS, "/v1/apps/{app_key}/hooks", "a hook", check=check),
    *resource_routes(KINESIS, "/v1/apps/{app_key}/connectors/kinesis", "the Kinesis connector"),
)


async def build(mesh: Mesh) -> None:
    return None


@pytest.fixture
async def http(settings: Settings, shop: dict[str, str]) -> AsyncIterator[aiohttp.ClientSession]:
    service = Service(name="test", build=build, routes=ROUTES, buckets=(CONFIG,), kinds=(HOOKS, KINESIS))
    async with running(service, settings) as served, aiohttp.ClientSession(served.url, headers=shop) as session:
        yield session


async def put(http: aiohttp.ClientSession, path: str, body: object, **query: str) -> tuple[int, Any]:
    async with http.put(f"/v1/apps/shop/{path}", json=body, params=query) as response:
        return response.status, await response.json()


async def get(http: aiohttp.ClientSession, path: str) -> tuple[int, Any]:
    async with http.get(f"/v1/apps/shop/{path}") as response:
        return response.status, await response.json()


async def test_an_id_with_a_meaning_of_its_own_is_refused(http: aiohttp.ClientSession) -> None:
    status, answer = await put(http, "hooks/taken", {"stream_name": "one"}, dry_run="true")

    assert (400, "id") == (status, answer["error"]["field"])
    assert "expected another id: 'taken'" in answer["error"]["message"]
    assert (await get(http, "hooks"))[1]["items"] == []


async def test_a_put_creates_changes_or_leaves_as_it_is(http: aiohttp.ClientSession) -> None:
    created = await put(http, "hooks/a", {"stream_name": "one"})
    unchanged = await put(http, "hooks/a", {"stream_name": "one", "active": True})
    updated = await put(http, "hooks/a", {"stream_name": "two"})

    assert [answer["change"] for _, answer in (created, unchanged, updated)] == ["created", "unchanged", "updated"]
    assert updated[1]["fields"] == ["stream_name"]
    assert created[1]["revision"] == unchanged[1]["revision"] < updated[1]["revision"]
    assert await get(http, "hooks/a") == (200, {"stream_name": "two", "active": True})


async def test_a_dry_run_reports_the_changes_and_makes_none(http: aiohttp.ClientSession) -> None:
    status, would = await put(http, "hooks/a", {"stream_name": "one"}, dry_run="true")

    assert (status, would["change"], would["fields"], would["dry_run"]) == (
        200,
        "created",
        ["stream_name", "active"],
        True,
    )
    assert (await get(http, "hooks/a"))[0] == 404


async def test_a_secret_goes_in_and_never_comes_out(http: aiohttp.ClientSession) -> None:
    await put(http, "connectors/kinesis", {"region": "eu-west-1", "secret_key": "hunter2-hunter2"})

    assert await get(http, "connectors/kinesis") == (200, {"region": "eu-west-1", "secret_key": "***"})


@pytest.mark.parametrize("body", [{"region": "eu-west-2"}, {"region": "eu-west-2", "secret_key": "***"}])
async def test_a_put_without_the_secret_keeps_it(http: aiohttp.ClientSession, body: dict[str, str]) -> None:
    await put(http, "connectors/kinesis", {"region": "eu-west-1", "secret_key": "hunter2-hunter2"})

    _, updated = await put(http, "connectors/kinesis", body)
    _, same = await put(http, "connectors/kinesis", {"region": "eu-west-2", "secret_key": "hunter2-hunter2"})

    assert (updated["fields"], same["change"]) == (["region"], "unchanged")


async def test_a_changed_secret_is_named_and_not_shown(http: aiohttp.ClientSession) -> None:
    await put(http, "connectors/kinesis", {"region": "eu-west-1", "secret_key": "hunter2-hunter2"})

    _, change = await put(
        http, "connectors/kinesis", {"region": "eu-west-1", "secret_key": "correct-horse"}, dry_run="1"
    )

    assert (change["change"], change["fields"]) == ("updated", ["secret_key"])
    assert "horse" not in str(change)


@pytest.mark.parametrize(
    ("path", "body", "field", "told"),
    [
        ("hooks/a", {"stream_nam": "x", "stream_name": "y"}, "stream_nam", "unknown field"),
        ("hooks/a", {"stream_name": ""}, "stream_name", "length >= 1"),
        ("hooks/a", {}, "stream_name", "missing required field"),
        ("hooks/a", {"stream_name": "forbidden"}, "stream_name", "expected another stream"),
        ("hooks/a b", {"stream_name": "x"}, "id", "letters, digits"),
        ("hooks/a", ["x"], None, "expected a JSON object"),
        ("connectors/kinesis", {"region": "x"}, "secret_key", "missing required field"),
    ],
)
async def test_an_invalid_field_is_named(
    http: aiohttp.ClientSession, path: str, body: object, field: str | None, told: str
) -> None:
    status, answer = await put(http, path, body)

    assert (status, answer["error"]["code"], answer["error"].get("field")) == (400, "invalid", field)
    assert told in answer["error"]["message"]


async def test_a_list_shows_every_entry_of_the_app(http: aiohttp.ClientSession) -> None:
    for name in ("b", "a"):
        await put(http, f"hooks/{name}", {"stream_name": name})

    _, answer = await get(http, "hooks")

    assert [(item["id"], item["value"]["stream_name"]) for item in answer["items"]] == [("a", "a"), ("b", "b")]


async def test_a_deleted_resource_is_not_found(http: aiohttp.ClientSession) -> None:
    await put(http, "hooks/a", {"stream_name": "one"})

    async with http.delete("/v1/apps/shop/hooks/a") as first, http.delete("/v1/apps/shop/hooks/a") as second:
        assert (first.status, second.status) == (204, 404)
