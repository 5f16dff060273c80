"""
Connection to NATS: signed in, reconnected for as long as it takes, drained at the end.

The `Bus` that it gives is the mesh's one connection of a process. Each user has an inbox prefix of its own
(`shared.contracts.permissions`).
"""

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import nkeys  # type: ignore[import-untyped]  # the package has no types
from nats.errors import Error as NatsError

from shared.contracts import permissions
from shared.errors import InvalidError, UnavailableError
from shared.messaging.bus import Bus, log
from shared.messaging.nats_py.client import NatsClient
from shared.messaging.nats_py.internals import check_internals, use_parser
from shared.messaging.nats_py.parser import StreamParser
from shared.runtime.telemetry import Metrics

RECONNECT_WAIT_S = 0.25
OUTBOUND_BYTES = 8 << 20
"""Most that waits to be sent while the connection is away; beyond it publishing raises `BusyError`."""
REFUSED_S = 30.0
"""
Time for which a client that NATS has let in before may be refused at each attempt, until it closes for good. Its user
or key is another one by then, and only a new process reads it again. A server that cannot be reached is no refusal.
"""
DRAIN_S = 5.0

_REFUSAL = re.compile("nats: '(.+)'")
"""The library's error for a `-ERR` that answers CONNECT (NATS client protocol)."""


@asynccontextmanager
async def connect(
    user: str, servers: str, *, seed: str = "", seed_file: str = "", metrics: Metrics, wait_s: float | None = None
) -> AsyncIterator[Bus]:
    """
    Sign in and stay connected; leaving the block drains.

    Args:
        user: The name in `shared.contracts.grants.GRANTS`; decides the inboxes.
        servers: URLs, separated by commas.
        seed: NKey seed; empty for a server without users.
        seed_file: The file that it is from, for an error.
        wait_s: How long to try at first; None tries for ever.

    Raises:
        InvalidError: The seed is none; names the file.
        UnavailableError: No server let us in within `wait_s`; the message holds the last reason. Or this nats-py is
            not one that we know.
    """
    bus: list[Bus] = []
    last_error = "no answer"
    refused_since: float | None = None

    async def on_error(error: Exception) -> None:
        nonlocal last_error, refused_since
        last_error = str(error) or type(error).__name__
        log.warning("nats_connection_failed", message=last_error)
        # While it connects, only the server's own errors are quoted: the end of a connection may be that of a server.
        if bus and client.is_connecting and (refusal := _REFUSAL.fullmatch(last_error)):
            now = asyncio.get_running_loop().time()
            refused_since = now if refused_since is None else refused_since
            if now - refused_since > REFUSED_S:
                bus[0].refused = f"the server refuses to let it in, for {REFUSED_S:.0f} s now: {refusal[1]}"

    async def on_disconnect() -> None:
        log.warning("nats_disconnected")

    async def on_reconnect() -> None:
        nonlocal refused_since
        refused_since = None
        log.info("nats_reconnected")
        for callback in bus[0].reconnected if bus else ():
            callback()

    # Typed as whole seconds by the library, which sleeps for any number of them.
    options: dict[str, Any] = {"reconnect_time_wait": RECONNECT_WAIT_S}
    if seed:
        options["nkeys_seed_str"] = seed
    check_internals()
    client = NatsClient()
    parser = StreamParser(client)
    use_parser(client, parser)
    try:
        async with asyncio.timeout(wait_s):
            await client.connect(
                servers=[server.strip() for server in servers.split(",")],
                name=user,
                inbox_prefix=permissions.inbox_prefix(user),
                error_cb=on_error,
                disconnected_cb=on_disconnect,
                reconnected_cb=on_reconnect,
                max_reconnect_attempts=-1,
                connect_timeout=2,
                ping_interval=5,
                max_outstanding_pings=2,
                pending_size=OUTBOUND_BYTES,
                **options,
            )
    except nkeys.NkeysError:
        # The library's message has the seed in it.
        message = "expected the NKey seed of a user of NATS, which begins with SU"
        raise InvalidError(message, field=seed_file or "nats_seed") from None
    except TimeoutError:
        await client.close()
        raise UnavailableError(f"NATS cannot be reached at {servers}: {last_error}") from None
    bus.append(Bus(client, parser, metrics))
    try:
        yield bus[0]
    finally:
        with contextlib.suppress(NatsError, TimeoutError, OSError):
            await asyncio.wait_for(client.drain(), DRAIN_S)
        await bus[0].close()
