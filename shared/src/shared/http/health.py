"""
Readiness of a service: named pings, each brought by the part that it checks.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable

import structlog
from msgspec import Struct

from shared.errors import MillraceError

log = structlog.get_logger()

PING_S = 3.0
"""Limit of a ping; one that takes longer has failed."""

KEPT_S = 1.0
"""Time for which what the pings say is kept: anybody may ask, and each ping asks others."""

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
    """
    Collects pings while a service starts; `state` says where in its life the service is. `clock` is monotonic, in
    seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.state = "starting"
        self._clock = clock
        self._reasons: dict[str, str | None] = {}
        self._pinged_at: float | None = None
        self._pinging = asyncio.Lock()
        self._pings: dict[str, Ping] = {}
        self._degraded: list[Callable[[], dict[str, str]]] = []

    def add(self, name: str, ping: Ping) -> None:
        """Add a ping, which returns or raises a `MillraceError` that says why not."""
        self._pings[name] = ping
        self._pinged_at = None

    def add_degraded(self, degraded: Callable[[], dict[str, str]]) -> None:
        """Add a source of what is degraded now, and why. It names no tenant: every caller may read it."""
        self._degraded.append(degraded)

    async def check(self) -> Readiness:
        """Run every ping at once, or repeat what they said within `KEPT_S`. All who ask meanwhile wait for one run."""
        async with self._pinging:
            if self._pinged_at is None or self._clock() - self._pinged_at > KEPT_S:
                pings = dict(self._pings)
                reasons = await asyncio.gather(*map(_reason, pings.values()))
                self._reasons, self._pinged_at = dict(zip(pings, reasons, strict=True)), self._clock()
            reasons_of = self._reasons
        names = list(reasons_of)
        failing = {name: reason for name, reason in reasons_of.items() if reason is not None}
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
