"""A receiver of webhooks as a customer would write one, with faults on demand. No test lives here."""

import asyncio
import base64
import hashlib
import hmac
import json
from collections import deque
from collections.abc import Callable
from typing import Any, Self

from aiohttp import web
from msgspec import Struct

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
"""The one of the published example of Standard Webhooks."""


class Received(Struct, frozen=True, kw_only=True):
    """A request with a valid signature."""

    id: str
    timestamp: int
    content_type: str
    data: bytes

    @property
    def value(self) -> Any:
        return json.loads(self.data)


def verify(secret: str, headers: Any, body: bytes) -> bool:
    """Standard Webhooks, *Verifying signatures*: any of the signatures may be the one."""
    key = base64.b64decode(secret.removeprefix("whsec_"))
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    right = "v1," + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
    return any(hmac.compare_digest(right, told) for told in headers["webhook-signature"].split(" "))


class Receiver:
    """
    The server, as an async context manager; it listens at `/hook` and nowhere else.

    `answers` are used up one per request: a status with headers. `silent` says nothing, and `status_of` answers for
    single records by their bodies, 200 for those that are taken.
    """

    def __init__(self, secret: str = SECRET) -> None:
        self.secret = secret
        self.answers: deque[tuple[int, dict[str, str]]] = deque()
        self.silent = False
        self.status_of: Callable[[bytes], int] = lambda _: 200
        self.received: list[Received] = []
        self.asked = 0
        self.most_at_once = 0
        self.gate = asyncio.Event()
        self.gate.set()
        self.url = ""
        self._at_once = 0
        self._stopped = asyncio.Event()
        self._runner: web.AppRunner | None = None

    async def __aenter__(self) -> Self:
        app = web.Application(client_max_size=32 << 20)
        app.router.add_post("/hook", self._handle)
        # A connection that hangs must not hold up the end of a test.
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        host, port = self._runner.addresses[0][:2]
        self.url = f"http://{host}:{port}/hook"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._stopped.set()
        assert self._runner is not None
        await self._runner.cleanup()

    async def _handle(self, request: web.Request) -> web.Response:
        self.asked += 1
        self._at_once += 1
        self.most_at_once = max(self.most_at_once, self._at_once)
        try:
            body = await request.read()
            await self.gate.wait()
            if self.silent:
                await self._stopped.wait()
            status, headers = self.answers.popleft() if self.answers else (self.status_of(body), {})
            if not verify(self.secret, request.headers, body):
                status = 401
            if status == 200:
                self.received.append(
                    Received(
                        id=request.headers["webhook-id"],
                        timestamp=int(request.headers["webhook-timestamp"]),
                        content_type=request.headers["Content-Type"],
                        data=body,
                    )
                )
            return web.Response(status=status, headers=headers, text="an answer that nobody reads")
        finally:
            self._at_once -= 1
