"""
Every route of every service, called with and without the right token.

The routes come from the services' own tables, so a new one cannot be forgotten.
"""

import re
from importlib import import_module

import aiohttp
import pytest

from hooks.config import HOOKS
from hooks.dead_letters.writer import ENTRANCE
from shared.config.tokens import new_token
from shared.contracts import services
from shared.http.routes import Route
from shared.service import Service
from support.run_service import RunService

SERVICES: list[Service] = [import_module(f"{entry.module}.app").SERVICE for entry in services.SERVICES]

OPEN = {("GET", "/cdn/{key:.+}")}
"""Routes without a token, beside the health routes: the objects of the CDN are public."""


def path_of(route: Route) -> str:
    # `1` is a name as well as a number.
    return re.sub(r"\{\w+(?::[^}]*)?\}", "1", route.path.replace("{app_key}", "shop"))


@pytest.mark.parametrize("service", SERVICES, ids=lambda service: service.name)
def test_every_route_that_needs_no_token_is_known(service: Service) -> None:
    opened = {(route.method, route.path) for route in service.routes if route.scope == "open"}

    assert opened <= OPEN


@pytest.mark.parametrize("service", SERVICES, ids=lambda service: service.name)
def test_a_route_for_a_tenant_names_the_tenant(service: Service) -> None:
    for route in service.routes:
        # What an app has for good is an operator's to take away.
        is_operators = (route.method, route.path) == ("DELETE", "/v1/apps/{app_key}/external-id")
        assert (route.scope == "app" or is_operators) == ("{app_key}" in route.path), route.path


@pytest.mark.parametrize("service", SERVICES, ids=lambda service: service.name)
def test_no_id_is_a_fixed_word_of_another_path(service: Service) -> None:
    for one in service.routes:
        pattern = re.sub(r"\{\w+\}", "[A-Za-z0-9_-]+", re.sub(r"\{\w+:[^}]*\}", "@", one.path))
        others = [other.path for other in service.routes if other.path != one.path]
        assert [] == [path for path in others if re.fullmatch(pattern, path)]


def test_hook_is_not_named_as_the_other_owner_of_dead_letters() -> None:
    assert ENTRANCE in HOOKS.reserved


@pytest.mark.parametrize("service", SERVICES, ids=lambda service: service.name)
async def test_only_the_right_token_opens_a_route(
    service: Service,
    run_service: RunService,
    rival: dict[str, str],
) -> None:
    guarded = [route for route in service.routes if route.scope != "open"]
    assert guarded
    wrong = {"Authorization": f"Bearer {new_token()}"}
    async with run_service(service) as served, aiohttp.ClientSession(served.url) as http:
        for route in guarded:
            for headers, expected in (
                ({}, (401, "unauthenticated")),
                (wrong, (401, "unauthenticated")),
                (rival, (403, "denied")),
            ):
                async with http.request(route.method, path_of(route), headers=headers, data=b"{}") as response:
                    told = (await response.json())["error"]
                    assert (response.status, told["code"]) == expected, f"{route.method} {route.path}"


@pytest.mark.parametrize("service", SERVICES, ids=lambda service: service.name)
async def test_unknown_query_parameter_is_refused_by_every_route(
    service: Service, run_service: RunService, admin: dict[str, str]
) -> None:
    asked = [(route.method, path_of(route)) for route in service.routes]
    asked += [("GET", path) for path in ("/livez", "/readyz", "/metrics", "/openapi.json")]
    async with run_service(service) as served, aiohttp.ClientSession(served.url) as http:
        for method, path in asked:
            async with http.request(method, path, headers=admin, params={"sinc": "2099"}, data=b"{}") as response:
                told = (await response.json())["error"]
                assert (400, "invalid", "sinc") == (response.status, told["code"], told["field"]), f"{method} {path}"
