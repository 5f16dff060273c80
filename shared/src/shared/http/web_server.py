"""
The HTTP listener: aiohttp's protocol with limits on connections, deadlines, and our own answer to what is no HTTP.

aiohttp has no deadline for headers and no limit on connections. `RequestHandler` is its protocol, one a connection;
here are its public methods alone, so a release that moves private names changes nothing.
"""

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any, Final, cast

import structlog
from aiohttp import web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http import RawRequestMessage
from aiohttp.streams import EMPTY_PAYLOAD, StreamReader
from msgspec import json

from shared.errors import InvalidError, MillraceError, UnavailableError
from shared.http.answers import error_response, http_exception_response
from shared.http.connection_table import ConnectionTable, HttpLimits
from shared.http.server import is_gone
from shared.runtime.telemetry import Metrics

log = structlog.get_logger()

HEADERS_S: Final = 20.0
"""Time for the first request of a connection, and for the headers of a later one since their first byte."""
HEAD_BYTES: Final = 32 << 10
"""Limit of a request's line and headers together. aiohttp allows 128 headers of 8 KiB, and holds them twice."""
UNREAD_S: Final = 30.0
"""Time in which a client reads 48 KiB of its answer: what asyncio holds is then between its two marks."""
LINGERING_S: Final = 2.0
"""Time for which the rest of a refused body is discarded, so that its sender reads the answer before the close."""
SWEEP_S: Final = 1.0
BACKLOG: Final = 128
"""Connections that the kernel holds, and that the loop accepts at once."""
NOT_ACCEPTED: Final = "socket.accept() out of system resource"
"""asyncio's words for an accept that failed for want of descriptors or memory (selector_events)."""
TOLD_EVERY_S: Final = 60.0


def _refusal(status: str, code: str, message: str, *headers: str) -> bytes:
    """The one error body as an answer to a connection of which no request was made."""
    body = json.encode({"error": {"code": code, "message": message}})
    head = (f"HTTP/1.1 {status}", "Content-Type: application/json; charset=utf-8", "Connection: close", *headers)
    return "\r\n".join((*head, f"Content-Length: {len(body)}", "", "")).encode() + body


REFUSED: Final = _refusal("503 Service Unavailable", "unavailable", "too many connections", "Retry-After: 1")
LONG_HEAD: Final = _refusal(
    "431 Request Header Fields Too Large", "too_large", f"expected a line and headers of at most {HEAD_BYTES} bytes"
)


