"""
The OpenAPI document of a route table. Knows no HTTP library, and no route of any service.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, Literal

import msgspec
from msgspec import Struct

from shared.config.secret import Secret
from shared.contracts import subjects
from shared.contracts.connection_report import ConnectionReport
from shared.http.routes import PARAMETER, Query, Route

DESCRIPTION: Final = """\
Every error has the body `Problem`, whatever its status. A path that is not here answers 404, a method that a path does
not have 405 with `Allow`, a query parameter that a path does not have 400, and so does one that comes twice. Every GET
answers HEAD too.\
"""


class ProblemDetail(Struct, frozen=True, kw_only=True):
    """An error. `field` is the path of the offending input."""

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


class ConnectionProblemDetail(Struct, frozen=True, kw_only=True):
    """An error because Test Connection failed, with its report."""

    code: Literal["invalid"]
    message: str
    field: str
    report: ConnectionReport


class ConnectionProblem(Struct, frozen=True, kw_only=True):
    """The body of the answer 422."""

    error: ConnectionProblemDetail


class Problem(Struct, frozen=True, kw_only=True):
    """The body of every error."""

    error: ProblemDetail


STATUS: Final[Mapping[str, int]] = {
    "invalid": 400,
    "unauthenticated": 401,
    "denied": 403,
    "not_found": 404,
    "conflict": 409,
    "too_large": 413,
    "credentials": 424,
    "busy": 429,
    "unavailable": 503,
    "internal": 500,
}
"""The HTTP translation of the kinds of error (RFC 9110; 424 from RFC 4918: a request that we depend on failed)."""

MEANING: Final[Mapping[str, str]] = {
    "invalid": "The input is wrong; `field` says where",
    "unauthenticated": "No token, or one that nobody issued",
    "denied": "The token is not for this, or the customer's provider does not allow it",
    "not_found": "There is no such thing",
    "conflict": "It is there already, or has changed since it was read",
    "too_large": "Over a limit that trying again cannot change",
    "credentials": "The customer's provider refused the customer's keys",
    "busy": "Over a limit that time lifts",
    "unavailable": "A peer cannot be reached or failed; or the service is starting",
    "internal": "A bug of ours",
}

RETRY_AFTER: Final = {
    "description": "Seconds to wait before the next try",
    "required": True,
    "schema": {"type": "integer", "minimum": 1},
}
HEADERS: Final[Mapping[str, Mapping[str, Any]]] = {
    "unauthenticated": {
        "WWW-Authenticate": {
            "description": "How to authenticate (RFC 6750)",
            "required": True,
            "schema": {"type": "string", "const": "Bearer"},
        }
    },
    "busy": {"Retry-After": RETRY_AFTER},
    "unavailable": {"Retry-After": RETRY_AFTER},
}
"""Headers of an error's answer."""

UNSUPPORTED_ENCODING: Final = {
    "description": "The body is packed in another way than `Accept-Encoding` names",
    "headers": {"Accept-Encoding": {"required": True, "schema": {"type": "string"}}},
}
"""The answer 415 of routes with a body. Its code is `invalid`."""


