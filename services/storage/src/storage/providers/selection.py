"""
Which provider is active for an app: the first active connector, else the local directory. By configuration alone: a
provider that refuses is not passed over, because that would hide it.

Open providers are shared and kept by the revision of their connector, so a changed one takes effect with the next
upload, while the uploads under way end with the old one, which is closed after the last of them.
"""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Self

from shared.registry import Entry
from storage.providers.amazon import AmazonStorageConfig
from storage.uploads import Provider

ConnectorOf = Callable[[str], Entry[AmazonStorageConfig] | None]
Open = Callable[[AmazonStorageConfig], AbstractAsyncContextManager[Provider]]


class _Held:
    """A provider that is open. `users` are the uploads that use it now."""

    def __init__(self, revision: int) -> None:
        self.revision = revision
        self.stack = AsyncExitStack()
        self.users = 0
        self.replaced = False


class Selection:
    """
    An async context manager: leaving it closes what is open.

    Args:
        connector_of: The connector of an app as it is now.
        opening: Opens a connector's provider.
        local: Where objects go without one. Closed by whoever opened it.
    """

    def __init__(self, *, connector_of: ConnectorOf, opening: Open, local: Provider) -> None:
        self._connector_of = connector_of
        self._open = opening
        self._local = local
        self._held: dict[str, tuple[_Held, Provider]] = {}
        self._opening: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_error: object) -> None:
        while self._held:
            _, (held, _) = self._held.popitem()
            await held.stack.aclose()

    @asynccontextmanager
    async def of(self, app_key: str) -> AsyncIterator[Provider]:
        """The active provider of an app, open at least while the block runs. Raises what opening it raises."""
        connector = self._connector_of(app_key)
        if connector is None or not connector.value.active:
            await self._replace(app_key)
            yield self._local
            return
        held, provider = await self._current(app_key, connector.revision, connector.value)
        held.users += 1
        try:
            yield provider
        finally:
            held.users -= 1
            if held.replaced and held.users == 0:
                await held.stack.aclose()

    async def _current(self, app_key: str, revision: int, config: AmazonStorageConfig) -> tuple[_Held, Provider]:
        # A request that read the connector before another one did may come after it: newer is right as well.
        if (found := self._held.get(app_key)) is not None and found[0].revision >= revision:
            return found
        # Opening may look a host up, so no app waits for another's.
        async with self._opening[app_key]:
            if (found := self._held.get(app_key)) is not None and found[0].revision >= revision:
                return found
            held = _Held(revision)
            provider = await held.stack.enter_async_context(self._open(config))
            await self._replace(app_key)
            self._held[app_key] = held, provider
            return held, provider

    async def _replace(self, app_key: str) -> None:
        if (found := self._held.pop(app_key, None)) is None:
            return
        held, _ = found
        held.replaced = True
        if held.users == 0:
            await held.stack.aclose()
