"""
HTTP of every service: typed routes, bearer tokens with scopes (checked in `shared.config.tokens`), error bodies,
`/openapi.json`.

Routes are data (`shared.http.routes`). No route of any service is here.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any, Generic, TypeVar

import msgspec
import structlog
from aiohttp import web
from aiohttp.abc import AbstractStreamWriter

from shared.config import tokens
from shared.config.registry import Registry
from shared.contracts import subjects
from shared.contracts.messages import decode, invalid_error
from shared.errors import InvalidError, MillraceError, NotFoundError, UnavailableError
from shared.http.answers import error_response, http_exception_response, json_response
from shared.http.bodies import check_json_values, read_body
from shared.http.health import Health
from shared.http.openapi import openapi
from shared.http.routes import Query, Route
from shared.messaging.bus import Bus
from shared.runtime.telemetry import CONTENT_TYPE, Metrics

log = structlog.get_logger()
S = TypeVar("S")

JSON_BODY_BYTES = 1 << 20
"""Limit of a JSON body. Routes that take more, or no JSON, read by `shared.http.bodies`."""

FILE_GRACE_S = 30.0
FILE_BYTES_PER_S = 8 << 10
"""The lowest rate at which a client reads a file, after `FILE_GRACE_S`."""

GONE = "there is no such object"

FIELD_CHARACTERS = 64
"""Limit on what an error repeats of a name in the request."""


class Call(Generic[S]):
    """
    Request as a handler sees it.

    `state` is the result of the service's `build`; `body` is decoded to the route's type, `query_values` are the query
    parameters by their types, each left-out one by its default. `is_operator` tells that the token is an operator's. A
    handler that reads the body itself does so by `read_json` or `shared.http.bodies`.
    """

    __slots__ = ("_json", "body", "bus", "is_operator", "query_values", "registry", "request", "state")

    def __init__(self, state: S, request: web.Request, registry: Registry, bus: Bus) -> None:
        self.state = state
        self.request = request
        self.registry = registry
        self.bus = bus
        self.query_values: Mapping[str, Any] = {}
        self.body: Any = None
        self.is_operator = False
        self._json: bytes | None = None

    async def read_json(self) -> bytes:
        """The body as text of JSON, empty without one; bounded in bytes and in values before anything is decoded."""
        if self._json is None:
            body = await read_body(self.request, JSON_BODY_BYTES)
            check_json_values(body)
            self._json = body
        return self._json

    async def send_file(self, path: Path, headers: Mapping[str, str]) -> web.StreamResponse:
        """
        An answer with a file, whole or in part.

        Raises:
            NotFoundError: It is gone: whoever has found it may be overtaken by a deletion.
            OSError: It cannot be read.
        """
        try:
            size = (await asyncio.to_thread(path.stat)).st_size
        except FileNotFoundError:
            raise NotFoundError(GONE) from None
        return FileAnswer(path, headers, FILE_GRACE_S + size / FILE_BYTES_PER_S)

    @property
    def app_key(self) -> str:
        """The tenant in the path, already checked against the token."""
        return self.request.match_info["app_key"]

    @property
    def path(self) -> Mapping[str, str]:
        """Values of the parts of the path by name, unescaped."""
        return self.request.match_info

    @property
    def dry_run(self) -> bool:
        return bool(self.query_values.get("dry_run", False))


class FileAnswer(web.FileResponse):
    """
    A file as an answer. The kernel sends it past the buffers that asyncio counts, so it has a time limit of its own.
    """

    def __init__(self, path: Path, headers: Mapping[str, str], within_s: float) -> None:
        super().__init__(path, headers=headers)
        self._within_s = within_s

    def set_status(self, status: int, reason: str | None = None) -> None:
        """Raises `NotFoundError` where aiohttp would send 404 or 403 with the headers of the file."""
        if status in (403, 404):
            # It was deleted since it was found. A CDN would keep that 404 for as long as the file may be kept.
            raise NotFoundError(GONE)
        super().set_status(status, reason)

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        try:
            async with asyncio.timeout(self._within_s):
                return await super().prepare(request)
        except TimeoutError:
            if request.transport is not None:
                request.transport.abort()
            raise ConnectionResetError("the client reads the file too slowly") from None


class Listener:
    """Parts of the running service that the routes need. `state` is None until the service can answer."""

    def __init__(self, health: Health, metrics: Metrics) -> None:
        self.health = health
        self.metrics = metrics
        self.state: Any = None
        self.registry: Registry | None = None
        self.bus: Bus | None = None


def make_application(name: str, version: str, routes: Sequence[Route], listener: Listener) -> web.Application:
    """The aiohttp application of a service: its routes, `/livez`, `/readyz`, `/metrics` and `/openapi.json`."""
    app = web.Application(middlewares=[_errors(listener)])
    document = msgspec.json.encode(openapi(name, version, routes))

    async def livez(_: web.Request) -> web.Response:
        return json_response({"alive": True})

    async def readyz(_: web.Request) -> web.Response:
        readiness = await listener.health.check()
        return json_response(readiness, status=200 if readiness.ready else 503)

    async def metrics(request: web.Request) -> web.Response:
        tenants = await _may_see_tenants(listener, request)
        readiness = await listener.health.check()
        listener.metrics.gauge("millrace_ready", 1 if readiness.ready else 0)
        body = await listener.metrics.render_aside(tenants=tenants)
        return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE})

    async def described(_: web.Request) -> web.Response:
        return web.Response(body=document, content_type="application/json")

    for path, answer in (("/livez", livez), ("/readyz", readyz), ("/metrics", metrics), ("/openapi.json", described)):
        app.router.add_get(path, _without_query(answer))
    for route in routes:
        # A GET answers HEAD too, which CDNs and `curl -I` ask.
        add = app.router.add_get if route.method == "GET" else partial(app.router.add_route, route.method)
        add(route.path, _handler(route, listener), expect_handler=_expect)
    return app


async def _may_see_tenants(listener: Listener, request: web.Request) -> bool:
    """Whether `/metrics` names tenants. Without a token it does not; a wrong token is refused, and not passed over."""
    header = request.headers.get("Authorization")
    if header is None:
        return False
    if listener.registry is None:
        raise UnavailableError("the service is starting", retry_after_s=1)
    tokens.authorise_metrics(await tokens.authenticate(listener.registry, header))
    return True


def _without_query(handler: Callable[[web.Request], Awaitable[web.Response]]) -> Callable[..., Awaitable[web.Response]]:
    async def handle(request: web.Request) -> web.Response:
        _query_values({}, request)
        return await handler(request)

    return handle


async def _expect(_: web.Request) -> None:
    """Do not ask for the body yet: the reader asks, after the token is checked (`shared.http.bodies`)."""


def _handler(route: Route, listener: Listener) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def handle(request: web.Request) -> web.StreamResponse:
        if listener.registry is None or listener.bus is None or listener.health.state == "starting":
            raise UnavailableError("the service is starting", retry_after_s=1)
        token = None
        if route.scope != "open":
            token = await tokens.authenticate(listener.registry, request.headers.get("Authorization"))
            app_key = request.match_info.get("app_key") if route.scope == "app" else None
            tokens.authorise(token, app_key)
        for name in route.identifiers:
            subjects.check_name(request.match_info[name], name)
        call: Call[Any] = Call(listener.state, request, listener.registry, listener.bus)
        call.is_operator = token is not None and tokens.ADMIN in token.scopes
        call.query_values = _query_values(route.query, request)
        if route.body is not None and not route.reads_body:
            call.body = decode(await call.read_json(), route.body)
        answer = await route.handler(call)
        if isinstance(answer, web.StreamResponse):
            return answer
        return json_response(answer, status=route.status) if answer is not None else web.Response(status=204)

    return handle


def _query_values(query: Mapping[str, str | Query], request: web.Request) -> dict[str, Any]:
    """
    The query parameters by their types.

    Raises:
        InvalidError: One is unknown, comes twice, or is not of its type. A misspelt filter would match everything.
    """
    sent = request.query
    formerly = {parameter.formerly for parameter in query.values() if isinstance(parameter, Query)}
    for name in sent:
        if name not in query and name not in formerly:
            known = f"one of {', '.join(query)}" if query else "none"
            raise InvalidError(f"there is no such query parameter; expected {known}", field=name[:FIELD_CHARACTERS])
    values: dict[str, Any] = {}
    for name, parameter in query.items():
        if isinstance(parameter, str):
            parameter = Query(parameter)
        texts = [text for at in (name, parameter.formerly) if at for text in sent.getall(at, ())]
        if len(texts) > 1:
            raise InvalidError("expected it once", field=name)
        values[name] = _converted(texts[0], parameter.type, name) if texts else parameter.default
    return values


def _converted(text: str, kind: Any, field: str) -> Any:
    try:
        value = msgspec.convert(text, kind, strict=False)
        # A conversion that makes numbers of texts makes times of numbers too.
        return msgspec.convert(text, kind) if isinstance(value, datetime) else value
    except msgspec.ValidationError as error:
        raise InvalidError(invalid_error(error, kind).message, field=field) from None


def is_gone(request: web.BaseRequest, error: BaseException) -> bool:
    """Return whether an error tells that the client has gone away, which is no bug and no line of the log."""
    transport = request.transport
    return isinstance(error, ConnectionError) and (transport is None or transport.is_closing())


def _errors(listener: Listener) -> Callable[..., Awaitable[web.StreamResponse]]:
    @web.middleware
    async def translate(
        request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        started = perf_counter()
        resource = request.match_info.route.resource
        route = resource.canonical if resource is not None else "unknown"
        response: web.StreamResponse
        try:
            response = await handler(request)
        except MillraceError as error:
            response = error_response(error)
        except web.HTTPException as error:
            response = http_exception_response(error)
        except Exception as error:
            if is_gone(request, error):
                raise
            log.exception("http_request_failed", method=request.method, route=route)
            listener.metrics.count("millrace_bugs_total", where="http")
            response = error_response(MillraceError("internal error"))
        if response.status >= 400 and not request.content.is_eof():
            # Its body is not read to the end: aiohttp discards some of it, so that the answer arrives, and closes.
            response.force_close()
        status = str(response.status)
        listener.metrics.count("millrace_http_requests_total", method=request.method, route=route, status=status)
        listener.metrics.observe("millrace_http_request_seconds", perf_counter() - started, route=route)
        return response

    return translate
