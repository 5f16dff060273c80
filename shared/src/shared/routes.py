"""
Routes as data: a service's `routes.py` is a table of `Route`s, from which both the listener (`shared.http`) and the
OpenAPI document (`shared.openapi`) are made, so that they cannot drift apart. No route of any service lives here.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Literal

from msgspec import Struct

Scope = Literal["open", "app", "admin"]
Handler = Callable[[Any], Awaitable[Any]]


class Route(Struct, frozen=True):
    """
    One row of a service's table.

    Args:
        body: The type of the JSON body; None when there is none or the handler reads it itself (`consumes` says what).
        reads_body: The handler reads and decodes the body itself although `body` names its type.
        reply: The type of the answer; None for an empty or a streamed one.
        scope: `app` needs a token for `{app_key}`, `admin` an operator's, `open` none.
        query: Names and meanings of query parameters.
    """

    method: Literal["GET", "PUT", "POST", "DELETE"]
    path: str
    handler: Handler
    summary: str
    body: Any = None
    reads_body: bool = False
    reply: Any = None
    scope: Scope = "app"
    status: int = 200
    consumes: str = "application/json"
    produces: str = "application/json"
    query: Mapping[str, str] = {}