class HttpConnection(web.RequestHandler):
    """One connection. Tells `WebServer` when it waits for a request, when it works, and when nobody reads."""

    __slots__ = ("_body", "_ended", "_head_bytes", "_listener", "_refused", "_socket", "_waits")

    def __init__(self, manager: web.Server, listener: "WebServer", **options: Any) -> None:
        super().__init__(manager, **options)
        self._listener = listener
        self._socket: asyncio.Transport | None = None
        self._waits = False
        self._refused = False
        self._head_bytes: int | None = 0
        """Bytes of a head that is not whole; None while a request is answered."""
        self._body: StreamReader = EMPTY_PAYLOAD
        """Of the last request: what nobody read of it may still come after the answer."""
        self._ended = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport = cast(asyncio.Transport, transport)
        if not self._listener.admit(self, transport):
            transport.write(REFUSED)
            transport.close()
            return
        self._socket = transport
        super().connection_made(transport)

    def data_received(self, data: bytes) -> None:
        if self._socket is None or self._refused:
            return
        if data and self._waits:
            self._waits = False
            self._listener.expect_headers(self)
        super().data_received(data)
        if self._head_bytes is not None and self._body.is_eof():
            self._head_bytes += len(data)
            if self._head_bytes > HEAD_BYTES:
                # Headers that came whole have begun their request by then.
                asyncio.get_running_loop().call_soon(self._refuse_long_head)

    def _refuse_long_head(self) -> None:
        if self._socket is not None and self._head_bytes is not None and self._head_bytes > HEAD_BYTES:
            self._refused = True
            self._socket.write(LONG_HEAD)
            # The rest is discarded for a moment: a close on unread bytes may take the answer with it.
            self._socket.write_eof()
            self._listener.expect_end(self)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._listener.expect_reader(self)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._waits:
            self._listener.expect_request(self)
        else:
            self._listener.expect_answer(self)

    def connection_lost(self, exc: BaseException | None) -> None:
        self._listener.forget(self)
        if self._socket is not None:
            super().connection_lost(exc)

    def eof_received(self) -> bool:  # type: ignore[override]  # asyncio's own type, which aiohttp narrows
        """
        Keep the connection of a client that sends no more for the answer to a whole request (RFC 9112, 9.6).

        Returns:
            True where the connection stays open for the answer.
        """
        self._ended = self._head_bytes is None and self._body.is_eof()
        return self._ended

    def begin_request(self, body: StreamReader) -> None:
        """Headers have come whole."""
        self._waits = False
        self._body = body
        self._head_bytes = None
        self._listener.expect_answer(self)

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        if isinstance(resp, web.HTTPException):
            resp = http_exception_response(resp)
        try:
            finished = await super().finish_response(request, resp, start_time)
        except MillraceError as error:
            # Nothing of the answer is sent yet.
            finished = await super().finish_response(request, error_response(error), start_time)
        self._waits = True
        self._head_bytes = 0
        self._listener.expect_request(self)
        if self._ended:
            # One turn later aiohttp has begun the next one of requests that came together.
            loop = asyncio.get_running_loop()
            loop.call_soon(loop.call_soon, self._close_ended)
        return finished

    def _close_ended(self) -> None:
        if self._waits:
            self.force_close()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """The answer to what is no HTTP, or to a bug outside of the routes; it closes the connection."""
        if request.writer.output_size > 0:
            raise ConnectionError("the answer has begun and cannot become an error")
        if exc is not None and is_gone(request, exc):
            raise exc
        error: MillraceError
        if status < 500:
            log.debug("http_request_refused", remote=request.remote, message=message)
            # The rest of the text repeats what was sent.
            reason = (message or "").partition("\n")[0].partition(": b")[0].rstrip(": ")
            error = InvalidError(f"expected HTTP/1.1: {reason}" if reason else "expected HTTP/1.1")
        else:
            log.error("http_request_failed", exc_info=exc)
            error = MillraceError("internal error")
        response = error_response(error)
        response.force_close()
        return response

    def abort(self) -> None:
        """Close at once, whatever is not sent yet."""
        if self._socket is not None:
            self._socket.abort()


