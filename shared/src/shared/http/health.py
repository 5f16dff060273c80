"""
Readiness of a service: named pings, each brought by the part that it checks.
"""

import asyncio
from collections.abc import Awaitable, Callable

import structlog
from msgspec import Struct

from shared.errors import MillraceError

log = structlog.get_logger()

PING_S = 3.0
"""Limit of a ping; one that takes longer has failed."""

Ping = Callable[[], Awaitable[None]]


class Readiness(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """
    The answer of `/readyz`: names of the pings that passed, and reasons of those that did not.

    `degraded` names what fails for some tenants only: the service is ready for the others, and must stay in rotation.
    """

    ready: bool
    ok: tuple[str, ...]
    failing: dict[str, str]
    degraded: dict[str, str] = {}


class Health:
    """Collects pings while a service starts; `state` says where in its life the service is."""

    def __init__(self) -> None:
        self.state = "starting"
        self._pings: dict[str, Ping] = {}
        self._degraded: list[Callable[[], dict[str, str]]] = []

    def add(self, name: str, ping: Ping) -> None:
        """Add a ping, which returns or raises a `MillraceError` that says why not."""
        self._pings[name] = ping

    def add_degraded(self, degraded: Callable[[], dict[str, str]]) -> None:
        """Add a source of what is degraded now, and why. It names no tenant: every caller may read it."""
        self._degraded.append(degraded)

    async def check(self) -> Readiness:
        """Run every ping at once."""
        names = list(self._pings)
        reasons = await asyncio.gather(*(_reason(self._pings[name]) for name in names))
        failing = {name: reason for name, reason in zip(names, reasons, strict=True) if reason is not None}
        if self.state != "running":
            failing = {"service": self.state} | failing
        ok = tuple(name for name in names if name not in failing)
        degraded = {name: reason for source in self._degraded for name, reason in source().items()}
        return Readiness(ready=not failing, ok=ok, failing=failing, degraded=degraded)


async def _reason(ping: Ping) -> str | None:
    try:
        async with asyncio.timeout(PING_S):
            await ping()
    except MillraceError as error:
        return error.message
    except TimeoutError:
        return f"no answer within {PING_S:.0f} s"
    return None
