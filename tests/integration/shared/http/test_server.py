"""Checks of the listener before a handler is called, and answers without a handler."""

from collections.abc import AsyncIterator
from typing import Annotated, Any, Literal

import aiohttp
import pytest
from msgspec import Meta

from shared.contracts.streams import CONFIG
from shared.http.routes import Query, Route
from shared.http.server import Call
from shared.service import Mesh, Service
from support.run_service import RunService


async def asked(call: Call[None]) -> dict[str, Any]:
    return {**call.query_values}


async def nothing(call: Call[None]) -> None:
    return None


async def build(mesh: Mesh) -> None:
    return None


QUERY: dict[str, str | Query] = {
    "limit": Query("How many", Annotated[int, Meta(ge=1, le=9)], 5, formerly="most"),
    "kind": Query("Which", Literal["red", "blue"]),
    "strict": Query("All or nothing", bool, False),
    "after": "Where to begin",
}
ROUTES = (
    Route("GET", "/v1/things", asked, "List", scope="open", query=QUERY),
    Route("GET", "/v1/things/{id}", nothing, "Show", scope="open", status=204),
    Route("DELETE", "/v1/things/{id}", nothing, "Delete", scope="open", status=204),
    Route("GET", "/v1/files/{path:.+}", nothing, "Show a file", scope="open", status=204),
)


@pytest.fixture
async def http(run_service: RunService) -> AsyncIterator[aiohttp.ClientSession]:
    service = Service(name="toy", build=build, routes=ROUTES, buckets=(CONFIG,))
    async with run_service(service) as served, aiohttp.ClientSession(served.url) as session:
        yield session


async def get(http: aiohttp.ClientSession, path: str) -> tuple[int, Any]:
    async with http.get(path) as response:
        return response.status, await response.json()


async def test_query_parameters_come_by_their_types_and_by_their_defaults(http: aiohttp.ClientSession) -> None:
    assert (200, {"limit": 5, "kind": None, "strict": False, "after": None}) == await get(http, "/v1/things")
    assert (200, {"limit": 9, "kind": "blue", "strict": True, "after": "a b"}) == await get(
        http, "/v1/things?limit=9&kind=blue&strict=true&after=a+b"
    )


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("limit=0", "limit"),
        ("limit=", "limit"),
        ("limit=ten", "limit"),
        ("limit=1&limit=2", "limit"),
        ("kind=green", "kind"),
        ("strict=perhaps", "strict"),
        ("after=1&after=2", "after"),
        ("unknown=1", "unknown"),
        ("limit=5&Limit=5", "Limit"),
        ("unknown", "unknown"),
        ("x" * 100, "x" * 64),
    ],
)
async def test_query_parameter_that_is_not_of_its_type_is_refused_by_name(
    http: aiohttp.ClientSession, query: str, field: str
) -> None:
    status, problem = await get(http, f"/v1/things?{query}")

    assert (400, "invalid", field) == (status, problem["error"]["code"], problem["error"]["field"])


async def test_unknown_query_parameter_is_answered_with_the_known_ones(http: aiohttp.ClientSession) -> None:
    _, some = await get(http, "/v1/things?limt=5")
    _, none = await get(http, "/v1/things/a?limit=5")

    assert "there is no such query parameter; expected one of limit, kind, strict, after" == some["error"]["message"]
    assert "there is no such query parameter; expected none" == none["error"]["message"]


async def test_former_name_of_a_query_parameter_is_understood(http: aiohttp.ClientSession) -> None:
    assert 7 == (await get(http, "/v1/things?most=7"))[1]["limit"]
    assert "limit" == (await get(http, "/v1/things?most=7&limit=7"))[1]["error"]["field"]


@pytest.mark.parametrize("id", ["a.b", "a%20b", "%00", "x" * 65, "%2E%2E"])
async def test_part_of_the_path_that_is_no_identifier_is_refused(http: aiohttp.ClientSession, id: str) -> None:
    async with http.get(f"/v1/things/{id}") as response:
        told = (await response.json())["error"]

        assert response.status in {400, 404}
        assert told["code"] in {"invalid", "not_found"}


async def test_part_of_the_path_with_a_pattern_of_its_own_is_left_to_it(http: aiohttp.ClientSession) -> None:
    async with http.get("/v1/files/a.b/c d") as response:
        assert 204 == response.status


async def test_method_not_allowed_names_the_allowed_methods(http: aiohttp.ClientSession) -> None:
    async with http.put("/v1/things/a") as response:
        assert (405, {"DELETE", "GET", "HEAD"}) == (response.status, set(response.headers["Allow"].split(",")))
        assert {"error": {"code": "invalid", "message": "Method Not Allowed"}} == await response.json()


async def test_head_is_answered_where_get_is(http: aiohttp.ClientSession) -> None:
    async with http.head("/v1/things") as response:
        assert (200, b"") == (response.status, await response.read())
