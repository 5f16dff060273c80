"""
Which providers an app has, in the order of their precedence, and those that are open now.

Open providers are shared and kept by the revision of their connector, so a changed one takes effect with the next
upload, while the uploads under way end with the old one, which is closed after the last of them. Those that nobody has
used for longest are closed when there are many.
"""

import asyncio
from collections import OrderedDict, defaultdict
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, nullcontext
from datetime import datetime
from typing import Any, Final, Protocol, Self

from msgspec import Struct

from shared.config.registry import ConfigEntry
from storage.placement.failover import Provider, ProviderHealth, ProviderSlot, ProviderState

MAX_OPEN: Final = 256
"""Providers that stay open while nobody uses them: each has connections of its own."""

Key = tuple[str, str]
"""An app, and the name of one of its providers."""


class ConnectorConfig(Protocol):
    """The configuration of a provider, as far as it matters here."""

    @property
    def active(self) -> bool: ...

    @property
    def place(self) -> str: ...


class ConnectorSource(Struct, frozen=True):
    """Connectors of one kind: the entry of an app as it is now, and how its provider is opened."""

    entry_of: Callable[[str], ConfigEntry[Any] | None]
    open: Callable[[Any], AbstractAsyncContextManager[Provider]]


class ProviderStatus(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How a provider of an app does. `message` and `since` tell of its failure."""

    name: str
    place: str
    active: bool
    state: ProviderState
    message: str | None = None
    since: datetime | None = None


class _OpenProvider:
    """A provider that is open. `users` are the uploads that use it now."""

    def __init__(self, revision: int, provider: Provider, stack: AsyncExitStack) -> None:
        self.revision = revision
        self.provider = provider
        self.stack = stack
        self.users = 0
        self.replaced = False


class _ConnectorSlot:
    """Satisfies `placement.ProviderSlot`."""

    def __init__(
        self, selection: "ProviderSelection", key: Key, entry: ConfigEntry[Any], health: ProviderHealth
    ) -> None:
        self.health = health
        self._selection = selection
        self._key = key
        self._entry = entry

    def open(self) -> AbstractAsyncContextManager[Provider]:
        return self._selection.use(self._key, self._entry)


class _LocalSlot:
    """Satisfies `placement.ProviderSlot`."""

    def __init__(self, provider: Provider, health: ProviderHealth) -> None:
        self.health = health
        self._provider = provider

    def open(self) -> AbstractAsyncContextManager[Provider]:
        return nullcontext(self._provider)


class ProviderSelection:
    """
    Satisfies `uploads.Providers`. An async context manager: leaving it closes what is open.

    Args:
        sources: Kinds of connectors by the name of their provider, the one with precedence first.
        local: Where objects go after them; None where nothing is to lie on this machine. Closed by whoever opened it.
        standing_of: Makes the standing of a provider of an app.
    """

    def __init__(
        self,
        *,
        sources: Mapping[str, ConnectorSource],
        local: Provider | None,
        make_health: Callable[[str, str], ProviderHealth],
        max_open: int = MAX_OPEN,
    ) -> None:
        self._sources = sources
        self._local = local
        self._make_health = make_health
        self._max_open = max_open
        self._open_providers: OrderedDict[Key, _OpenProvider] = OrderedDict()
        self._opening: defaultdict[Key, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._healths: dict[Key, ProviderHealth] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_error: object) -> None:
        while self._open_providers:
            _, opened = self._open_providers.popitem()
            await opened.stack.aclose()

    def slots(self, app_key: str) -> list[ProviderSlot]:
        """See `uploads.Providers`."""
        slots: list[ProviderSlot] = []
        for name, source in self._sources.items():
            entry = source.entry_of(app_key)
            if entry is not None and entry.value.active:
                slots.append(_ConnectorSlot(self, (app_key, name), entry, self._health((app_key, name), entry)))
        if self._local is not None:
            slots.append(_LocalSlot(self._local, self._health((app_key, self._local.name), None)))
        return slots

    def provider_at(self, app_key: str, place: str) -> AbstractAsyncContextManager[Provider] | None:
        """See `uploads.Providers`."""
        if self._local is not None and self._local.place == place:
            return nullcontext(self._local)
        for name, source in self._sources.items():
            entry = source.entry_of(app_key)
            if entry is not None and entry.value.place == place:
                return self.use((app_key, name), entry)
        return None

    def statuses(self, app_key: str) -> tuple[ProviderStatus, ...]:
        """Every provider of an app, in the order of their precedence."""
        entries = {name: source.entry_of(app_key) for name, source in self._sources.items()}
        connectors: list[tuple[str, ConnectorConfig]] = [
            (name, entry.value) for name, entry in entries.items() if entry
        ]
        statuses = [self._status((app_key, name), value.place, value.active) for name, value in connectors]
        if self._local is not None:
            statuses.append(self._status((app_key, self._local.name), self._local.place, True))
        return tuple(statuses)

    def degraded(self) -> dict[str, str]:
        """Names of providers that fail for some apps, and for how many. The apps themselves are told by alerts."""
        counts: dict[tuple[str, ProviderState], int] = {}
        for key, health in self._healths.items():
            if health.state != "ok" and self._is_active(key):
                kind = (health.name, health.state)
                counts[kind] = counts.get(kind, 0) + 1
        summary: dict[str, str] = {}
        for (name, state), count in sorted(counts.items()):
            text = f"{state} for {count} app{'s' if count > 1 else ''}"
            summary[name] = f"{summary[name]}, {text}" if name in summary else text
        return summary

    @asynccontextmanager
    async def use(self, key: Key, entry: ConfigEntry[Any]) -> AsyncIterator[Provider]:
        """The provider of a connector, open at least while the block runs. Raises what opening it raises."""
        opened = await self._current(key, entry)
        opened.users += 1
        try:
            yield opened.provider
        finally:
            opened.users -= 1
            if opened.users == 0 and not opened.replaced and not self._is_active(key):
                self._open_providers.pop(key, None)
                opened.replaced = True
            if opened.users == 0 and opened.replaced:
                await opened.stack.aclose()

    async def _current(self, key: Key, entry: ConfigEntry[Any]) -> _OpenProvider:
        # A request that read the connector before another one did may come after it: newer is right as well.
        if (opened := self._open_providers.get(key)) is not None and opened.revision >= entry.revision:
            self._open_providers.move_to_end(key)
            return opened
        # Opening may look a host up, so no app waits for another's.
        async with self._opening[key]:
            if (opened := self._open_providers.get(key)) is not None and opened.revision >= entry.revision:
                return opened
            stack = AsyncExitStack()
            provider = await stack.enter_async_context(self._sources[key[1]].open(entry.value))
            replaced = self._open_providers.pop(key, None)
            opened = self._open_providers[key] = _OpenProvider(entry.revision, provider, stack)
            opened.users += 1
            try:
                await self._close(replaced)
                await self._close_unused()
            finally:
                opened.users -= 1
            return opened

    async def _close_unused(self) -> None:
        # Gone are connectors that were deleted or are not active any more, and the longest unused of too many.
        surplus = len(self._open_providers) - self._max_open
        for key, opened in list(self._open_providers.items()):
            if opened.users == 0 and (surplus > 0 or not self._is_active(key)):
                surplus -= 1
                del self._open_providers[key]
                self._opening.pop(key, None)
                await self._close(opened)
        for app_key, name in list(self._healths):
            if name in self._sources and self._sources[name].entry_of(app_key) is None:
                del self._healths[app_key, name]

    async def _close(self, opened: _OpenProvider | None) -> None:
        if opened is not None:
            opened.replaced = True
            if opened.users == 0:
                await opened.stack.aclose()

    def _is_active(self, key: Key) -> bool:
        app_key, name = key
        source = self._sources.get(name)
        if source is None:
            return True
        entry = source.entry_of(app_key)
        return entry is not None and bool(entry.value.active)

    def _health(self, key: Key, entry: ConfigEntry[Any] | None) -> ProviderHealth:
        health = self._healths.get(key)
        if health is None:
            health = self._healths[key] = self._make_health(*key)
        if entry is not None:
            health.reset_if_changed(entry.revision)
        return health

    def _status(self, key: Key, place: str, active: bool) -> ProviderStatus:
        health = self._healths.get(key)
        if health is None or not active:
            return ProviderStatus(name=key[1], place=place, active=active, state="ok")
        message = health.error.message if health.error is not None else None
        return ProviderStatus(
            name=key[1], place=place, active=active, state=health.state, message=message, since=health.since
        )
