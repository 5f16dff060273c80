"""
Routes as data: the routes of a service are a table of `Route`s. No route of any service is here.

The listener (`shared.http.server`) and the OpenAPI document (`shared.http.openapi`) are made from the same table, so
they cannot drift apart.
"""

import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Annotated, Any, Final, Literal

from msgspec import Meta, Struct

Scope = Literal["open", "app", "admin"]
Handler = Callable[[Any], Awaitable[Any]]

Binary = Annotated[str, Meta(extra_json_schema={"format": "binary"})]
"""Bytes as they are: a body or an answer that is no JSON, or a file in a multipart form. Only for documents."""

PARAMETER: Final = re.compile(r"\{(\w+)(?::([^}]*))?\}")


class Query(Struct, frozen=True):
    """
    A query parameter. The listener refuses one that is not of its type, and one that comes twice.

    Args:
        type: Its type with its bounds, such as `Annotated[int, Meta(ge=1, le=100)]`; a bool is `true` or `false`.
        default: Its value where it is left out.
        formerly: Its name in an earlier release, which is still understood.
    """

    meaning: str
    type: Any = str
    default: Any = None
    formerly: str = ""


class Route(Struct, frozen=True):
    """
    One row of a service's table.

    Args:
        path: A plain `{name}` is an identifier (`shared.contracts.subjects.NAME`), which the listener checks;
            `{name:pattern}` is what its pattern says.
        body: The type of the JSON body; None when there is none or the handler reads it itself (`consumes` says what).
        reads_body: The handler reads and decodes the body itself although `body` names its type.
        reply: The type of the answer; None for an empty or a streamed one.
        scope: `app` needs a token for `{app_key}`, `admin` an operator's, `open` none.
        consumes: The content type of the body; or, for a body that the handler reads itself, each content type that
            it takes with the type of its body (`Binary`, `str`, a Struct of the fields of a form).
        produces: The content type of the answer; `*/*` where it is whatever was stored.
        query: The query parameters by their names; a bare string is the meaning of one that is any text. The listener
            refuses every other one.
        also: Statuses beside `status` that are no errors, or errors that have a body of their own: each with the type
            of its JSON body, None where it has none.
        body_required: Whether the body may be left out.
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
    consumes: str | Mapping[str, Any] = "application/json"
    produces: str = "application/json"
    query: Mapping[str, str | Query] = {}
    also: Mapping[int, Any] = {}
    body_required: bool = True

    @property
    def bodies(self) -> Mapping[str, Any]:
        """The content types of the body, each with its type, or None for an untyped one. Empty without a body."""
        if not isinstance(self.consumes, str):
            return self.consumes
        if self.body is not None or (self.method in {"PUT", "POST"} and self.consumes != "application/json"):
            return {self.consumes: self.body}
        return {}

    @property
    def identifiers(self) -> tuple[str, ...]:
        """The parts of the path without a pattern of their own."""
        return tuple(name for name, pattern in PARAMETER.findall(self.path) if not pattern)
