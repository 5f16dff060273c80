"""
Every field of every configuration at the edges of its schema, in the running services: what the document of a service
forbids is refused by the name of the field, and what it allows is not refused for that.
"""

import re
from collections.abc import Iterator
from importlib import import_module
from typing import Any

import aiohttp
import pytest

from shared.contracts import services
from shared.service import Service
from support.fuzz.http_requests import Example, forms
from support.run_service import RunService

SERVICES: list[Service] = [import_module(f"{entry.module}.app").SERVICE for entry in services.SERVICES]
SECRETS = dict.fromkeys(("amazon", "kinesis", "export", "remote", "sftp"), "a-secret-of-thirty-characters-!") | {
    "azure": "d0phbHItYXp1cmUtWFV0bkZFTUktSzdNREVORw==",
    "webhook": "whsec_d0phbHItd2ViaG9vay1YVXRuRkVNSS1LN01ERU5HLXdlYmhvb2s=",
}
WRONG_TYPE: dict[str, tuple[Any, ...]] = {
    "string": (5, True, [], {}),
    "integer": ("x", 1.5, True, []),
    "number": ("x", True, []),
    "boolean": ("x", 1, None, []),
    "array": ("x", 5, {}),
    "object": ("x", 5, []),
}


def configurations(service: Service) -> list[Example]:
    found = forms("shop", hook_url="https://example.com/hook", secrets=SECRETS)
    return [one for one in found if one.service == service.name and one.method == "PUT" and isinstance(one.body, dict)]


def schema_of(document: dict[str, Any], path: str) -> dict[str, Any]:
    """The schema of the body of a `PUT`."""
    for template, operations in document["paths"].items():
        if re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", template), path) and "put" in operations:
            schema = operations["put"]["requestBody"]["content"]["application/json"]["schema"]
            return resolved(document, schema)
    raise AssertionError(path)


def resolved(document: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    while "$ref" in schema:
        schema = document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    return schema


def variants(document: dict[str, Any], schema: dict[str, Any]) -> list[dict[str, Any]]:
    return [resolved(document, one) for one in schema.get("anyOf", [schema])]


def wrong_values(schemas: list[dict[str, Any]]) -> Iterator[Any]:
    kinds = {one.get("type") for one in schemas}
    for schema in schemas:
        for value in WRONG_TYPE.get(schema.get("type", ""), ()):
            if kind_of(value) not in kinds and not (
                value is None or (kinds >= {"number"} and kind_of(value) == "integer")
            ):
                yield value
        if "enum" in schema:
            yield "no choice"
        if "maxLength" in schema:
            yield "x" * (schema["maxLength"] + 1)
        if schema.get("minLength"):
            yield "x" * (schema["minLength"] - 1)
        if "minimum" in schema:
            yield schema["minimum"] - 1
        if "maximum" in schema:
            yield schema["maximum"] + 1


def edges(schemas: list[dict[str, Any]]) -> list[Any]:
    return [schema[name] for schema in schemas for name in ("minimum", "maximum") if name in schema]


def kind_of(value: Any) -> str:
    names = {bool: "boolean", int: "integer", float: "number", str: "string", list: "array", dict: "object"}
    return names.get(type(value), "null")


@pytest.mark.parametrize("service", SERVICES, ids=lambda service: service.name)
async def test_field_beyond_its_schema_is_refused_by_its_name_and_one_at_its_edge_is_not(
    service: Service, run_service: RunService, admin: dict[str, str]
) -> None:
    tried = 0
    async with run_service(service) as served, aiohttp.ClientSession(served.url, headers=admin) as http:
        async with http.get("/openapi.json") as response:
            document = await response.json()
        for form in configurations(service):
            path = form.path.partition("?")[0]
            async with http.put(path, params={"dry_run": "true"}, json=form.body) as response:
                assert response.status == 200, await response.text()
            for name, described in schema_of(document, path)["properties"].items():
                schemas = variants(document, described)
                asked = [(value, True) for value in wrong_values(schemas)]
                for value, is_wrong in asked + [(value, False) for value in edges(schemas)]:
                    body = form.body | {name: value}
                    async with http.put(path, params={"dry_run": "true"}, json=body) as response:
                        told = await response.json()
                    tried += 1
                    field = str(told.get("error", {}).get("field"))
                    shown = f"{path} {name}={str(value)[:40]!r}: {response.status} {told}"
                    if is_wrong:
                        assert response.status == 400, shown
                        assert re.match(rf"{name}\b", field), shown
                    else:
                        assert response.status < 500, shown
                        assert field != name, shown
    assert tried > 20
