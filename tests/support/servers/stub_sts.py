"""
STS that checks the external id, which moto does not: roles with a trust policy, roles that AWS does not know everywhere
yet, and keys that end when a test says so. Signatures are not checked. No test lives here.
"""

import secrets
from datetime import UTC, datetime, timedelta
from typing import Final, Self

from aiohttp import web
from msgspec import Struct

ACCOUNT: Final = "999988887777"
"""The account of whoever asks."""
NAMESPACE: Final = "https://sts.amazonaws.com/doc/2011-06-15/"


class StubRole(Struct, kw_only=True):
    """A role. Without an `external_id` it trusts everybody. It is denied `fresh` times, as if it were just made."""

    external_id: str | None = None
    fresh: int = 0


class StubSts:
    """
    An async context manager. `url` is its address, `roles` are by ARN, `calls` the forms of all requests, and `tokens`
    the session tokens that are good now.
    """

    def __init__(self) -> None:
        self.url = ""
        self.roles: dict[str, StubRole] = {}
        self.calls: list[dict[str, str]] = []
        self.tokens: set[str] = set()

    def add(self, name: str, *, external_id: str | None = None, fresh: int = 0) -> str:
        """Make a role, and return its ARN."""
        arn = f"arn:aws:iam::123456789012:role/{name}"
        self.roles[arn] = StubRole(external_id=external_id, fresh=fresh)
        return arn

    def assumed(self) -> int:
        """The number of times that a role was assumed, or should have been."""
        return sum(call["Action"] == "AssumeRole" for call in self.calls)

    async def __aenter__(self) -> Self:
        application = web.Application()
        application.router.add_post("/", self._handle)
        self._runner = web.AppRunner(application, shutdown_timeout=0)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = "http://{}:{}".format(*self._runner.addresses[0])
        return self

    async def __aexit__(self, *_error: object) -> None:
        await self._runner.cleanup()

    async def _handle(self, request: web.Request) -> web.Response:
        call = {name: str(value) for name, value in (await request.post()).items()}
        self.calls.append(call)
        if call["Action"] == "GetCallerIdentity":
            return _answer(
                "GetCallerIdentity", f"<Arn>arn:aws:iam::{ACCOUNT}:user/millrace</Arn><Account>{ACCOUNT}</Account>"
            )
        return self._assume(call)

    def _assume(self, call: dict[str, str]) -> web.Response:
        role = self.roles.get(call["RoleArn"])
        if role is not None and role.fresh:
            role.fresh -= 1
            return _denial(call["RoleArn"])
        if role is None or role.external_id not in (None, call.get("ExternalId")):
            return _denial(call["RoleArn"])
        token = secrets.token_hex(8)
        self.tokens.add(token)
        ends = (datetime.now(UTC) + timedelta(seconds=int(call["DurationSeconds"]))).strftime("%Y-%m-%dT%H:%M:%SZ")
        keys = (
            f"<AccessKeyId>ASIASTUB</AccessKeyId><SecretAccessKey>stub</SecretAccessKey><Expiration>{ends}</Expiration>"
        )
        return _answer("AssumeRole", f"<Credentials>{keys}<SessionToken>{token}</SessionToken></Credentials>")


def _answer(action: str, result: str) -> web.Response:
    body = f'<{action}Response xmlns="{NAMESPACE}"><{action}Result>{result}</{action}Result></{action}Response>'
    return web.Response(text=body, content_type="text/xml")


def _denial(role_arn: str) -> web.Response:
    words = f"User: arn:aws:iam::{ACCOUNT}:user/millrace is not authorized to perform: sts:AssumeRole on {role_arn}"
    error = f"<Error><Type>Sender</Type><Code>AccessDenied</Code><Message>{words}</Message></Error>"
    return web.Response(
        status=403, text=f'<ErrorResponse xmlns="{NAMESPACE}">{error}</ErrorResponse>', content_type="text/xml"
    )