def openapi(name: str, version: str, routes: Sequence[Route]) -> dict[str, Any]:
    """The OpenAPI 3.1 document of a route table."""
    types = [Problem, *(kind for route in routes for kind in _types(route))]
    schemas, components = msgspec.json.schema_components(
        types, schema_hook=_secret_schema, ref_template="#/components/schemas/{name}"
    )
    schema_of = dict(zip(map(id, types), schemas, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        path = PARAMETER.sub(r"{\1}", route.path)
        paths.setdefault(path, {})[route.method.lower()] = _operation(route, schema_of)
    return {
        "openapi": "3.1.0",
        "info": {"title": f"Millrace {name}", "version": version, "description": DESCRIPTION},
        "paths": dict(sorted(paths.items())),
        "components": {
            "schemas": dict(sorted(components.items())),
            "responses": {code: _problem(code, schema_of) for code in STATUS}
            | {"unsupported_encoding": UNSUPPORTED_ENCODING | {"content": _content_of(Problem, schema_of)}},
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


def _types(route: Route) -> Iterator[Any]:
    """Every type in the document of a route."""
    types = [*route.bodies.values(), route.reply, *route.also.values()]
    types += [query.type for query in route.query.values() if isinstance(query, Query)]
    return (kind for kind in types if kind is not None)


def _operation(route: Route, schema_of: Mapping[int, Any]) -> dict[str, Any]:
    in_path = [
        {
            "name": name,
            "in": "path",
            "required": True,
            "schema": {"type": "string", "pattern": f"^{pattern or subjects.NAME.pattern}$"},
        }
        for name, pattern in PARAMETER.findall(route.path)
    ]
    operation: dict[str, Any] = {
        "summary": route.summary,
        "operationId": f"{route.method.lower()}{re.sub(r'[^A-Za-z0-9]+', '_', route.path).rstrip('_')}",
        "parameters": in_path + [_in_query(name, query, schema_of) for name, query in route.query.items()],
        "responses": _responses(route, schema_of),
        "security": [] if route.scope == "open" else [{"token": []}],
    }
    if route.bodies:
        operation["requestBody"] = {
            "required": route.body_required,
            "content": {
                content_type: {} if kind is None else {"schema": schema_of[id(kind)]}
                for content_type, kind in route.bodies.items()
            },
        }
    return operation


def _in_query(name: str, query: str | Query, schema_of: Mapping[int, Any]) -> dict[str, Any]:
    if isinstance(query, str):
        return {"name": name, "in": "query", "description": query, "schema": {"type": "string"}}
    schema = schema_of[id(query.type)]
    if query.default is not None:
        schema = {**schema, "default": query.default}
    return {"name": name, "in": "query", "description": query.meaning, "schema": schema}


def _responses(route: Route, schema_of: Mapping[int, Any]) -> dict[str, Any]:
    errors = {STATUS[code]: {"$ref": f"#/components/responses/{code}"} for code in _codes(route)}
    if route.bodies:
        errors[415] = {"$ref": "#/components/responses/unsupported_encoding"}
    answers: dict[int, Any] = {}
    for status, kind in route.also.items():
        schema = schema_of[id(kind)] if kind is not None else None
        if schema is not None and status in errors:
            schema = {"anyOf": [schema, schema_of[id(Problem)]]}
        answers[status] = _answer(status, "application/json", schema)
    schema = schema_of[id(route.reply)] if route.reply is not None else None
    answers[route.status] = _answer(route.status, route.produces, schema)
    return {str(status): answer for status, answer in sorted((errors | answers).items())}


def _answer(status: int, content_type: str, schema: Any) -> dict[str, Any]:
    answer: dict[str, Any] = {"description": "Done" if status < 400 else "Refused or failed"}
    if schema is not None:
        answer["content"] = {content_type: {"schema": schema}}
    return answer


def _codes(route: Route) -> Iterator[str]:
    """The kinds of error that a route may answer with, as far as its row says."""
    yield from ("invalid", "not_found", "unavailable", "internal")
    if route.scope != "open":
        yield from ("unauthenticated", "denied")
    if route.method != "GET":
        yield from ("conflict", "credentials", "busy")
    if route.bodies:
        yield "too_large"


def _problem(code: str, schema_of: Mapping[int, Any]) -> dict[str, Any]:
    answer: dict[str, Any] = {"description": MEANING[code]}
    if code in HEADERS:
        answer["headers"] = HEADERS[code]
    answer["content"] = _content_of(Problem, schema_of)
    return answer


def _content_of(kind: Any, schema_of: Mapping[int, Any]) -> dict[str, Any]:
    return {"application/json": {"schema": schema_of[id(kind)]}}


def _secret_schema(kind: type) -> dict[str, Any]:
    if kind is Secret:
        return {"type": "string", "format": "password", "description": "Goes in and never comes out: reads show ***"}
    raise NotImplementedError(kind)