class WebServer:
    """The listener of one service."""

    def __init__(
        self, application: web.Application, limits: HttpLimits, metrics: Metrics, *, keepalive_s: float
    ) -> None:
        self.limits = limits
        self._application = application
        self._metrics = metrics
        self._keepalive_s = keepalive_s
        self._table: ConnectionTable[HttpConnection] = ConnectionTable(limits)
        self._loop = asyncio.get_running_loop()
        self._runner: web.AppRunner | None = None
        self._server: asyncio.Server | None = None
        self._sweeping: asyncio.TimerHandle | None = None
        self._told_at = self._room_made_at = -TOLD_EVERY_S
        self._handler_before: Callable[..., Any] | None = None

    async def start(self, host: str, port: int, *, stop_deadline_s: float) -> str:
        """
        Listen. Returns the URL.

        Raises:
            UnavailableError: The address cannot be listened on.
        """
        self._runner = web.AppRunner(self._application, access_log=None, shutdown_timeout=stop_deadline_s)
        await self._runner.setup()
        manager = self._runner.server
        assert manager is not None
        manager.request_factory = partial(_make_request, manager.request_factory)
        make_connection = partial(
            HttpConnection,
            manager,
            self,
            loop=self._loop,
            access_log=None,
            auto_decompress=False,
            lingering_time=LINGERING_S,
            # Idle connections are closed here, also those that do not read the end of their answer.
            keepalive_timeout=10 * self._keepalive_s + 3600,
        )
        try:
            self._server = await self._loop.create_server(make_connection, host, port, backlog=BACKLOG)
        except OSError as error:
            await self._runner.cleanup()
            raise UnavailableError(f"HTTP cannot listen on {host}:{port}: {error.strerror}") from None
        self._handler_before = self._loop.get_exception_handler()
        self._loop.set_exception_handler(self._on_loop_error)
        self._sweeping = self._loop.call_later(SWEEP_S, self._sweep)
        bound_host, bound_port = self._server.sockets[0].getsockname()[:2]
        return f"http://{bound_host}:{bound_port}"

    def stop_accepting(self) -> None:
        """Accept no connection any more; those that are open are answered."""
        if self._server is not None:
            self._server.close()

    async def close(self) -> None:
        """Finish the requests in progress, up to the deadline, and close."""
        if self._runner is None:
            return
        runner, self._runner = self._runner, None
        self.stop_accepting()
        self._loop.set_exception_handler(self._handler_before)
        try:
            await runner.cleanup()
        finally:
            if self._sweeping is not None:
                self._sweeping.cancel()

    def admit(self, connection: HttpConnection, transport: asyncio.Transport) -> bool:
        """Count a new connection and close another one for it; returns False where there is no room."""
        peer = transport.get_extra_info("peername")
        closed = self._table.add(connection, peer[0] if peer else "", self._loop.time() + HEADERS_S)
        if closed is not None:
            self._metrics.count("millrace_http_closed_total", reason="refused" if closed is connection else "room")
        if closed is connection:
            return False
        if closed is not None:
            closed.abort()
        self._metrics.gauge("millrace_http_connections", len(self._table))
        return True

    def expect_end(self, connection: HttpConnection) -> None:
        self._metrics.count("millrace_http_closed_total", reason="headers")
        self._table.set_deadline(connection, self._loop.time() + LINGERING_S)

    def expect_headers(self, connection: HttpConnection) -> None:
        self._table.set_deadline(connection, self._loop.time() + HEADERS_S)

    def expect_answer(self, connection: HttpConnection) -> None:
        self._table.set_busy(connection)

    def expect_request(self, connection: HttpConnection) -> None:
        self._table.set_idle(connection, self._loop.time() + self._keepalive_s)

    def expect_reader(self, connection: HttpConnection) -> None:
        self._table.set_deadline(connection, self._loop.time() + UNREAD_S)

    def forget(self, connection: HttpConnection) -> None:
        self._table.remove(connection)
        self._metrics.gauge("millrace_http_connections", len(self._table))

    def _sweep(self) -> None:
        for connection in self._table.expired(self._loop.time()):
            self._metrics.count("millrace_http_closed_total", reason="time")
            self._table.remove(connection)
            connection.abort()
        self._sweeping = self._loop.call_later(SWEEP_S, self._sweep)

    def _on_loop_error(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Make room where descriptors are short, and say so once a minute: asyncio says it 128 times a second."""
        if context.get("message") != NOT_ACCEPTED:
            if self._handler_before is not None:
                self._handler_before(loop, context)
            else:
                loop.default_exception_handler(context)
            return
        if loop.time() - self._room_made_at < SWEEP_S:
            return
        self._room_made_at = loop.time()
        if loop.time() - self._told_at >= TOLD_EVERY_S:
            self._told_at = loop.time()
            log.error("connections_not_accepted", connections=len(self._table), message=str(context.get("exception")))
        for connection in self._table.waiting()[:BACKLOG]:
            self._table.remove(connection)
            connection.abort()


def _make_request(
    make: Callable[..., web.BaseRequest],
    message: RawRequestMessage,
    payload: StreamReader,
    protocol: web.RequestHandler,
    writer: AbstractStreamWriter,
    task: "asyncio.Task[None]",
) -> web.BaseRequest:
    if isinstance(protocol, HttpConnection):
        protocol.begin_request(payload)
    return make(message, payload, protocol, writer, task)
