"""
Addresses of hosts, in threads of its own.

Considerations: `getaddrinfo` cannot be cancelled, and asyncio runs it in the threads of `to_thread`: six on a machine
with two cores. A customer whose name servers are silent would hold all of them, and with them every file and every
other customer's name.
"""

import asyncio
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Final

from aiohttp.abc import AbstractResolver, ResolveResult

from shared.errors import BusyError
from shared.outgoing.addresses import AddressInfo
from shared.runtime.fair_share import FairShare

THREADS: Final = 64
"""Look-ups at once; half of them are for domains that have none in progress."""
WAIT_S: Final = 10.0
"""The longest wait for a thread."""

_Key = tuple[str, int, int]


class Resolver(AbstractResolver):
    """
    Looks up each host once at a time, and the hosts of a domain in a fair share of the threads. A look-up goes on when
    its callers have given up.
    """

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="names")
        self._share = FairShare(THREADS // 2, name="names", reserve=THREADS // 2, wait_s=WAIT_S)
        self._lookups: dict[_Key, asyncio.Task[list[AddressInfo]]] = {}

    async def addresses(self, host: str, port: int, family: int = socket.AF_UNSPEC) -> list[AddressInfo]:
        """
        The addresses of a host, for TCP.

        Raises:
            OSError: It has none, or too many names of its domain are being looked up.
            UnicodeError: It is no host.
        """
        key = host, port, family
        lookup = self._lookups.get(key)
        if lookup is None:
            lookup = self._lookups[key] = asyncio.create_task(self._look_up(key))
            lookup.add_done_callback(partial(self._forget, key))
        return await asyncio.shield(lookup)

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """The same for aiohttp."""
        return [
            ResolveResult(
                hostname=host,
                # A link-local address is one together with its interface alone.
                host=f"{at[0]}%{at[3]}" if len(at) > 3 and at[3] else at[0],
                port=at[1],
                family=found,
                proto=protocol,
                flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            )
            for found, _, protocol, _, at in await self.addresses(host, port, family)
        ]

    async def close(self) -> None:
        """Begin no look-up any more."""
        for lookup in tuple(self._lookups.values()):
            lookup.cancel()
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _look_up(self, key: _Key) -> list[AddressInfo]:
        host, port, family = key
        look_up: Callable[[], list[AddressInfo]] = partial(
            socket.getaddrinfo, host, port, family=family, type=socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG
        )
        try:
            async with self._share.hold(_domain(host)):
                return list(await asyncio.get_running_loop().run_in_executor(self._threads, look_up))
        except BusyError as error:
            raise socket.gaierror(socket.EAI_AGAIN, error.message) from None

    def _forget(self, key: _Key, lookup: asyncio.Task[list[AddressInfo]]) -> None:
        del self._lookups[key]
        if not lookup.cancelled():
            # Its callers may have given up, and asyncio would complain of an error that nobody saw.
            lookup.exception()


def _domain(host: str) -> str:
    """The part of a name that one owner has, as far as its form tells: a stranger has names without end below it."""
    return ".".join(host.lower().rstrip(".").rsplit(".", 2)[-2:])
