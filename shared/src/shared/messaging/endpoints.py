"""
Endpoints as data, the answering of requests, and the NATS translation of errors for replies.

`shared.messaging.bus.Bus.request` asks, and makes the error of a reply the same kind again. No endpoint of any service
is here.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import structlog
from msgspec import Struct
from nats.errors import Error as NatsError
from nats.errors import FlushTimeoutError
from nats.micro.request import Request
from nats.micro.service import Service, ServiceConfig

from shared.contracts.messages import decode, encode
from shared.errors import MillraceError
from shared.messaging.bus import Bus
from shared.runtime.fair_share import FairShare
from shared.runtime.telemetry import Metrics

log = structlog.get_logger()

REQUESTS_AT_ONCE = 64
REQUESTS_RESERVE = 64
"""Requests that one process answers at the same time, and further ones of apps that have none."""
REQUESTS_WAITING = 128
RETRY_AFTER_S = 1.0


class Endpoint(Struct, frozen=True, kw_only=True):
    """
    A request that a service answers: `handler` gets the state and the decoded request, and returns the reply or raises.
    """

    subject: str
    request: type[Struct]
    handler: Callable[[Any, Any], Awaitable[Struct]]


@asynccontextmanager
async def answering(
    bus: Bus, name: str, version: str, state: Any, endpoints: Sequence[Endpoint]
) -> AsyncIterator[None]:
    """
    Answer requests as a `micro` service (NATS ADR-32), so that `nats micro ls` sees it, also without endpoints.

    Requests run side by side: a subscription alone would run them one after another. Leaving the block accepts no more
    requests and finishes those in flight. Apps share the slots by the `app_key` of their requests; those of an app that
    sends too many get a `BusyError`.
    """
    slots = FairShare(
        REQUESTS_AT_ONCE,
        name="requests",
        reserve=REQUESTS_RESERVE,
        waiting=REQUESTS_WAITING,
        retry_after_s=RETRY_AFTER_S,
    )
    async with asyncio.TaskGroup() as tasks:

        def handler_of(endpoint: Endpoint) -> Callable[[Request], Awaitable[None]]:
            async def handle(request: Request) -> None:
                answer = _answer(endpoint, state, request, slots, bus.metrics)
                tasks.create_task(answer, name=f"answer {endpoint.subject}")

            return handle

        service = Service(bus.client, ServiceConfig(name=name, version=version))
        # A slow server is no reason not to start: the subscriptions are made, and the client makes them again for every
        # new connection.
        with contextlib.suppress(FlushTimeoutError):
            await service.start()
        for endpoint in endpoints:
            await service.add_endpoint(
                name=endpoint.subject.replace(".", "-"), subject=endpoint.subject, handler=handler_of(endpoint)
            )
        try:
            yield
        finally:
            # A lost connection has no subscriptions left to end.
            with contextlib.suppress(NatsError, TimeoutError):
                await service.stop()


async def _answer(endpoint: Endpoint, state: Any, request: Request, slots: FairShare, metrics: Metrics) -> None:
    """Run the handler and reply. An error's code goes as header, the rest as JSON."""
    try:
        asked = decode(request.data, endpoint.request)
        async with slots.hold(getattr(asked, "app_key", "")):
            reply = await endpoint.handler(state, asked)
    except MillraceError as error:
        body = {"message": error.message, "field": error.field, "retry_after_s": error.retry_after_s}
        description = " ".join(error.message.split())
        await request.respond_error(error.code, description, data=msgspec.json.encode(body))
    except Exception:
        log.exception("nats_request_failed", subject=endpoint.subject)
        metrics.count("millrace_bugs_total", where="bus")
        await request.respond_error(MillraceError.code, "internal error", data=b'{"message":"internal error"}')
    else:
        await request.respond(encode(reply))
