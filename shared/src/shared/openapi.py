"""
The OpenAPI document of a route table. Knows no HTTP library, and no route of any service.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import msgspec
from msgspec import Struct

from shared.routes import Route
from shared.secret_store import Secret

PARAMETER = re.compile(r"\{(\w+)(?::[^}]*)?\}")


class ProblemDetail(Struct, frozen=True, kw_only=True):
    """What went wrong. `field` is the path of the offending input."""

    code: Literal[
        "invalid",
        "unauthenticated",
        "denied",
        "credentials",
        "not_found",
        "conflict",
        "too_large",
        "busy",
        "unavailable",
        "internal",
    ]
    message: str
    field: str | None = None


class Problem(Struct, frozen=True, kw_only=True):
    """The body of every error."""

    error: ProblemDetail


def openapi(name: str, version: str, routes: Sequence[Route]) -> dict[str, Any]:
    """The OpenAPI 3.1 document of a route table."""
    types = [kind for route in routes for kind in (route.body, route.reply) if kind is not None]
    schemas, components = msgspec.json.schema_components(
        [*types, Problem], schema_hook=_secret_schema, ref_template="#/components/schemas/{name}"
    )
    schema_of = dict(zip(map(id, [*types, Problem]), schemas, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        path = PARAMETER.sub(r"{\1}", route.path)
        paths.setdefault(path, {})[route.method.lower()] = _operation(route, schema_of)
    return {
        "openapi": "3.1.0",
        "info": {"title": f"Millrace {name}", "version": version},
        "paths": dict(sorted(paths.items())),
        "components": {
            "schemas": dict(sorted(components.items())),
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


def _operation(route: Route, schema_of: Mapping[int, Any]) -> dict[str, Any]:
    in_path = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in PARAMETER.findall(route.path)
    ]
    in_query = [
        {"name": name, "in": "query", "description": meaning, "schema": {"type": "string"}}
        for name, meaning in route.query.items()
    ]
    answer: dict[str, Any] = {"description": "Done"}
    if route.reply is not None:
        answer["content"] = {route.produces: {"schema": schema_of[id(route.reply)]}}
    problem = {"description": "Refused or failed", "content": {"application/json": {"schema": schema_of[id(Problem)]}}}
    operation: dict[str, Any] = {
        "summary": route.summary,
        "operationId": f"{route.method.lower()}{re.sub(r'[^A-Za-z0-9]+', '_', route.path).rstrip('_')}",
        "parameters": in_path + in_query,
        "responses": {str(route.status): answer, "default": problem},
        "security": [] if route.scope == "open" else [{"token": []}],
    }
    if route.body is not None:
        operation["requestBody"] = {
            "required": True,
            "content": {route.consumes: {"schema": schema_of[id(route.body)]}},
        }
    elif route.method in {"PUT", "POST"} and route.consumes != "application/json":
        operation["requestBody"] = {"required": True, "content": {route.consumes: {}}}
    return operation


def _secret_schema(kind: type) -> dict[str, Any]:
    if kind is Secret:
        return {"type": "string", "format": "password", "description": "Goes in and never comes out: reads show ***"}
    raise NotImplementedError(kind)
